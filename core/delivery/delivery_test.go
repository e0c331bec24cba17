package delivery

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/local"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// clock is a clock that tests move.
type clock struct {
	mu      sync.Mutex
	elapsed time.Duration
}

var epoch = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// Now is all that the store gets: with a second reading of the elapsed time, the clock could be
// moved between the two, and an attempt be due again at once.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return epoch.Add(c.elapsed)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.elapsed += d
	c.mu.Unlock()
}

// next is a next hop: it answers what the test says, and reports every attempt.
type next struct {
	mu       sync.Mutex
	answer   func(to mail.Path) mail.Status
	attempts chan attempt
}

type attempt struct {
	from   mail.Path
	to     []mail.Path
	header string
	body   string
}

func (n *next) Attempt(_ context.Context, job *smtpclient.Job) []smtpclient.Result {
	n.mu.Lock()
	answer := n.answer
	n.mu.Unlock()
	a := attempt{from: job.Envelope.ReversePath, header: string(job.Header.Block())}
	if r, err := job.Body.Open(); err == nil {
		text, _ := io.ReadAll(r)
		a.body = string(text)
		r.Close()
	}
	results := make([]smtpclient.Result, len(job.Recipients))
	for i, k := range job.Recipients {
		a.to = append(a.to, job.Envelope.Recipients[k].Path)
		results[i].Status = answer(job.Envelope.Recipients[k].Path)
	}
	n.attempts <- a
	return results
}

func (n *next) say(f func(to mail.Path) mail.Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = f
}

// events is a Recorder that lets tests wait.
type events chan trace.Event

func (e events) Record(ev trace.Event) { e <- ev }

func (e events) wait(t *testing.T, typ trace.Type) trace.Event {
	t.Helper()
	for {
		select {
		case ev := <-e:
			if ev.Type == typ {
				return ev
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no event %q", typ)
		}
	}
}

// rig is a delivery over a real store with a next hop that tests play.
type rig struct {
	t     *testing.T
	clock *clock
	store *local.Store
	in    *intake.Intake
	d     *Delivery
	next  *next
	ev    events
	steps []pipeline.Step
}

func lifetime(c queue.Class) time.Duration {
	if c == queue.Journal {
		return 30 * 24 * time.Hour
	}
	return 5 * 24 * time.Hour
}

func newRig(t *testing.T, steps ...pipeline.Step) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{}, next: &next{attempts: make(chan attempt, 100)}, ev: make(events, 1000), steps: steps}
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	sp, err := spool.Open(spool.Options{Dir: dir + "/content"})
	if err != nil {
		t.Fatal(err)
	}
	backoff := queue.Backoff{First: 5 * time.Minute, Max: time.Hour, Factor: 2}
	r.store, err = local.Open(local.Options{Dir: dir + "/queue", Content: sp, Clock: r.clock.Now, Backoff: backoff, Lease: 1e4 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	toRoute := func(to mail.Path) (route.Route, error) {
		return route.Route{Key: "smtp:" + to.Domain.String(), Transport: route.SMTP, Hops: []route.Hop{{Scheme: route.SchemeMX, Address: to.Domain.String()}}}, nil
	}
	r.in = intake.New(intake.Options{Hostname: "mx.test", Postmaster: mail.MustPath("postmaster@mx.test"), IDs: &queue.IDs{}, Spool: sp, Store: r.store, Backoff: backoff,
		Trace: r.ev, Log: log, Clock: r.clock.Now}, intake.Rules{HeaderSize: 1 << 20, Hops: 100,
		Pipeline:    pipeline.New(pipeline.Options{Steps: steps, Trace: r.ev, Clock: r.clock.Now}),
		Expand:      func(_ context.Context, p mail.Path) ([]mail.Path, error) { return []mail.Path{p}, nil },
		Destination: func(p mail.Path) string { x, _ := toRoute(p); return x.Key }})
	r.d = New(Options{Store: r.store, Intake: r.in, SMTP: r.next, Trace: r.ev, Log: log, Clock: r.clock.Now, Owner: "test", Lease: time.Hour},
		Rules{Route: toRoute, Total: 10, PerNextHop: 5, Lifetime: lifetime, DelayWarning: 4 * time.Hour})
	r.next.say(func(mail.Path) mail.Status { return mail.OK(250, 0, 0, "ok") })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.d.Run(ctx, ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		r.store.Close()
	})
	return r
}

