package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// filter is a plugin in a function.
type filter func(m *mail.Message) (*sdk.Verdict, error)

func (f filter) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) { return f(m) }

type discardTrace struct{}

func (discardTrace) Record(trace.Event) {}

type failure string

func (f failure) Error() string  { return "plugin is " + string(f) }
func (f failure) Reason() string { return string(f) }

func steps(fs ...filter) []Step {
	var s []Step
	for i, f := range fs {
		s = append(s, Step{Name: fmt.Sprintf("p%d", i), Filter: f, Origins: []mail.Origin{mail.Incoming}})
	}
	return s
}

func message(rcpts ...string) Message {
	m := Message{Header: mail.NewHeader([]byte("Subject: s\r\n\r\n")), Body: mail.InlineBody([]byte("body\r\n"))}
	m.Envelope = mail.Envelope{ID: "id", Origin: mail.Incoming, ReversePath: mail.MustPath("from@a.test")}
	for _, r := range rcpts {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(r)})
	}
	return m
}

func run(s []Step, m Message) []Version {
	return New(Options{Steps: s, Trace: discardTrace{}, Clock: time.Now}).Run(context.Background(), m)
}

// describe lists versions as "disposition[!] <reverse> to to | header".
func describe(versions []Version) string {
	var lines []string
	for _, v := range versions {
		var to []string
		for _, r := range v.Recipients {
			to = append(to, r.Path.Local)
		}
		mark := ""
		if v.Class.IsCopy() {
			mark = "!"
		}
		h, _, _ := strings.Cut(string(v.Header.Block()), "Subject")
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s%s %s: %s %s", v.Disposition, mark, v.ReversePath.Local, strings.Join(to, " "), strings.ReplaceAll(h, "\r\n", ";"))))
	}
	return strings.Join(lines, "\n")
}

func expect(t *testing.T, got []Version, want ...string) {
	t.Helper()
	if g := describe(got); g != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", g, strings.Join(want, "\n"))
	}
}

func TestFiveRecipientsFiveOutcomes(t *testing.T) {
	no := mail.Permanent(550, 7, 1, "no")
	later := mail.Temporary(450, 7, 1, "later")
	v := run(steps(func(*mail.Message) (*sdk.Verdict, error) {
		return sdk.Continue().
			For(1, sdk.Outcome{Action: sdk.ActionReject, Status: no}).
			For(2, sdk.Outcome{Action: sdk.ActionTempfail, Status: later}).
			For(3, sdk.Outcome{Action: sdk.ActionQuarantine, Reason: "odd"}).
			For(4, sdk.Outcome{Action: sdk.ActionDiscard, Reason: "bin"}), nil
	}), message("a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"))
	expect(t, v, "deliver from: a", "reject from: b", "defer from: c", "quarantine from: d", "discard from: e")

	s := Settle(v, 5, SMTPClient)
	if !s.Reply.IsZero() {
		t.Errorf("reply %v", s.Reply)
	}
	expect(t, s.Versions, "deliver from: a", "reject from: b", "park from: c", "quarantine from: d", "discard from: e")

	l := Settle(v, 5, LMTPClient)
	if !l.PerRecipient[0].IsZero() || l.PerRecipient[1] != no || l.PerRecipient[2] != later || !l.PerRecipient[3].IsZero() {
		t.Errorf("LMTP replies %v", l.PerRecipient)
	}
	expect(t, l.Versions, "deliver from: a", "quarantine from: d", "discard from: e")
}

