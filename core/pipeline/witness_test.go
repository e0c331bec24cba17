package pipeline

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// observed notes what a witness is told.
type observed struct {
	lines []string
	ended []Version
}

func (o *observed) Asked(a Answer) {
	verdict := "none"
	if a.Verdict != nil {
		verdict = a.Verdict.Action.String()
	}
	o.lines = append(o.lines, fmt.Sprintf("%s %s %v: %d -> %s", a.Plugin, verdict, a.Err != nil, len(a.Before.Recipients), describe(a.After)))
}

func (o *observed) Ended(versions []Version) { o.ended = versions }

// A witness is told of every answer, of failures too, and what a run returns.
func TestWitness(t *testing.T) {
	s := steps(
		func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("X-One", "1"), nil },
		func(*mail.Message) (*sdk.Verdict, error) { return nil, errors.New("broken") },
		func(*mail.Message) (*sdk.Verdict, error) { return sdk.Unscanned("too large"), nil },
		func(*mail.Message) (*sdk.Verdict, error) {
			t.Error("asked after a deferral")
			return sdk.Continue(), nil
		},
	)
	s[1].OnFailure.Default = FailAccept
	o := &observed{}
	got := New(Options{Steps: s, Trace: discardTrace{}, Clock: time.Now, Witness: o}).Run(context.Background(), message("a@b.test", "c@b.test"))
	if describe(o.ended) != describe(got) || len(got) != 1 || got[0].Disposition != Defer {
		t.Errorf("it ended with %s, the run returned %s", describe(o.ended), describe(got))
	}
	if len(o.lines) != 3 {
		t.Errorf("told: %q", o.lines)
	}
	for i, want := range []string{"p0 continue false: 2", "p1 none true: 2", "p2 none true: 2"} {
		if i < len(o.lines) && o.lines[i][:len(want)] != want {
			t.Errorf("told %q, want %q", o.lines[i], want)
		}
	}
}
