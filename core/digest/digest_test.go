package digest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata" // zones for machines that have none

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/local"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// holder quarantines all that it sees.
type holder struct{}

func (holder) Filter(context.Context, *mail.Message) (*sdk.Verdict, error) {
	return sdk.Quarantine("looks odd"), nil
}

type untraced struct{}

func (untraced) Record(trace.Event) {}

// rig is a digest over a real queue and a real directory, with a clock that the test moves.
type rig struct {
	t     *testing.T
	dir   string
	time  atomic.Pointer[time.Time]
	rules Rules
	store *local.Store
	times *directory.Directory
	in    *intake.Intake
	d     *Digest
	fail  mail.Path // whose digest cannot be made
}

func (r *rig) Reply(ctx context.Context, to mail.Path, h mail.Header, body []byte, word, planner string) (queue.Add, trace.Event, error) {
	if to == r.fail && !to.IsZero() {
		return queue.Add{}, trace.Event{}, errors.New("directory is down")
	}
	return r.in.Reply(ctx, to, h, body, word, planner)
}

var ours = mail.MustDomain("x.test")

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), rules: Rules{Daily: true, Hour: 7,
		Wants: func(_ context.Context, d mail.Domain) bool { return d == ours }}}
	r.at(1, 12)
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) clock() time.Time { return *r.time.Load() }

func (r *rig) open() {
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(r.dir, "content")})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.store, err = local.Open(local.Options{Dir: filepath.Join(r.dir, "queue"), Content: sp, Clock: r.clock}); err != nil {
		r.t.Fatal(err)
	}
	if r.times, err = directory.Open(directory.Options{Path: filepath.Join(r.dir, "directory.db"), Hostname: mail.MustDomain("mx.test"), Postmaster: mail.MustPath("postmaster@mx.test")}); err != nil {
		r.t.Fatal(err)
	}
	aliases := map[string][]mail.Path{"sales@x.test": {mail.MustPath("alice@x.test"), mail.MustPath("outside@y.test")}, "gone@x.test": {mail.MustPath("outside@y.test")}}
	r.in = intake.New(intake.Options{Hostname: "mx.test", Postmaster: mail.MustPath("postmaster@mx.test"), IDs: &queue.IDs{}, Spool: sp, Store: r.store,
		Backoff: queue.DefaultBackoff(), Trace: untraced{}, Log: slog.New(slog.DiscardHandler), Clock: r.clock}, intake.Rules{
		Pipeline:   pipeline.New(pipeline.Options{Steps: []pipeline.Step{{Name: "spam", Filter: holder{}, Origins: []mail.Origin{mail.Incoming, mail.Internal}}}, Trace: untraced{}, Clock: r.clock}),
		HeaderSize: 1 << 20, Hops: 100, Destination: func(p mail.Path) string { return p.Domain.String() },
		Expand: func(_ context.Context, p mail.Path) ([]mail.Path, error) {
			if to, ok := aliases[p.String()]; ok {
				return to, nil
			}
			return []mail.Path{p}, nil
		}})
	r.d = New(Options{Hostname: "mx.test", Postmaster: mail.MustPath("postmaster@mx.test"), Quarantine: r.queue(), Intake: r, Store: r.store, Times: r.times,
		Trace: untraced{}, Log: slog.New(slog.DiscardHandler), Clock: r.clock, Location: time.UTC}, r.rules)
}

func (r *rig) queue() *admin.Queue {
	return &admin.Queue{Store: r.store, Trace: untraced{}, Clock: r.clock}
}

func (r *rig) close() {
	r.store.Close()
	r.times.Close()
}

func (r *rig) restart() {
	r.close()
	r.open()
}

// hold puts a message into quarantine.
func (r *rig) hold(from, header string, to ...string) string {
	r.t.Helper()
	env := &mail.Envelope{Origin: mail.Incoming, Client: mail.Client{Protocol: "ESMTP", Helo: "c.test"}}
	if from != "" {
		env.ReversePath = mail.MustPath(from)
	}
	for _, p := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Path: mail.MustPath(p)})
	}
	receipt, err := r.in.Receive(r.t.Context(), env, pipeline.SMTPClient, strings.NewReader(header+"\r\n\r\nbody\r\n"))
	if err != nil || !receipt.Reply.Success() {
		r.t.Fatalf("%v %v", receipt.Reply, err)
	}
	return receipt.ID
}

// letter is a digest in the queue.
type letter struct {
	to, text string
	header   netmail.Header
	entry    *queue.Entry
}