func TestEditsSplitAndMerge(t *testing.T) {
	tag := func(m *mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue()
		v.Edits = append(v.Edits, sdk.Edit{Kind: sdk.HeaderInsert, Name: "X-B", Value: "1", Recipients: []int{1}})
		return v, nil
	}
	calls := 0
	count := func(m *mail.Message) (*sdk.Verdict, error) {
		calls++
		v := sdk.Continue()
		if m.Header.Has("X-B") { // take it away again: the versions are equal then
			v.Edits = append(v.Edits, sdk.Edit{Kind: sdk.HeaderRemove, Name: "X-B", Index: -1})
		}
		return v, nil
	}
	v := run(steps(tag, count), message("a@x.test", "b@x.test", "c@x.test"))
	expect(t, v, "deliver from: a b c")
	if calls != 2 {
		t.Errorf("second plugin called %d times, want once per version", calls)
	}
	v = run(steps(tag), message("a@x.test", "b@x.test", "c@x.test"))
	expect(t, v, "deliver from: a c", "deliver from: b X-B: 1;")
}

func TestCopies(t *testing.T) {
	archive := mail.MustPath("archive@x.test")
	post := mail.MustPath("postmaster@x.test")
	bcc := func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddCopy(archive, post), nil }
	sign := func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("Sig", "1"), nil }
	v := run(steps(bcc, sign), message("a@x.test"))
	expect(t, v, "deliver from: a Sig: 1;", "deliver! postmaster: archive Sig: 1;")
	if s := Settle(v, 1, SMTPClient); len(s.Versions) != 2 {
		t.Error("copy lost")
	}
	// Dropped when every original recipient was refused or deferred.
	reject := func(m *mail.Message) (*sdk.Verdict, error) {
		if m.Envelope.Recipients[0].Path == archive {
			return sdk.Continue(), nil
		}
		return sdk.Reject(mail.Permanent(550, 7, 1, "no")), nil
	}
	s := Settle(run(steps(bcc, reject), message("a@x.test")), 1, SMTPClient)
	if s.Reply.Code != 550 || len(s.Versions) != 0 {
		t.Errorf("reply %v, %d versions", s.Reply, len(s.Versions))
	}
}

func TestNoAnswerIsNoVerdict(t *testing.T) {
	for _, c := range []struct {
		err    error
		policy FailurePolicy
		want   string
	}{
		{failure("down"), FailurePolicy{}, "defer from: a"},
		{errors.New("odd"), FailurePolicy{}, "defer from: a"},
		{failure("down"), FailurePolicy{Default: FailReject}, "reject from: a"},
		{failure("down"), FailurePolicy{Default: FailAccept}, "deliver from: a X-Postern-Unscanned: p0 (down);"},
		{failure("down"), FailurePolicy{Default: FailPark}, "park from: a"},
		{failure("timeout"), FailurePolicy{ByClass: map[mail.Class]OnFailure{mail.Stranger: FailReject}, ByReason: map[Reason]OnFailure{Timeout: FailPark}}, "park from: a"},
		{failure("down"), FailurePolicy{ByClass: map[mail.Class]OnFailure{mail.Stranger: FailReject}, ByReason: map[Reason]OnFailure{Timeout: FailPark}}, "reject from: a"},
	} {
		s := steps(func(*mail.Message) (*sdk.Verdict, error) { return nil, c.err })
		s[0].OnFailure = c.policy
		expect(t, run(s, message("a@x.test")), c.want)
	}
	// "Unscanned" is a failure with a reason of its own, never a silent pass.
	s := steps(func(*mail.Message) (*sdk.Verdict, error) { return sdk.Unscanned("too large"), nil })
	expect(t, run(s, message("a@x.test")), "defer from: a")
	s[0].OnFailure.Default = FailAccept
	expect(t, run(s, message("a@x.test")), "deliver from: a X-Postern-Unscanned: p0 (too large);")
}

// A plugin is told that one before it wants the message held; that stays out of the message.
func TestQuarantineIsTold(t *testing.T) {
	var told []string
	look := func(m *mail.Message) (*sdk.Verdict, error) {
		told = append(told, m.Notes[sdk.NoteQuarantine])
		return sdk.Continue(), nil
	}
	v := run(steps(look, func(*mail.Message) (*sdk.Verdict, error) { return sdk.Quarantine("spam"), nil }, look), message("a@x.test"))
	expect(t, v, "quarantine from: a")
	if !slices.Equal(told, []string{"", "p1"}) || v[0].Run.Notes[sdk.NoteQuarantine] != "" {
		t.Errorf("told %q, notes %v", told, v[0].Run.Notes)
	}
}

