package pipeline

import (
	"context"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Who wants mail of the sender is said to each plugin by the numbers of the recipients that it
// is asked about, and is not kept.
func TestAllowed(t *testing.T) {
	var told []string
	tell := func(m *mail.Message) (*sdk.Verdict, error) {
		told = append(told, m.Notes[sdk.NoteAllowed])
		return sdk.Continue(), nil
	}
	s := steps(tell, func(*mail.Message) (*sdk.Verdict, error) {
		return sdk.Continue().For(0, sdk.Quarantine("held").Outcome), nil
	}, tell)
	wanted := map[string]bool{"b@x.test": true, "c@x.test": true}
	allowed := func(_ context.Context, m *mail.Message) (out []int) {
		for i, r := range m.Envelope.Recipients {
			if wanted[r.Path.String()] {
				out = append(out, i)
			}
		}
		return out
	}
	versions := New(Options{Steps: s, Trace: discardTrace{}, Clock: time.Now, Allowed: allowed}).Run(context.Background(), message("a@x.test", "b@x.test", "c@x.test"))
	if len(told) != 3 || told[0] != "1,2" || told[1] != "" || told[2] != "0,1" {
		t.Errorf("told %q", told)
	}
	for _, v := range versions {
		if _, kept := v.Run.Notes[sdk.NoteAllowed]; kept {
			t.Error("the note is kept")
		}
		if want := map[Disposition]string{Quarantine: "p1"}[v.Disposition]; v.By != want {
			t.Errorf("%s by %q, want %q", v.Disposition, v.By, want)
		}
	}
}
