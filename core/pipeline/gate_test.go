package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// gate is a gate plugin in a function.
type gate func(a *sdk.Attempt) (*sdk.Verdict, error)

func (g gate) Gate(_ context.Context, a *sdk.Attempt) (*sdk.Verdict, error) { return g(a) }

func gateStep(name string, stages sdk.Stage, g gate) GateStep {
	return GateStep{Name: name, Gate: g, Stages: stages, Origins: []mail.Origin{mail.Incoming}}
}

func newGates(steps ...GateStep) *Gates { return NewGates(steps, nil, slog.New(slog.DiscardHandler)) }

// Gates are asked in order, at their stages and about their origins, until one refuses; a
// later one sees what those before it noted, and nobody writes into notes that are shared.
func TestGatesInOrder(t *testing.T) {
	var asked []string
	note := func(name string) gate {
		return func(a *sdk.Attempt) (*sdk.Verdict, error) {
			asked = append(asked, fmt.Sprintf("%s at %s with %d notes", name, a.Stage, len(a.Envelope.Notes)))
			return sdk.Continue().Note("n", name), nil
		}
	}
	no := mail.Permanent(550, 7, 1, "no")
	refuse := func(a *sdk.Attempt) (*sdk.Verdict, error) { return sdk.Reject(no).Note("why", "so"), nil }
	other := gateStep("other", sdk.AtRcpt, note("other"))
	other.Origins = []mail.Origin{mail.Submitted}
	g := newGates(gateStep("a", sdk.AtConnect|sdk.AtRcpt, note("a")), other, gateStep("b", sdk.AtRcpt|sdk.AtMail, note("b")),
		gateStep("c", sdk.AtRcpt, refuse), gateStep("d", sdk.AtRcpt, note("d")))
	shared := map[string]string{"x/y": "z"}
	a := &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: mail.Envelope{Origin: mail.Incoming, Notes: shared}}
	if st := g.Ask(t.Context(), a); st != no {
		t.Errorf("status %v", st)
	}
	if got := fmt.Sprint(asked); got != "[a at RCPT with 1 notes b at RCPT with 2 notes]" {
		t.Error(got)
	}
	if want := map[string]string{"x/y": "z", "a/n": "a", "b/n": "b", "c/why": "so"}; !maps.Equal(a.Envelope.Notes, want) || len(shared) != 1 {
		t.Errorf("notes %v, shared %v", a.Envelope.Notes, shared)
	}
	for stage, want := range map[sdk.Stage]bool{sdk.AtConnect: true, sdk.AtHelo: false, sdk.AtMail: true, sdk.AtRcpt: true, sdk.AtConnect | sdk.AtHelo: true} {
		if g.Any(stage) != want {
			t.Errorf("Any(%d) is %v", stage, !want)
		}
	}
}