func TestResume(t *testing.T) {
	var asked []string
	ask := func(name string, v *sdk.Verdict) filter {
		return func(*mail.Message) (*sdk.Verdict, error) { asked = append(asked, name); return v, nil }
	}
	down := true
	s := steps(ask("first", sdk.Continue().Score("s", 2)), func(m *mail.Message) (*sdk.Verdict, error) {
		if m.Scores["p0/s"] != 2 {
			t.Errorf("scores %v", m.Scores)
		}
		if down {
			return nil, failure("down")
		}
		asked = append(asked, "second")
		return sdk.Continue(), nil
	}, ask("third", sdk.Continue()))
	s[1].OnFailure.Default = FailPark
	m := message("a@x.test")
	v := run(s, m)
	expect(t, v, "park from: a")
	if v[0].Run.Complete || !slices.Equal(v[0].Run.Done, []string{"p0"}) {
		t.Fatalf("run %+v", v[0].Run)
	}
	down = false
	m.Run = v[0].Run
	v = run(s, m)
	expect(t, v, "deliver from: a")
	if !slices.Equal(asked, []string{"first", "second", "third"}) || !v[0].Run.Complete {
		t.Errorf("asked %v", asked)
	}
	// One that answered tempfail is not done.
	s = steps(ask("x", sdk.Tempfail(mail.Temporary(451, 7, 1, "later"))))
	v = run(s, message("a@x.test"))
	if len(v[0].Run.Done) != 0 || v[0].Run.Complete {
		t.Errorf("run %+v", v[0].Run)
	}
}

func TestQuarantineGoesOn(t *testing.T) {
	s := steps(
		func(*mail.Message) (*sdk.Verdict, error) { return sdk.Quarantine("odd"), nil },
		func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("Sig", "1"), nil })
	expect(t, run(s, message("a@x.test")), "quarantine from: a Sig: 1;")
	s[1].Filter = filter(func(*mail.Message) (*sdk.Verdict, error) { return sdk.Reject(mail.Permanent(550, 7, 1, "virus")), nil })
	expect(t, run(s, message("a@x.test")), "reject from: a")
}

func TestOriginsSelect(t *testing.T) {
	s := steps(func(*mail.Message) (*sdk.Verdict, error) { t.Error("called"); return sdk.Continue(), nil })
	m := message("a@x.test")
	m.Envelope.Origin = mail.Internal
	if v := run(s, m); !v[0].Run.Complete {
		t.Error("not complete")
	}
}

func TestRecipientEdits(t *testing.T) {
	s := steps(func(*mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue()
		v.Edits = []sdk.Edit{{Kind: sdk.RecipientAdd, Path: mail.MustPath("new@x.test")}, {Kind: sdk.RecipientRemove, Path: mail.MustPath("b@x.test")}, {Kind: sdk.ReversePath, Path: mail.MustPath("other@x.test")}}
		return v, nil
	})
	v := run(s, message("a@x.test", "b@x.test"))
	expect(t, v, "deliver other: a new", "discard from: b")
	if s := Settle(v, 2, SMTPClient); !s.Reply.IsZero() {
		t.Error(s.Reply)
	}
}

func TestRunsShareNothing(t *testing.T) {
	run1 := queue.Run{Done: make([]string, 1, 8), Notes: map[string]string{"a/b": "c"}}
	st := Step{Name: "p"}
	a := st.remember(run1, sdk.Continue().Note("x", "1"))
	b := st.remember(run1, sdk.Continue().Note("x", "2"))
	if a.Notes["p/x"] != "1" || b.Notes["p/x"] != "2" || len(run1.Notes) != 1 {
		t.Error("versions share their notes")
	}
}
