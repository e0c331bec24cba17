package pipeline

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// copier is a filter that may send copies.
type copier struct{ filter }

func (copier) Manifest() sdk.Manifest { return sdk.Manifest{May: sdk.MayCopy} }

// A plugin that may send copies learns once what becomes of all recipients, and what it is
// asked about besides; others learn nothing.
func TestWhole(t *testing.T) {
	var told []string
	var fates [][]sdk.Fate
	tell := func(m *mail.Message) (*sdk.Verdict, error) {
		note := m.Notes[sdk.NoteEnvelope]
		if note != sdk.EnvelopeAsked && note != sdk.EnvelopeCopy && note != "" {
			note = "list"
			fates = append(fates, sdk.WholeEnvelope(m))
		}
		told = append(told, fmt.Sprintf("%s: %s", m.Envelope.Recipients[0].Path.Local, note))
		return sdk.Continue(), nil
	}
	split := func(m *mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue().For(1, sdk.Quarantine("odd").Outcome).For(2, sdk.Reject(mail.Permanent(550, 7, 1, "no")).Outcome)
		return v.AddCopy(mail.MustPath("archive@x.test"), mail.Path{}), nil
	}
	for name, tt := range map[string]struct {
		first func(*mail.Message) (*sdk.Verdict, error)
		want  []string
		list  []sdk.Fate
	}{
		"whole": {tell, []string{"a: ", "a: "}, nil},
		"split": {split, []string{"a: list", "b: asked", "archive: copy"}, []sdk.Fate{
			{To: "a@x.test", Given: "a@x.test"},
			{To: "b@x.test", Given: "b@x.test", Becomes: "quarantine", Why: "plugin p0: odd"},
			{To: "c@x.test", Given: "c@x.test", Becomes: "reject", Why: "plugin p0: 550 5.7.1 no"},
		}},
		"held": {func(*mail.Message) (*sdk.Verdict, error) { return sdk.Quarantine("odd"), nil }, []string{"a: list"}, []sdk.Fate{
			{To: "a@x.test", Given: "a@x.test", Becomes: "quarantine", Why: "plugin p0: odd"},
			{To: "b@x.test", Given: "b@x.test", Becomes: "quarantine", Why: "plugin p0: odd"},
			{To: "c@x.test", Given: "c@x.test", Becomes: "quarantine", Why: "plugin p0: odd"},
		}},
	} {
		told, fates = nil, nil
		s := steps(tt.first, tell)
		s[1].Filter = copier{tell}
		for _, v := range run(s, message("a@x.test", "b@x.test", "c@x.test")) {
			if _, kept := v.Run.Notes[sdk.NoteEnvelope]; kept {
				t.Errorf("%s: the note is kept", name)
			}
		}
		if d := cmp.Diff(tt.want, told); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
		if tt.list != nil {
			if d := cmp.Diff([][]sdk.Fate{tt.list}, fates); d != "" {
				t.Errorf("%s: (-want +got)\n%s", name, d)
			}
		}
	}
}

// A plugin that gave no answer about one version gets the list with the next.
func TestWholeAfterFailure(t *testing.T) {
	n := 0
	var notes []string
	tell := func(m *mail.Message) (*sdk.Verdict, error) {
		notes = append(notes, m.Notes[sdk.NoteEnvelope])
		if n++; n == 1 {
			return nil, failure("down")
		}
		return sdk.Continue(), nil
	}
	s := steps(func(*mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue()
		return v.AddHeader("X-B", "1").Only(1), nil
	}, nil)
	s[1].Filter = copier{tell}
	run(s, message("a@x.test", "b@x.test"))
	if len(notes) != 2 || notes[1] != `[{"to":"a@x.test","given":"a@x.test","becomes":"defer","why":"waits for plugin p1 (down): 451 4.3.0 Message cannot be checked now, try again later"},{"to":"b@x.test","given":"b@x.test"}]` {
		t.Errorf("%q", notes)
	}
}

// The list is bounded.
func TestWholeIsBounded(t *testing.T) {
	v := Version{Disposition: Quarantine, Reason: "odd"}
	for i := range 5000 {
		v.Recipients = append(v.Recipients, Recipient{mail.Recipient{Path: mail.MustPath(fmt.Sprintf("user%d@x.test", i))}, i})
	}
	s := &Step{Name: "p", Filter: copier{}}
	note := s.whole(v, nil, []Version{v})
	if len(note) > maxWhole+1000 {
		t.Errorf("%d bytes", len(note))
	}
	fates := sdk.WholeEnvelope(&mail.Message{Notes: map[string]string{sdk.NoteEnvelope: note}})
	if last := fates[len(fates)-1]; last.Becomes != "unlisted" || last.Why != fmt.Sprintf("%d more recipients", 5000-len(fates)+1) {
		t.Errorf("%d, the last %+v", len(fates), last)
	}
}

// A copy may have a content of its own.
func TestCopyOwn(t *testing.T) {
	report := func(*mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue()
		v.Edits = append(v.Edits, sdk.Edit{Kind: sdk.Copy, Path: mail.MustPath("archive@x.test"), Value: "Subject: report\r\n\r\n", BodyDraft: "draft"})
		return v, nil
	}
	s := steps(report)
	own := mail.InlineBody([]byte("own\r\n"))
	verdict, _ := report(nil)
	m := message("a@x.test")
	got := s[0].apply(Version{Header: m.Header, Body: m.Body, Recipients: []Recipient{{m.Envelope.Recipients[0], 0}}}, verdict, own)
	if len(got) != 2 || got[0].Class != queue.Mail || !SameBody(got[0].Body, m.Body) || string(got[0].Header.Block()) != string(m.Header.Block()) {
		t.Fatalf("%+v", got)
	}
	if c := got[1]; c.Class != queue.Journal || string(c.Body.Inline) != "own\r\n" || c.Header.Get("Subject") != "report" || c.Recipients[0].Path.Local != "archive" {
		t.Errorf("%+v", c)
	}
}