func (r *rig) send(from string, to ...string) string {
	r.t.Helper()
	env := &mail.Envelope{Origin: mail.Submitted, ReversePath: mail.MustPath(from), Client: mail.Client{Class: mail.Relay, Protocol: "ESMTP", Helo: "c.test"}}
	for _, p := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Path: mail.MustPath(p)})
	}
	receipt, err := r.in.Receive(context.Background(), env, pipeline.SMTPClient, strings.NewReader("Subject: s\r\n\r\nbody\r\n"))
	if err != nil || !receipt.Reply.Success() {
		r.t.Fatalf("%v %v", receipt.Reply, err)
	}
	return receipt.ID
}

func (r *rig) attempt() attempt {
	r.t.Helper()
	select {
	case a := <-r.next.attempts:
		return a
	case <-time.After(30 * time.Second):
		r.t.Fatal("no attempt")
		return attempt{}
	}
}

// later moves the clock, once every attempt has its outcome on record, and lets the loop
// look at it.
func (r *rig) later(d time.Duration) {
	for slices.ContainsFunc(r.items(), func(i queue.Item) bool { return i.Leased }) {
	}
	r.clock.advance(d)
	r.d.wake()
}

// items is what is queued.
func (r *rig) items() []queue.Item {
	r.t.Helper()
	var out []queue.Item
	if err := r.store.Scan(context.Background(), func(i queue.Item) bool { out = append(out, i); return true }); err != nil {
		r.t.Fatal(err)
	}
	return out
}

func TestDelivers(t *testing.T) {
	r := newRig(t)
	r.send("a@x.test", "b@y.test", "c@y.test", "d@z.test")
	one, two := r.attempt(), r.attempt()
	if len(one.to)+len(two.to) != 3 || one.body != "body\r\n" || !strings.HasPrefix(one.header, "Received: from c.test") {
		t.Errorf("%+v\n%+v", one, two)
	}
	for range 3 {
		r.ev.wait(t, trace.Delivered)
	}
}

func TestRetriesThenGivesUp(t *testing.T) {
	r := newRig(t)
	r.next.say(func(mail.Path) mail.Status { return mail.Temporary(450, 2, 0, "later") })
	r.send("a@x.test", "b@y.test")
	r.attempt()
	if e := r.ev.wait(t, trace.Deferred); e.Attempt != 1 || e.Status.Text != "later" {
		t.Errorf("%+v", e)
	}
	r.later(time.Hour)
	r.attempt()
	if e := r.ev.wait(t, trace.Deferred); e.Attempt != 2 {
		t.Errorf("%+v", e)
	}
	// One warning after DelayWarning, and no second one.
	r.later(4 * time.Hour)
	r.attempt()
	if e := r.ev.wait(t, trace.Reported); !strings.HasPrefix(e.Reason, "delayed") || e.To != "a@x.test" {
		t.Errorf("%+v", e)
	}
	warning := r.attempt() // the report itself goes out, with the null reverse-path
	if !warning.from.IsZero() || !strings.Contains(warning.body, "Action: delayed") {
		t.Errorf("%+v", warning)
	}
	r.ev.wait(t, trace.Deferred)
	r.next.say(func(to mail.Path) mail.Status {
		if to.Local == "a" {
			return mail.OK(250, 0, 0, "ok")
		}
		return mail.Temporary(450, 2, 0, "later")
	})
	r.later(5 * 24 * time.Hour)
	e := r.ev.wait(t, trace.Expired)
	if e.To != "b@y.test" || e.Status.EnhancedString() != "5.4.7" { // L-14
		t.Errorf("%+v", e)
	}
	report := r.ev.wait(t, trace.Reported)
	if report.To != "a@x.test" {
		t.Errorf("%+v", report)
	}
}

