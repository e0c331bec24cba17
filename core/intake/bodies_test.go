package intake

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/disk/disktest"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// rewriter replaces bodies by text, for the recipients that it names.
type rewriter struct {
	text       string
	recipients []int
	outcome    sdk.Outcome
	err        error
}

func (rewriter) Filter(context.Context, *mail.Message) (*sdk.Verdict, error) {
	return nil, errors.New("asked as if bodies could not be replaced")
}

func (f rewriter) Rewrite(_ context.Context, _ *mail.Message, max int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Verdict, mail.Body, error) {
	if f.err != nil {
		return nil, mail.Body{}, f.err
	}
	if max != 1<<20 {
		return nil, mail.Body{}, errors.New("wrong limit")
	}
	body, err := keep(strings.NewReader(f.text))
	if err != nil {
		return nil, mail.Body{}, gatewayFault{err}
	}
	v := &sdk.Verdict{Outcome: f.outcome, Edits: []sdk.Edit{{Kind: sdk.BodyReplace, Recipients: f.recipients}}}
	return v, body, nil
}

type gatewayFault struct{ error }

func (gatewayFault) Reason() string  { return "gateway" }
func (g gatewayFault) Unwrap() error { return g.error }

// rewrite makes the rig's pipeline out of rewriters.
func (r *rig) rewrite(fs ...rewriter) {
	var steps []pipeline.Step
	for i, f := range fs {
		steps = append(steps, pipeline.Step{Name: string(rune('a' + i)), Filter: f, Origins: []mail.Origin{mail.Incoming},
			OnFailure: pipeline.FailurePolicy{Default: pipeline.FailPark, ByReason: map[pipeline.Reason]pipeline.OnFailure{pipeline.Error: pipeline.FailAccept}}})
	}
	rules := *r.in.rules.Load()
	rules.BodySize = 1 << 20
	rules.Pipeline = pipeline.New(pipeline.Options{Steps: steps, Trace: r.rec, Clock: time.Now})
	r.in.Reload(rules)
}

func bodyOf(t *testing.T, e *queue.Entry) string {
	t.Helper()
	rc, err := e.Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	large    = strings.Repeat("old\r\n", 1000)
	newLarge = strings.Repeat("new\r\n", 1000)
)

// What an entry refers to is there, and nothing else is.
func TestReplacedBodies(t *testing.T) {
	reject := sdk.Outcome{Action: sdk.ActionReject, Status: mail.Permanent(550, 7, 1, "no")}
	for name, tc := range map[string]struct {
		fs     []rewriter
		old    string
		bodies []string // of the entries
		files  int
	}{
		"large by large":        {[]rewriter{{text: newLarge}}, large, []string{newLarge}, 1},
		"large by small":        {[]rewriter{{text: "new\r\n"}}, large, []string{"new\r\n"}, 0},
		"large by nothing":      {[]rewriter{{text: ""}}, large, []string{""}, 0},
		"small by large":        {[]rewriter{{text: newLarge}}, "old\r\n", []string{newLarge}, 1},
		"for one of two":        {[]rewriter{{text: newLarge, recipients: []int{1}}}, large, []string{large, newLarge}, 2},
		"for none":              {[]rewriter{{text: newLarge, recipients: []int{}}}, large, []string{large}, 1},
		"twice":                 {[]rewriter{{text: newLarge}, {text: newLarge + "2\r\n"}}, large, []string{newLarge + "2\r\n"}, 1},
		"and then rejected":     {[]rewriter{{text: newLarge}, {text: newLarge, outcome: reject}}, large, nil, 0},
		"and then discarded":    {[]rewriter{{text: newLarge}, {text: newLarge, outcome: sdk.Outcome{Action: sdk.ActionDiscard}}}, large, nil, 0},
		"quarantined":           {[]rewriter{{text: newLarge, outcome: sdk.Outcome{Action: sdk.ActionQuarantine}}}, large, []string{newLarge}, 1},
		"failed, and let pass":  {[]rewriter{{err: errors.New("odd")}}, large, []string{large}, 1},
		"replaced, then failed": {[]rewriter{{text: newLarge}, {err: errors.New("odd")}}, large, []string{newLarge}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.rewrite(tc.fs...)
			r.receive(envelope(mail.Incoming, "a@x.test", "b@x.test"), pipeline.SMTPClient, "Subject: s\r\n\r\n"+tc.old)
			es, _ := r.entries()
			if len(es) != len(tc.bodies) {
				t.Fatalf("%d entries, want %d", len(es), len(tc.bodies))
			}
			for i, e := range es {
				if got := bodyOf(t, e); got != tc.bodies[i] {
					t.Errorf("entry %d has a body of %d bytes that begins %.10q", i, len(got), got)
				}
			}
			if n := r.contents(); n != tc.files {
				t.Errorf("%d content files, want %d", n, tc.files)
			}
		})
	}
}

