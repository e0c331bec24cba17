package expand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

var (
	alice = mail.MustPath("Alice@x.test")
	now   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

// planner makes one plan. A body that is asked for is written.
type planner struct {
	plan  *sdk.Plan
	body  string // of the last action
	err   error
	asked *mail.Message
}

func (p *planner) Plan(_ context.Context, m *mail.Message, _ int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Plan, map[int]mail.Body, error) {
	p.asked = m
	var bodies map[int]mail.Body
	if p.body != "" {
		b, err := keep(strings.NewReader(p.body))
		if err != nil {
			return nil, nil, err
		}
		bodies = map[int]mail.Body{len(p.plan.Actions) - 1: b}
	}
	return p.plan, bodies, p.err
}

// expander has one planner, "p". dir is where bodies are.
func expander(t *testing.T, p *planner) (x *Expander, dir string) {
	t.Helper()
	dir = t.TempDir()
	content, err := spool.Open(spool.Options{Dir: dir, Threshold: 1000})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	in := intake.New(intake.Options{Hostname: "mx.test", Postmaster: mail.MustPath("postmaster@mx.test"), IDs: &queue.IDs{}, Spool: content,
		Backoff: queue.DefaultBackoff(), Log: log, Clock: func() time.Time { return now }},
		intake.Rules{Pipeline: pipeline.New(pipeline.Options{}), HeaderSize: 4096, BodySize: 100_000, Hops: 3,
			Destination: func(p mail.Path) string { return p.Domain.String() },
			Expand: func(_ context.Context, p mail.Path) ([]mail.Path, error) {
				if p.Local == "broken" {
					return nil, errors.New("directory is down")
				}
				return []mail.Path{p}, nil
			}})
	return &Expander{Planner: func(name string) (Planner, bool) { return p, name == "p" }, Intake: in, Log: log, Clock: func() time.Time { return now }}, dir
}

// entry is a message for bob and alice, who is number 1.
func entry(header string) *queue.Entry {
	h, body := mail.SplitMessage([]byte(header + "Subject: x\r\n\r\nbody\r\n"))
	return &queue.Entry{ID: 7, Family: 5, Header: h, Body: mail.InlineBody(body), Run: queue.Run{Scores: map[string]float64{"s/x": 1}},
		Envelope: mail.Envelope{ID: queue.ID(7).String(), Origin: mail.Incoming, ReversePath: mail.MustPath("from@y.test"), EnvelopeID: "e", Return: mail.ReturnFull,
			Recipients: []mail.Recipient{{Path: mail.MustPath("bob@x.test")}, {Path: alice, Notify: mail.NotifySuccess}}}}
}

// added is what a plan adds to the queue, in words.
func added(out *Outcome) string {
	var s []string
	for _, a := range out.Add {
		e := a.Entry
		word := fmt.Sprintf("%s>%s", e.Envelope.ReversePath, e.Envelope.Recipients[0].Path)
		if e.Keep != nil {
			word += fmt.Sprintf(" in %q", e.Keep.Folder)
		}
		if e.Envelope.Recipients[0].Notify == mail.NotifySuccess {
			word += " notified"
		}
		s = append(s, word)
	}
	return strings.Join(s, "; ")
}

func plan() *sdk.Plan { return &sdk.Plan{} }

// own makes the last action of a plan a message of its own.
func own(p *sdk.Plan) *sdk.Plan {
	p.WithHeader(mail.NewHeader([]byte("Subject: sent\r\n\r\n"))).Actions[len(p.Actions)-1].Own = true
	return p
}

// What becomes of the recipient's record, and of the message: once what the plan says, and what nobody
// says anything about is kept.
func TestPlan(t *testing.T) {
	h := mail.NewHeader([]byte("Subject: reply\r\n\r\n"))
	a, b := mail.MustPath("a@y.test"), mail.MustPath("b@y.test")
	no := mail.Permanent(550, 7, 1, "no")
	for name, tt := range map[string]struct {
		plan   *sdk.Plan
		state  queue.State
		reason string
		adds   string
	}{
		"nothing":            {plan(), 0, "", ""},
		"a keep":             {plan().Keep("A", `\Seen`), 0, "", ""},
		"notes":              {plan().Note("x"), 0, "", ""},
		"two keeps":          {plan().Keep("A").File("B"), queue.Replaced, `kept in "A", kept in "B"`, `from@y.test>Alice@x.test in "A" notified; from@y.test>Alice@x.test in "B"`},
		"a keep of another":  {plan().Keep("A").WithHeader(h), queue.Replaced, `kept in "A"`, `from@y.test>Alice@x.test in "A" notified`},
		"a redirect":         {plan().Redirect(a), queue.Replaced, "redirected to a@y.test", "from@y.test>a@y.test notified"},
		"redirects":          {plan().Redirect(a).Redirect(b).Redirect(a).Keep(""), queue.Replaced, `kept in "", redirected to a@y.test, redirected to b@y.test`, `from@y.test>Alice@x.test in "" notified; from@y.test>a@y.test; from@y.test>b@y.test`},
		"to himself":         {plan().Redirect(mail.MustPath("alice@X.test")), queue.State(0), "", ""},
		"to himself, kept":   {plan().Redirect(mail.MustPath("alice@X.test")).Keep("A"), queue.Replaced, `kept in "", kept in "A"`, `from@y.test>Alice@x.test in "" notified; from@y.test>Alice@x.test in "A"`},
		"a discard":          {plan().Discard("why"), queue.Discarded, "why", ""},
		"a discard too late": {plan().Discard("why").Keep("A"), 0, "", ""},
		"a reply":            {plan().Vacation(h, []byte("away\r\n")), queue.Replaced, `kept in "", 1 messages sent`, `>from@y.test; from@y.test>Alice@x.test in "" notified`},
		"a notice only":      {plan().Discard("why").Notify(a, h, nil), queue.Discarded, "why", ">a@y.test"},
		"something to know":  {plan().Keep("A").AndRemember("k", time.Hour), queue.Replaced, `kept in "A"`, `from@y.test>Alice@x.test in "A" notified`},
		"a reject":           {plan().Reject(no).Notify(a, h, nil), queue.Discarded, "rejected by the recipient, the sender is not known: 550 5.7.1 no", ">a@y.test"},
		"a copy":             {own(plan().Vacation(h, nil).Keep("Sent")), queue.Replaced, `a copy of what was sent kept in "Sent", kept in "", 1 messages sent`, `>from@y.test; >Alice@x.test in "Sent"; from@y.test>Alice@x.test in "" notified`},
		"a copy, discarded":  {own(plan().Vacation(h, nil).Discard("why").Keep("Sent")), queue.Discarded, "why", `>from@y.test; >Alice@x.test in "Sent"`},
		"a copy, redirected": {own(plan().Redirect(a).Keep("Sent")), queue.Replaced, `a copy of what was sent kept in "Sent", redirected to a@y.test`, `>Alice@x.test in "Sent"; from@y.test>a@y.test notified`},
		"a copy, to himself": {own(plan().Redirect(alice).Keep("")), queue.Replaced, `kept in "", a copy of what was sent kept in ""`, `from@y.test>Alice@x.test in "" notified; >Alice@x.test in ""`},
	} {
		p := &planner{plan: tt.plan}
		x, _ := expander(t, p)
		out, err := x.Plan(t.Context(), "p", entry(""), 1)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if out.Record.State != tt.state || out.Record.Reason != tt.reason || added(out) != tt.adds {
			t.Errorf("%s: %v %q\n%s\nwant %v %q\n%s", name, out.Record.State, out.Record.Reason, added(out), tt.state, tt.reason, tt.adds)
		}
		if r := p.asked.Envelope.Recipients; len(r) != 1 || r[0].Path != alice || p.asked.Scores["s/x"] != 1 {
			t.Errorf("%s: asked about %+v", name, p.asked)
		}
		out.End(true)
	}
}

// A plan that only keeps is carried out by the delivery itself, and says how.
func TestPlanKeeps(t *testing.T) {
	x, _ := expander(t, &planner{plan: plan().File("A", "$x").Note("why")})
	out, err := x.Plan(t.Context(), "p", entry(""), 1)
	if err != nil || out.Keep.Folder != "A" || !out.Keep.Create || len(out.Keep.Flags) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	e := out.Events
	if len(e) != 1 || e[0].Type != trace.Plugin || e[0].Reason != "why" || e[0].To != alice.String() || e[0].Family != queue.ID(5).String() {
		t.Errorf("events %+v", e)
	}
}

// What is kept or sent is another version of the same message, and nobody plans for it again.
func TestPlanVersions(t *testing.T) {
	x, dir := expander(t, &planner{plan: plan().Redirect(mail.MustPath("a@y.test")).Keep("A").WithHeader(mail.NewHeader([]byte("Subject: new\r\n\r\n"))), body: strings.Repeat("ä", 1000) + "\r\n"})
	e := entry("")
	out, err := x.Plan(t.Context(), "p", e, 1)
	if err != nil || len(out.Add) != 2 {
		t.Fatalf("%+v, %v", out, err)
	}
	kept, sent := out.Add[0].Entry, out.Add[1].Entry
	if kept.Family != e.Family || kept.ID == e.ID || kept.Header.Get("Subject") != "new" || kept.Body.Size != 2002 || kept.Envelope.BodyType != mail.Body8BitMIME || kept.Envelope.EnvelopeID != "e" {
		t.Errorf("kept %+v", kept)
	}
	if sent.Header.Get("Subject") != "x" || sent.Header.Get("X-Sieve-Redirected-From") != alice.String() || sent.Envelope.Origin != mail.Redirected || len(sent.Run.Done) != 1 || sent.Keep != nil {
		t.Errorf("sent %+v", sent)
	}
	if e.Header.Get("Subject") != "x" || len(e.Envelope.Recipients) != 2 {
		t.Error("the message itself was changed")
	}
	files := func() int {
		n := 0
		filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				n++
			}
			return err
		})
		return n
	}
	if files() != 1 {
		t.Errorf("%d files", files())
	}
	out.End(false)
	if files() != 0 {
		t.Errorf("%d files are left of a plan that was not carried out", files())
	}
}