func TestL06FailureIsReportedWithItsResult(t *testing.T) {
	r := newRig(t)
	r.next.say(func(to mail.Path) mail.Status {
		if to.Local == "a" {
			return mail.OK(250, 0, 0, "ok")
		}
		return mail.Permanent(550, 1, 1, "no such user").WithRemote("mx.y.test")
	})
	r.send("a@x.test", "b@y.test", "c@y.test")
	r.attempt()
	r.ev.wait(t, trace.Reported)
	report := r.attempt()
	if !report.from.IsZero() || len(report.to) != 1 || report.to[0] != mail.MustPath("a@x.test") {
		t.Fatalf("%+v", report)
	}
	if strings.Count(report.body, "Final-Recipient:") != 2 || !strings.Contains(report.body, "550 5.1.1 no such user") { // L-07
		t.Errorf("%s", report.body)
	}
}

func TestL04NullReversePathGetsNoReport(t *testing.T) {
	r := newRig(t)
	r.next.say(func(mail.Path) mail.Status { return mail.Permanent(550, 1, 1, "no") })
	r.send("", "b@y.test")
	r.attempt()
	r.ev.wait(t, trace.Failed)
	r.send("", "c@y.test")
	if a := r.attempt(); a.to[0].Local != "c" {
		t.Errorf("a report was sent: %+v", a)
	}
}

type filter func(m *mail.Message) (*sdk.Verdict, error)

func (f filter) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) { return f(m) }

type down struct{}

func (down) Error() string  { return "down" }
func (down) Reason() string { return "down" }

func TestParkedMailGoesOnWhenThePluginIsBack(t *testing.T) {
	var mu sync.Mutex
	missing := true
	plugin := pipeline.Step{Name: "av", Origins: []mail.Origin{mail.Submitted}, OnFailure: pipeline.FailurePolicy{Default: pipeline.FailPark},
		Filter: filter(func(*mail.Message) (*sdk.Verdict, error) {
			mu.Lock()
			defer mu.Unlock()
			if missing {
				return nil, down{}
			}
			return sdk.Continue().AddHeader("X-Scanned", "yes"), nil
		})}
	r := newRig(t, plugin)
	r.send("a@x.test", "b@y.test")
	r.ev.wait(t, trace.Waiting)
	r.d.Unpark()
	r.ev.wait(t, trace.Waiting) // tried, still down
	for i := r.items(); i[0].State != queue.Parked || i[0].Leased; i = r.items() {
	}
	mu.Lock()
	missing = false
	mu.Unlock()
	r.d.Unpark()
	if a := r.attempt(); !strings.HasPrefix(a.header, "X-Scanned: yes") {
		t.Errorf("%+v", a)
	}
	r.ev.wait(t, trace.Delivered)
}

func TestDeletedDuringItsAttempt(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.next.say(func(mail.Path) mail.Status { <-release; return mail.Temporary(450, 2, 0, "later") })
	r.send("a@x.test", "b@y.test")
	var items []queue.Item
	for len(items) == 0 || !items[0].Leased {
		items = r.items()
	}
	rec := items[0].Record
	rec.State = queue.Deleted
	if err := r.store.Commit(context.Background(), queue.Batch{Results: []queue.Result{{ID: items[0].ID, Record: rec}}}); err != nil {
		t.Fatal(err)
	}
	close(release)
	r.attempt()
	r.send("a@x.test", "c@y.test") // the loop goes on
	if a := r.attempt(); a.to[0].Local != "c" {
		t.Errorf("%+v", a)
	}
	r.ev.wait(t, trace.Deferred)
	for _, i := range r.items() {
		if i.ID == items[0].ID {
			t.Errorf("deleted mail is back: %+v", i)
		}
	}
}

// TestReportLeavesOutTheDeleted: who was deleted during the attempt is not reported on.
func TestReportLeavesOutTheDeleted(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.next.say(func(mail.Path) mail.Status { <-release; return mail.Permanent(550, 1, 1, "no") })
	r.send("a@x.test", "b@y.test", "c@y.test")
	var items []queue.Item
	for len(items) < 2 || !items[0].Leased {
		items = r.items()
	}
	rec := items[0].Record
	rec.State = queue.Deleted
	if err := r.store.Commit(context.Background(), queue.Batch{Results: []queue.Result{{ID: items[0].ID, Record: rec}}}); err != nil {
		t.Fatal(err)
	}
	close(release)
	r.attempt()
	if e := r.ev.wait(t, trace.Failed); e.To != "c@y.test" {
		t.Errorf("%+v", e)
	}
	if report := r.attempt(); strings.Contains(report.body, "b@y.test") || !strings.Contains(report.body, "c@y.test") {
		t.Errorf("%s", report.body)
	}
}