// letters takes the digests out of the queue.
func (r *rig) letters() []letter {
	r.t.Helper()
	var out []letter
	var results []queue.Result
	err := r.store.Scan(r.t.Context(), func(i queue.Item) bool {
		e, _, err := r.store.Get(r.t.Context(), i.ID)
		if err != nil {
			r.t.Fatal(err)
		}
		if e.Envelope.Origin != mail.Internal {
			return true
		}
		i.State = queue.Deleted
		results = append(results, queue.Result{ID: i.ID, Recipient: i.Recipient, Record: i.Record})
		body, _ := e.Body.Open()
		raw, _ := io.ReadAll(body)
		m, err := netmail.ReadMessage(strings.NewReader(string(e.Header.Block()) + string(raw)))
		if err != nil {
			r.t.Fatal(err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.Count(string(raw), "\n") != strings.Count(string(raw), "\r\n") || slices.ContainsFunc(raw, func(c byte) bool { return c >= 0x80 }) {
			r.t.Errorf("not as on the wire, or not ASCII: %q", raw)
		}
		out = append(out, letter{e.Envelope.Recipients[0].Path.String(), string(text), m.Header, e})
		return true
	})
	if err == nil && len(results) > 0 {
		err = r.store.Commit(r.t.Context(), queue.Batch{Results: results})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b letter) int { return strings.Compare(a.to, b.to) })
	return out
}

func (r *rig) tick() []letter {
	r.t.Helper()
	if _, err := r.d.Tick(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return r.letters()
}

// at moves the clock to a time of a day in March 2030.
func (r *rig) at(day, hour int) {
	now := time.Date(2030, 3, day, hour, 0, 1, 0, time.UTC)
	r.time.Store(&now)
}

func addressed(ls []letter) string {
	var out []string
	for _, l := range ls {
		out = append(out, l.to)
	}
	return strings.Join(out, " ")
}

// Everybody gets one list of what was held since the last one, at the time of day that was
// set, over restarts and days on which the gateway did not run.
func TestDigestOnceADay(t *testing.T) {
	r := newRig(t)
	old := r.hold("spammer@a.test", "Subject: before digests were on", "alice@x.test")
	if got := r.tick(); len(got) != 0 {
		t.Errorf("at once: %s", addressed(got))
	}
	one := r.hold("spammer@a.test", "From: A <spammer@a.test>\r\nSubject: one", "alice@x.test", "bob@x.test", "stranger@y.test")
	r.at(2, 6)
	if got := r.tick(); len(got) != 0 {
		t.Errorf("too early: %s", addressed(got))
	}
	r.at(2, 7)
	got := r.tick()
	if addressed(got) != "alice@x.test bob@x.test" {
		t.Fatalf("told: %s", addressed(got))
	}
	for _, id := range []string{old, one} {
		if !strings.Contains(got[0].text, "ID:       "+id+"\r\n") {
			t.Errorf("%s is not in\n%s", id, got[0].text)
		}
	}
	if strings.Contains(got[1].text, old) || !strings.Contains(got[1].text, one) {
		t.Errorf("what is held for others, or not what is held for bob:\n%s", got[1].text)
	}
	two := r.hold("spammer@a.test", "Subject: two", "alice@x.test")
	for range 3 {
		if got := r.tick(); len(got) != 0 {
			t.Errorf("twice on a day: %s", addressed(got))
		}
		r.restart()
	}
	r.rules.Hour = 9 // a second time of day on the same day is none
	r.at(2, 10)
	r.restart()
	if got := r.tick(); len(got) != 0 {
		t.Errorf("after another time was set: %s", addressed(got))
	}
	r.at(5, 12)
	r.restart()
	got = r.tick()
	if addressed(got) != "alice@x.test" || strings.Contains(got[0].text, one) || !strings.Contains(got[0].text, two) {
		t.Fatalf("after three days without a gateway: %+v", got)
	}
	r.at(6, 12)
	if got := r.tick(); len(got) != 0 {
		t.Errorf("nothing new: %s", addressed(got))
	}
	r.rules.Daily = false
	r.hold("spammer@a.test", "Subject: three", "alice@x.test")
	r.at(7, 12)
	r.restart()
	if next, err := r.d.Tick(t.Context()); err != nil || !next.IsZero() || len(r.letters()) > 0 {
		t.Errorf("off: %v, %v", next, err)
	}
}

// When one digest cannot be made the others are not made twice.
func TestDigestIsMadeOnce(t *testing.T) {
	r := newRig(t)
	r.tick()
	r.hold("spammer@a.test", "Subject: one", "alice@x.test", "bob@x.test", "carol@x.test")
	r.at(2, 8)
	r.fail = mail.MustPath("bob@x.test")
	for range 2 {
		if _, err := r.d.Tick(t.Context()); err == nil {
			t.Error("no error")
		}
		r.restart()
	}
	r.fail = mail.Path{}
	if got := r.tick(); addressed(got) != "alice@x.test bob@x.test carol@x.test" {
		t.Errorf("told: %s", addressed(got))
	}
	if got := r.tick(); len(got) != 0 {
		t.Errorf("again: %s", addressed(got))
	}
}

// An alias is the one who has it, and an alias that leads away is itself; our own mail, and
// what an admin holds or has released, is not listed.
func TestDigestListsWhom(t *testing.T) {
	r := newRig(t)
	r.tick()
	r.hold("spammer@a.test", "Subject: for an alias", "sales@x.test", "alice@x.test")
	r.hold("spammer@a.test", "Subject: for an alias that leads away", "gone@x.test")
	r.hold("spammer@a.test", "Subject: for strangers", "somebody@y.test")
	released := r.hold("spammer@a.test", "Subject: released", "dave@x.test")
	if n, err := r.queue().ChangeQuarantined(t.Context(), admin.Release, []string{released}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := r.queue().Change(t.Context(), admin.Hold, admin.Selection{IDs: []string{released}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r.at(2, 8)
	if _, err := r.d.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The digests are held themselves: this pipeline holds all.
	leases, _, err := r.store.Claim(t.Context(), queue.Claim{Now: r.clock().Add(time.Hour), Max: 100, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, l := range leases {
		if l.Destination != intake.PipelineDestination {
			continue
		}
		told = append(told, l.Entry.Envelope.Recipients[0].Path.String())
		b, end := r.in.Resume(t.Context(), l.Entry, l.Recipients, l.Records)
		if err := r.store.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		end(true)
	}
	slices.Sort(told)
	// gone@x.test leads to a stranger, whose list of what is held for the alias it is.
	if strings.Join(told, " ") != "alice@x.test outside@y.test" {
		t.Errorf("told %q", told)
	}
	held := 0
	r.queue().Quarantine(t.Context(), admin.Search{}, func(h admin.Quarantined) bool {
		if h.Origin == mail.Internal.String() {
			held++
		}
		return true
	})
	if held != 2 {
		t.Fatalf("%d digests are held", held)
	}
	r.letters()
	r.at(3, 8)
	if got := r.tick(); len(got) != 0 {
		t.Errorf("a digest of digests: %s", addressed(got))
	}
}

// What strangers wrote cannot become markup, a link, a field or a line of its own.
func TestDigestIsHarmless(t *testing.T) {
	r := newRig(t)
	r.tick()
	subject := mime.BEncoding.Encode("utf-8", "Käse <script>alert(1)</script> https://evil.test/ \x1b[31m\u202eevil\r\nID: forged") + "\x07 tail"
	r.hold("spammer@a.test", "From: =?iso-8859-1?Q?J=FCrgen?= <j@b.test>\r\nSubject: "+subject, "alice@x.test")
	r.hold("", "Subject: "+strings.Repeat("long ", 10_000), "alice@x.test")
	r.hold("x@a.test", "X-No: subject", "alice@x.test")
	r.at(2, 8)
	got := r.tick()
	if len(got) != 1 {
		t.Fatalf("told: %s", addressed(got))
	}
	text, h, e := got[0].text, got[0].header, got[0].entry
	for _, want := range []string{"3 messages are held for alice@x.test", "From:     Jürgen ‹j@b.test›\r\n", "Sent by:  spammer@a.test\r\n",
		"Subject:  Käse ‹script›alert(1)‹/script› https[:]//evil.test/ [31mevil ID: forged tail\r\n", "Why:      plugin spam: looks odd\r\n", "Until:    2030-03-31\r\n", "Subject:  (none)\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, bad := range []string{"<", ">", "\x1b", "\u202e", "\x07", "://", "\nID: forged"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q in\n%s", bad, text)
		}
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len([]rune(line)) > 200 {
			t.Errorf("a line of %d characters", len(line))
		}
	}
	if h.Get("Auto-Submitted") != "auto-generated" || h.Get("Subject") != "3 messages are held for you" || h.Get("Message-ID") == "" || h.Get("Date") == "" ||
		!e.Envelope.ReversePath.IsZero() || e.Envelope.Origin != mail.Internal || e.Envelope.Recipients[0].Notify != mail.NotifyNever {
		t.Errorf("header %v, envelope %+v", h, e.Envelope)
	}
}

// However much is held, a digest stays a message that can be read.
func TestDigestIsBounded(t *testing.T) {
	for _, n := range []int{maxListed - 1, maxListed, maxListed + 1} {
		r := newRig(t)
		r.tick()
		for range n {
			r.hold("spammer@a.test", "Subject: one of many", "alice@x.test")
		}
		r.at(2, 8)
		got := r.tick()
		if len(got) != 1 || strings.Count(got[0].text, "ID: ") != min(n, maxListed) || strings.Contains(got[0].text, "And 1 more.") != (n > maxListed) {
			t.Errorf("%d held: %d listed in %d", n, strings.Count(got[0].text, "ID: "), len(got))
		}
	}
}

func TestAround(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err) // the zones are in the test, wherever it runs
	}
	r := &Rules{Hour: 2, Minute: 30}
	for now, want := range map[string][2]string{
		"2030-03-01T02:30:00+01:00": {"2030-03-01T02:30:00+01:00", "2030-03-02T02:30:00+01:00"},
		"2030-03-01T02:29:59+01:00": {"2030-02-28T02:30:00+01:00", "2030-03-01T02:30:00+01:00"},
		"2030-03-31T12:00:00+02:00": {"2030-03-31T03:30:00+02:00", "2030-04-01T02:30:00+02:00"}, // there is no 02:30
	} {
		at, _ := time.Parse(time.RFC3339, now)
		last, next := r.around(at.In(berlin))
		if last.Format(time.RFC3339) != want[0] || next.Format(time.RFC3339) != want[1] {
			t.Errorf("%s: %s, %s", now, last.Format(time.RFC3339), next.Format(time.RFC3339))
		}
	}
}
