package pipeline

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// What failure policies decide is counted: by plugin and by choice, and what they never had
// to decide is not.
func TestTallyOfMessages(t *testing.T) {
	var tally Tally
	silent := func(*mail.Message) (*sdk.Verdict, error) { return nil, failure("down") }
	blind := func(*mail.Message) (*sdk.Verdict, error) { return sdk.Unscanned("too large"), nil }
	guilty := func(*mail.Message) (*sdk.Verdict, error) { return nil, failure(string(Convicted)) }
	content := func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue(), nil }
	ask := func(choice OnFailure, f filter) {
		s := steps(content, f, content)
		s[1].OnFailure.Default = choice
		New(Options{Steps: s, Trace: discardTrace{}, Clock: time.Now, Tally: &tally}).Run(t.Context(), message("a@x.test", "b@x.test"))
	}
	ask(FailAccept, silent)
	ask(FailAccept, blind)
	ask(FailAccept, guilty)
	ask(FailAccept, content)
	ask("", silent)
	ask(FailReject, blind)
	ask(FailPark, silent)
	if got, want := tally.Of("p1"), (Counts{NoVerdict: Choices{Unscanned: 2, Deferred: 1, Rejected: 1, Parked: 1}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := tally.Of("p0"); got != (Counts{}) {
		t.Errorf("of one that always answers: %+v", got)
	}
}

// A verdict counts once for each version that it made and did not find so.
func TestTallyOfVerdicts(t *testing.T) {
	var tally Tally
	no := mail.Permanent(550, 7, 1, "no")
	judge := func(m *mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue()
		v.For(0, sdk.Reject(no).Outcome)
		v.For(1, sdk.Discard("bin").Outcome)
		v.For(2, sdk.Quarantine("odd").Outcome)
		v.For(3, sdk.Tempfail(mail.Temporary(450, 7, 1, "later")).Outcome)
		return v, nil
	}
	content := func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("X-Seen", "1"), nil }
	p := New(Options{Steps: steps(judge, content), Trace: discardTrace{}, Clock: time.Now, Tally: &tally})
	for range 2 {
		p.Run(t.Context(), message("a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"))
	}
	if got, want := tally.Of("p0"), (Counts{Verdicts: Verdicts{Rejected: 2, Deferred: 2, Discarded: 2, Quarantined: 2}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := tally.Of("p1"); got != (Counts{}) {
		t.Errorf("of one that saw what was quarantined: %+v", got)
	}
}

func TestTallyOfQuestions(t *testing.T) {
	var tally Tally
	ask := func(choice OnFailure, filter bool) {
		s := gateStep("p", sdk.AtRcpt, func(*sdk.Attempt) (*sdk.Verdict, error) { return nil, failure("timeout") })
		s.OnFailure.Default, s.Filter = choice, filter
		g := NewGates([]GateStep{s}, &tally, slog.New(slog.DiscardHandler))
		g.Ask(t.Context(), &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: mail.Envelope{Origin: mail.Incoming}})
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { ask(FailAccept, false) })
	}
	wg.Wait()
	ask(FailReject, false)
	ask(FailPark, true)
	ask(FailPark, false) // of a gate that is nothing else: tempfail
	if got, want := tally.Of("p"), (Counts{NoAnswer: Choices{Unscanned: 10, Deferred: 1, Rejected: 1, Parked: 1}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