func TestGateFailures(t *testing.T) {
	for _, c := range []struct {
		err    error
		v      *sdk.Verdict
		stage  sdk.Stage
		policy FailurePolicy
		filter bool
		want   string // status, or the note
	}{
		{err: failure("down"), want: "451 4.3.0"},
		{err: failure("timeout"), policy: FailurePolicy{Default: FailTempfail}, want: "451 4.3.0"},
		{err: failure("down"), stage: sdk.AtConnect, want: "421 4.3.0"},
		{err: failure("down"), policy: FailurePolicy{Default: FailPark}, want: "451 4.3.0"},
		{err: failure("down"), policy: FailurePolicy{Default: FailPark}, filter: true, want: "missed: down"},
		{v: sdk.Unscanned("no DNS"), policy: FailurePolicy{Default: FailPark}, filter: true, stage: sdk.AtConnect, want: "missed: error"},
		{err: failure("down"), filter: true, want: "451 4.3.0"},
		{err: failure("down"), policy: FailurePolicy{Default: FailReject}, want: "554 5.3.0"},
		{err: failure("down"), policy: FailurePolicy{Default: FailAccept}, want: "down"},
		{err: errors.New("odd"), policy: FailurePolicy{Default: FailAccept}, want: "error"},
		{v: sdk.Unscanned("no DNS"), policy: FailurePolicy{Default: FailAccept}, want: "no DNS"},
		{v: sdk.Unscanned("no DNS"), want: "451 4.3.0"},
		{err: failure("timeout"), policy: FailurePolicy{Default: FailReject, ByClass: map[mail.Class]OnFailure{mail.Stranger: FailAccept}}, want: "timeout"},
	} {
		if c.stage == 0 {
			c.stage = sdk.AtRcpt
		}
		s := gateStep("p", c.stage, func(*sdk.Attempt) (*sdk.Verdict, error) { return c.v, c.err })
		s.OnFailure, s.Filter = c.policy, c.filter
		asked := false
		next := gateStep("q", c.stage, func(*sdk.Attempt) (*sdk.Verdict, error) { asked = true; return sdk.Continue(), nil })
		a := &sdk.Attempt{Stage: c.stage, Envelope: mail.Envelope{Origin: mail.Incoming}}
		st := newGates(s, next).Ask(t.Context(), a)
		got := a.Envelope.Notes["p/unscanned"]
		if why, ok := a.Envelope.Notes["p/missed "+c.stage.String()]; ok {
			got = "missed: " + why
		}
		if !st.IsZero() {
			got = fmt.Sprintf("%d %s", st.Code, st.EnhancedString())
		}
		if got != c.want || asked != st.IsZero() {
			t.Errorf("%v, %+v: got %q, want %q; the next was asked: %v", c.err, c.policy, got, c.want, asked)
		}
	}
}

// Notes are bounded: one for each of a thousand recipients must not fill the memory, nor
// make the calls to others too large.
func TestGateNotesAreBounded(t *testing.T) {
	n := 0
	s := gateStep("p", sdk.AtRcpt, func(*sdk.Attempt) (*sdk.Verdict, error) {
		n++
		return sdk.Continue().Note(fmt.Sprintf("%04d", n), strings.Repeat("x", 1018)), nil // 1 KiB with its name
	})
	g := newGates(s)
	a := &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: mail.Envelope{Origin: mail.Incoming}}
	for i := range 40 {
		if st := g.Ask(t.Context(), a); st.IsZero() != (i < 32) || !st.IsZero() && st.Code != 451 {
			t.Fatalf("call %d: %v", i, st)
		}
	}
	if len(a.Envelope.Notes) != 32 {
		t.Errorf("%d notes", len(a.Envelope.Notes))
	}
	a.Envelope.Notes = nil
	s.OnFailure.Default = FailAccept
	if st := newGates(s).Ask(t.Context(), a); !st.IsZero() {
		t.Error(st)
	}
}

// A hook that nobody asked for costs nothing.
func TestNoGateNoCost(t *testing.T) {
	called := 0
	idle := gateStep("p", sdk.AtConnect, func(*sdk.Attempt) (*sdk.Verdict, error) { called++; return sdk.Continue(), nil })
	for _, g := range []*Gates{newGates(), newGates(idle, idle, idle, idle, idle)} {
		a := &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: mail.Envelope{Origin: mail.Incoming}}
		if n := testing.AllocsPerRun(100, func() {
			if g.Any(sdk.AtRcpt) || !g.Ask(context.Background(), a).IsZero() {
				t.Error("somebody was asked")
			}
		}); n != 0 || called != 0 {
			t.Errorf("%v allocations, %d calls", n, called)
		}
	}
}

// What RCPT costs with plugins in the process, that is: without the calls themselves. Hooks
// that nobody asked for cost nothing, whatever the number of plugins that have others.
func BenchmarkGates(b *testing.B) {
	for name, stage := range map[string]sdk.Stage{"asked": sdk.AtRcpt, "not asked": sdk.AtConnect} {
		for _, n := range []int{0, 1, 5} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				v := sdk.Continue()
				var steps []GateStep
				for i := range n {
					steps = append(steps, gateStep(fmt.Sprint(i), stage, func(*sdk.Attempt) (*sdk.Verdict, error) { return v, nil }))
				}
				g := newGates(steps...)
				a := &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: mail.Envelope{Origin: mail.Incoming}}
				b.ReportAllocs()
				for b.Loop() {
					if g.Any(sdk.AtRcpt) {
						g.Ask(context.Background(), a)
					}
				}
			})
		}
	}
}