// TestN17SlowStart: after an outage a next hop gets one attempt at a time at first.
func TestN17SlowStart(t *testing.T) {
	d := destinations{m: make(map[lane]*destination)}
	now := epoch
	if got := d.room(lane{key: "h"}, 20, now); got != initialWindow {
		t.Errorf("at first %d", got)
	}
	for range 3 {
		d.begin(lane{key: "h"})
		d.end(lane{key: "h"}, false, 20, now)
		now = now.Add(time.Second)
	}
	if d.room(lane{key: "h"}, 20, now) != 0 || d.reopens(now) <= 0 {
		t.Error("an unreachable host is not left alone")
	}
	now = now.Add(d.reopens(now))
	if got := d.room(lane{key: "h"}, 20, now); got != 1 {
		t.Errorf("after the pause %d, want 1", got)
	}
	for i := range 30 {
		d.begin(lane{key: "h"})
		d.end(lane{key: "h"}, true, 20, now)
		if got := d.room(lane{key: "h"}, 20, now); got != min(i+2, 20) {
			t.Errorf("after %d successes %d", i+1, got)
		}
	}
	if d.room(lane{key: "other"}, 20, now) != initialWindow {
		t.Error("another host suffers")
	}
}

// TestDeadHopsAreForgotten: reports to forged senders lead to any number of hosts that do not
// answer.
func TestDeadHopsAreForgotten(t *testing.T) {
	d := destinations{m: make(map[lane]*destination)}
	now := epoch
	for n := range 20 * manyHops {
		key := lane{key: strconv.Itoa(n)}
		for range 2 {
			d.begin(key)
			d.end(key, false, 20, now)
		}
		now = now.Add(longestPause / manyHops)
	}
	if n := len(d.m); n > 3*manyHops {
		t.Errorf("%d next hops are remembered", n)
	}
	d.begin(lane{key: "busy"})
	now = now.Add(time.Hour)
	d.begin(lane{key: "last"})
	d.end(lane{key: "last"}, false, 20, now)
	if d.m[lane{key: "busy"}] == nil || d.m[lane{key: "busy"}].inFlight != 1 {
		t.Error("a next hop with an attempt under way is forgotten")
	}
	if n := len(d.m); n > 2 {
		t.Errorf("%d next hops are remembered after an hour", n)
	}
}

func TestUnreached(t *testing.T) {
	net := mail.Temporary(451, 4, 1, "no answer")
	for _, c := range []struct {
		statuses []mail.Status
		want     bool
	}{
		{[]mail.Status{net, net}, true},
		{[]mail.Status{mail.Temporary(421, 3, 2, "busy")}, true},
		{[]mail.Status{net, mail.Temporary(450, 7, 1, "greylisted")}, false},
		{[]mail.Status{mail.Permanent(550, 4, 4, "no route")}, false},
		{[]mail.Status{mail.OK(250, 0, 0, "")}, false},
		{nil, false},
	} {
		var results []result
		for _, s := range c.statuses {
			results = append(results, result{Result: smtpclient.Result{Status: s}})
		}
		if got := unreached(results); got != c.want {
			t.Errorf("%v: %t", c.statuses, got)
		}
	}
}

// TestReopen: who says that a next hop is there again need not wait for the end of its pause.
func TestReopen(t *testing.T) {
	d := destinations{m: map[lane]*destination{}}
	fail := func() {
		d.begin(lane{key: "smtp:a"})
		d.end(lane{key: "smtp:a"}, false, 20, epoch)
	}
	fail()
	fail()
	if n := d.room(lane{key: "smtp:a"}, 20, epoch); n != 0 {
		t.Fatalf("room for %d at a next hop that is left alone", n)
	}
	d.reopen([]string{"smtp:unknown", "smtp:a"})
	if n := d.room(lane{key: "smtp:a"}, 20, epoch); n != 1 {
		t.Errorf("room for %d after reopen, want one probe", n)
	}
	fail()
	if wait := d.reopens(epoch); wait != 2*firstPause {
		t.Errorf("the next pause is %v, want %v", wait, 2*firstPause)
	}
}