type downFor struct{ error }

func (downFor) Reason() string { return "down" }

// A body that is replaced when parked mail goes on is there when its commit names it, and
// gone when there was no commit.
func TestReplacedBodyOnResume(t *testing.T) {
	for _, commit := range []bool{true, false} {
		r := newRig(t)
		r.rewrite(rewriter{err: downFor{errors.New("gone")}})
		r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, "Subject: s\r\n\r\n"+large)
		es, recs := r.entries()
		if len(es) != 1 || recs[0][0].State != queue.Parked {
			t.Fatal(recs)
		}
		r.rewrite(rewriter{text: newLarge})
		b, end := r.in.Resume(t.Context(), es[0], []int{0}, recs[0])
		if len(b.Add) != 1 || bodyOf(t, b.Add[0].Entry) != newLarge {
			t.Fatalf("batch %+v", b)
		}
		if commit {
			if err := r.store.Commit(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		end(commit)
		want := newLarge
		if !commit {
			want = large
		}
		es, _ = r.entries()
		if len(es) != 1 || bodyOf(t, es[0]) != want {
			t.Errorf("committed: %v: the entry has another body", commit)
		}
		for _, f := range r.files() {
			if b, _ := os.ReadFile(f); string(b) != want && (string(b) != large || !commit) { // the store removes the old one later
				t.Errorf("committed: %v: left %.10q", commit, b)
			}
		}
	}
}

func (r *rig) files() []string {
	names, _ := filepath.Glob(r.dir + "/content/*")
	return names
}

// A new body that cannot be stored, or not made durable, is nobody's verdict: the client
// is told to come back, whatever on_failure says, and nothing is left.
func TestReplacedBodyNotStored(t *testing.T) {
	full := disktest.Short()
	for _, kind := range []string{"write", "sync", "syncdir"} {
		r := newRig(t)
		armed, seen := false, 0
		faults := disktest.NewFaults(disk.OS{}, func(op disktest.Op) error {
			if !armed || op.Kind != kind {
				return nil
			}
			if seen++; seen == 1 && kind == "write" { // the message's own
				return nil
			}
			return full
		})
		sp, err := spool.Open(spool.Options{Dir: r.dir + "/content", Threshold: 1000, FS: faults})
		if err != nil {
			t.Fatal(err)
		}
		r.in.Spool = sp
		r.rewrite(rewriter{text: newLarge})
		armed = true
		receipt, err := r.in.Receive(t.Context(), envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, strings.NewReader("Subject: s\r\n\r\n"+large))
		if err != nil {
			receipt.Reply = mail.StatusOf(err)
		}
		if receipt.Reply.Code != 452 {
			t.Errorf("%s: reply %v, want 452", kind, receipt.Reply)
		}
		if es, _ := r.entries(); len(es) != 0 || r.contents() != 0 || seen == 0 {
			t.Errorf("%s: %d entries, %d files, %d operations", kind, len(es), r.contents(), seen)
		}
	}
}
