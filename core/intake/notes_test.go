package intake

import (
	"maps"
	"testing"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// What gates noted is what filters are told, and is kept with what they note themselves.
func TestNotesOfGatesAreKept(t *testing.T) {
	given := map[string]string{"gate/a": "1"}
	var seen map[string]string
	r := newRig(t, func(m *mail.Message) (*sdk.Verdict, error) {
		seen = m.Notes
		if m.Envelope.Notes != nil {
			t.Error("told twice")
		}
		return sdk.Continue().Note("b", "2"), nil
	})
	env := envelope(mail.Incoming, "a@x.test")
	env.Notes = given
	r.receive(env, pipeline.SMTPClient, plain)
	es, _ := r.entries()
	if !maps.Equal(seen, given) || len(es) != 1 || !maps.Equal(es[0].Run.Notes, map[string]string{"gate/a": "1", "p/b": "2"}) {
		t.Errorf("the filter saw %v, kept is %v", seen, es[0].Run.Notes)
	}
}