// What is of its own has nothing of the sender's.
func TestPlanOwn(t *testing.T) {
	x, _ := expander(t, &planner{plan: own(plan().Discard("why").Keep("Sent")), body: "away\r\n"})
	out, err := x.Plan(t.Context(), "p", entry(""), 1)
	if err != nil || len(out.Add) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	env := out.Add[0].Entry.Envelope
	if !env.ReversePath.IsZero() || env.EnvelopeID != "" || env.Return != 0 || env.Origin != mail.Copied || env.Recipients[0].Notify != mail.NotifyNever {
		t.Errorf("envelope %+v", env)
	}
}

// A sender is told of a reject if he is known; else somebody else might be (RFC 5429 §2.2.1).
func TestPlanRejects(t *testing.T) {
	no := mail.Permanent(550, 7, 1, "no")
	for name, tt := range map[string]struct {
		class mail.Class
		notes map[string]string
		known bool
	}{
		"a stranger":      {mail.Stranger, nil, false},
		"who logged in":   {mail.Authenticated, nil, true},
		"of our network":  {mail.Relay, nil, true},
		"vouched for":     {mail.Stranger, map[string]string{"mailauth/authenticated": "spf"}, true},
		"not vouched for": {mail.Stranger, map[string]string{"mailauth/authenticated": ""}, false},
		"another note":    {mail.Stranger, map[string]string{"mailauth/unauthenticated": "x"}, false},
	} {
		x, _ := expander(t, &planner{plan: plan().Reject(no)})
		e := entry("")
		e.Envelope.Client.Class, e.Run.Notes = tt.class, tt.notes
		out, err := x.Plan(t.Context(), "p", e, 1)
		if err != nil || (out.Record.State == queue.Failed) != tt.known || !tt.known && out.Record.State != queue.Discarded || tt.known && out.Record.Status.Code != 550 {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}

// L-11: what he has redirected before, or what was on its way too long, stays.
func TestL11PlanLoops(t *testing.T) {
	hop := "Received: from a.test by b.test; Sun, 22 Nov 2026 12:00:00 +0000\r\n"
	for header, kept := range map[string]bool{
		"": false, "X-Sieve-Redirected-From: alice@x.test\r\n": true, "X-Sieve-Redirected-From: bob@x.test\r\n": false,
		strings.Repeat(hop, 2): false, strings.Repeat(hop, 3): true,
	} {
		x, _ := expander(t, &planner{plan: plan().Redirect(mail.MustPath("a@y.test"))})
		out, err := x.Plan(t.Context(), "p", entry(header), 1)
		if err != nil || (len(out.Add) == 0) != kept {
			t.Errorf("%q: %s, %v", header, added(out), err)
		}
	}
}

// What is remembered is the planner's and the recipient's, however his address is written.
func TestPlanRemembers(t *testing.T) {
	x, _ := expander(t, &planner{plan: plan().AndRemember("k", time.Hour)})
	out, err := x.Plan(t.Context(), "p", entry(""), 1)
	if err != nil || len(out.Remember) != 1 || out.Remember[0].Key != MarkKey("p", mail.MustPath("alice@x.test"), "k") || !out.Remember[0].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v, %v", out, err)
	}
	seen := map[string]bool{}
	for _, k := range []string{MarkKey("p", alice, "k"), MarkKey("q", alice, "k"), MarkKey("p", mail.MustPath("bob@x.test"), "k"), MarkKey("p", alice, "l")} {
		if seen[k] {
			t.Errorf("%q is not one thing", k)
		}
		seen[k] = true
	}
}

// To a null reverse-path there is no reply (RFC 3834 §2).
func TestPlanAnswersNoBounce(t *testing.T) {
	x, _ := expander(t, &planner{plan: plan().Vacation(mail.NewHeader([]byte("Subject: away\r\n\r\n")), nil)})
	e := entry("")
	e.Envelope.ReversePath = mail.Path{}
	if out, err := x.Plan(t.Context(), "p", e, 1); err != nil || len(out.Add) != 0 || out.Record.State != 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

// What cannot be carried out now leaves nothing behind, and is tried again.
func TestPlanFails(t *testing.T) {
	down := errors.New("down")
	for name, p := range map[string]*planner{
		"no answer":    {plan: plan().Keep("A"), body: strings.Repeat("x", 2000), err: down},
		"no directory": {plan: plan().Redirect(mail.MustPath("broken@x.test")).Keep("A"), body: strings.Repeat("x", 2000)},
	} {
		x, dir := expander(t, p)
		if out, err := x.Plan(t.Context(), "p", entry(""), 1); err == nil {
			t.Errorf("%s: %+v", name, out)
		}
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				t.Errorf("%s: %s is left", name, path)
			}
			return err
		})
	}
	x, _ := expander(t, &planner{plan: plan()})
	if _, err := x.Plan(t.Context(), "other", entry(""), 1); err == nil {
		t.Error("there is no such planner")
	}
}
