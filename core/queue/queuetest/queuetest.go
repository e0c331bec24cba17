// Package queuetest is the conformance suite of [queue.Store]: what every implementation
// must do, whatever it keeps its entries in.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Open prepares an empty queue and returns a function that opens it, and opens it again
// after Close. The store must take all its times from now.
type Open func(t *testing.T, now func() time.Time) func() (queue.Store, error)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		f    func(*suite)
	}{
		{"RoundTrip", testRoundTrip}, {"Durable", testDurable}, {"Atomic", testAtomic}, {"Gone", testGone},
		{"FreshAtOnce", testFreshAtOnce}, {"Retry", testRetry}, {"AfterRestart", testAfterRestart},
		{"OneLeasePerDestination", testOneLease}, {"Fairness", testFairness}, {"Room", testRoom}, {"Classes", testClasses}, {"ClassStays", testClassStays},
		{"LeaseExpires", testLeaseExpires}, {"Extend", testExtend}, {"Release", testRelease},
		{"HeldAndParked", testHeldAndParked}, {"Idle", testIdle}, {"Family", testFamily}, {"Marks", testMarks}, {"Scan", testScan},
		{"Changed", testChanged}, {"NextDue", testNextDue}, {"Replaced", testReplaced},
		{"Parallel", testParallel}, {"Cancelled", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, time: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}
			s.open = open(t, s.now)
			s.reopen()
			defer func() { s.must(s.Close()) }()
			c.f(s)
		})
	}
}

type suite struct {
	*testing.T
	queue.Store
	open func() (queue.Store, error)
	ids  queue.IDs
	mu   sync.Mutex
	time time.Time
}

func (s *suite) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

func (s *suite) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = s.time.Add(d)
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) reopen() {
	s.Helper()
	if s.Store != nil {
		s.must(s.Close())
	}
	st, err := s.open()
	s.must(err)
	s.Store = st
}

// entry makes an entry for the recipients, with fresh records.
func (s *suite) entry(to ...string) queue.Add {
	id := s.ids.New(s.now())
	e := &queue.Entry{ID: id, Family: id, Received: s.now(), Header: mail.NewHeader([]byte("Subject: test\r\n\r\n")), Body: mail.InlineBody([]byte("body of " + id.String() + "\r\n"))}
	e.Envelope = mail.Envelope{ID: id.String(), Origin: mail.Incoming, ReversePath: mail.MustPath("sender@example.org")}
	a := queue.Add{Entry: e}
	for _, r := range to {
		p := mail.MustPath(r)
		e.Envelope.Recipients = append(e.Envelope.Recipients, mail.Recipient{Path: p})
		a.Records = append(a.Records, queue.Record{State: queue.Pending, Destination: p.Domain.String(), Attempts: 1, Next: s.now().Add(5 * time.Minute)})
	}
	return a
}

func (s *suite) add(to ...string) queue.ID {
	s.Helper()
	a := s.entry(to...)
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
	return a.Entry.ID
}

func (s *suite) claim(max int, room func(string) int) []queue.Lease {
	s.Helper()
	c := queue.Claim{Now: s.now(), Max: max, Owner: "test"}
	if room != nil {
		c.Room = func(_ queue.Class, destination string) int { return room(destination) }
	}
	leases, _, err := s.Claim(s.Context(), c)
	s.must(err)
	return leases
}

// result changes the records of a lease and commits them.
func (s *suite) result(l queue.Lease, change func(r *queue.Record)) error {
	var b queue.Batch
	for i, n := range l.Recipients {
		rec := l.Records[i]
		change(&rec)
		b.Results = append(b.Results, queue.Result{ID: l.Entry.ID, Recipient: n, Record: rec})
	}
	return s.Commit(s.Context(), b)
}

func to(state queue.State) func(*queue.Record) {
	return func(r *queue.Record) { r.State = state }
}

// Full is an entry with every field set, and records for it; tests compare what comes back.
func Full(id queue.ID, now time.Time) queue.Add {
	e := &queue.Entry{
		ID: id, Family: id - 1, Received: now, Class: queue.Journal,
		Header: mail.NewHeader([]byte("Subject: =?utf-8?q?full?=\r\nX: y\r\n\tz\r\n\r\n")),
		Body:   mail.InlineBody([]byte("8bit \xff\x00 body\r\n")),
		Run:    queue.Run{Complete: true, Done: []string{"spam", "dkim"}, Scores: map[string]float64{"spam/total": -1.5, "spam/b": 2}, Notes: map[string]string{"spam/why": "because\nso"}},
		Keep:   &queue.Keep{Folder: "Entwürfe/x", Flags: []string{`\\Seen`, "$Later"}},
		Envelope: mail.Envelope{
			ID: id.String(), Origin: mail.Submitted, ReversePath: mail.MustPath(`"a b"@example.org`), BodyType: mail.Body8BitMIME,
			UTF8: true, RequireTLS: true, Return: mail.ReturnHeaders, EnvelopeID: "env+id",
			Recipients: []mail.Recipient{
				{Path: mail.MustPath("jürgen@bücher.example"), Original: mail.MustPath("alias@example.org"), Notify: mail.NotifySuccess | mail.NotifyDelay, ORCPT: "rfc822;alias@example.org"},
				{Path: mail.MustPath("x@[192.0.2.1]")},
			},
			Client: mail.Client{Addr: netip.MustParseAddr("fe80::1%eth0"), Port: 65535, Helo: "helo", Host: "host", User: "user", Protocol: "ESMTPSA", TLS: "TLS1.3 X", Listener: "mx", Class: mail.Authenticated,
				Mechanism: "SCRAM-SHA-256", PTR: "ptr", Connections: 300},
		},
	}
	return queue.Add{Entry: e, Records: []queue.Record{
		{State: queue.Pending, Destination: "bücher", Attempts: 7, Next: now.Add(time.Hour), Expires: now.Add(2 * time.Hour), Status: mail.Temporary(451, 4, 1, "later").WithRemote("mx.example"), Reason: "why", Warned: true},
		{State: queue.Held, Destination: "", Reason: "held"},
	}}
}

func testRoundTrip(s *suite) {
	a := Full(s.ids.New(s.now()), s.now())
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
	for _, when := range []string{"fresh", "reopened"} {
		e, recs, err := s.Get(s.Context(), a.Entry.ID)
		s.must(err)
		if !reflect.DeepEqual(e, a.Entry) {
			s.Errorf("%s: entry\n%+v\nis not\n%+v", when, e, a.Entry)
		}
		if !reflect.DeepEqual(recs, a.Records) {
			s.Errorf("%s: records\n%+v\nare not\n%+v", when, recs, a.Records)
		}
		s.reopen()
	}
}

func testDurable(s *suite) {
	var ids []queue.ID
	for i := range 30 {
		ids = append(ids, s.add(fmt.Sprintf("u@d%d.example", i%4), "v@other.example"))
	}
	for i, l := range s.claim(20, nil) {
		s.must(s.result(l, to([]queue.State{queue.Delivered, queue.Held, queue.Failed}[i%3])))
	}
	want := make(map[queue.ID][]queue.Record)
	for _, id := range ids {
		if _, recs, err := s.Get(s.Context(), id); err == nil {
			want[id] = recs
		} else if !errors.Is(err, queue.ErrGone) {
			s.Fatal(err)
		}
	}
	s.reopen()
	for _, id := range ids {
		_, recs, err := s.Get(s.Context(), id)
		if errors.Is(err, queue.ErrGone) {
			err = nil
		}
		s.must(err)
		if !reflect.DeepEqual(recs, want[id]) {
			s.Errorf("%s:\n%+v\nis not\n%+v", id, recs, want[id])
		}
	}
}

func testAtomic(s *suite) {
	old := s.add("a@example.com")
	a := s.entry("b@example.com")
	bad := queue.Batch{
		Add:      []queue.Add{a},
		Results:  []queue.Result{{ID: old, Record: queue.Record{State: queue.Held}}, {ID: old, Recipient: 1, Record: queue.Record{State: queue.Held}}},
		Remember: []queue.Mark{{Key: "k", Until: s.now().Add(time.Hour)}},
	}
	if err := s.Commit(s.Context(), bad); !errors.Is(err, queue.ErrGone) {
		s.Fatalf("unknown recipient: %v", err)
	}
	for range 2 {
		if _, _, err := s.Get(s.Context(), a.Entry.ID); !errors.Is(err, queue.ErrGone) {
			s.Errorf("entry of a failed batch: %v", err)
		}
		if _, recs, err := s.Get(s.Context(), old); err != nil || recs[0].State != queue.Pending {
			s.Errorf("result of a failed batch: %v %v", recs, err)
		}
		if ok, err := s.Remembered(s.Context(), "k", s.now()); ok || err != nil {
			s.Errorf("mark of a failed batch: %v %v", ok, err)
		}
		s.reopen()
	}
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}})) // its id is free
	if err := s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}); err == nil {
		s.Error("an id was used twice")
	}
	a.Records = nil
	if err := s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}); err == nil {
		s.Error("an entry without records was accepted")
	}
	s.must(s.Commit(s.Context(), queue.Batch{}))
}

func testGone(s *suite) {
	id := s.add("a@example.com", "b@example.com")
	res := func(n int, st queue.State) error {
		return s.Commit(s.Context(), queue.Batch{Results: []queue.Result{{ID: id, Recipient: n, Record: queue.Record{State: st}}}})
	}
	for _, n := range []int{-1, 2, 1 << 40} {
		if err := res(n, queue.Held); !errors.Is(err, queue.ErrGone) {
			s.Errorf("recipient %d: %v", n, err)
		}
	}
	s.must(res(0, queue.Delivered))
	if err := res(0, queue.Pending); !errors.Is(err, queue.ErrGone) {
		s.Errorf("final recipient: %v", err)
	}
	if _, recs, err := s.Get(s.Context(), id); err != nil || recs[0].State != queue.Delivered {
		s.Errorf("half done: %v %v", recs, err)
	}
	s.must(res(1, queue.Failed))
	for range 2 {
		if _, _, err := s.Get(s.Context(), id); !errors.Is(err, queue.ErrGone) {
			s.Errorf("done entry: %v", err)
		}
		if err := res(1, queue.Pending); !errors.Is(err, queue.ErrGone) {
			s.Errorf("done entry: %v", err)
		}
		s.reopen()
	}
	if len(s.claim(10, nil)) != 0 {
		s.Error("done entry was claimed")
	}
}

func testMarks(s *suite) {
	until := s.now().Add(time.Hour)
	s.must(s.Commit(s.Context(), queue.Batch{Remember: []queue.Mark{{Key: "a", Until: until}, {Key: "b", Until: until.Add(time.Hour)}}}))
	check := func(key string, at time.Time, want bool) {
		s.Helper()
		if ok, err := s.Remembered(s.Context(), key, at); ok != want || err != nil {
			s.Errorf("mark %q at %s: %t %v", key, at, ok, err)
		}
	}
	for range 2 {
		check("a", s.now(), true)
		check("a", until.Add(-time.Nanosecond), true)
		check("a", until, false)
		check("b", until, true)
		check("c", s.now(), false)
		s.reopen()
	}
	s.advance(90 * time.Minute)
	s.reopen()
	check("a", s.now(), false)
	check("b", s.now(), true)
}

func testScan(s *suite) {
	var want []queue.ID
	for i := range 300 {
		s.advance(time.Second)
		want = append(want, s.add(fmt.Sprintf("u@d%d.example", i%7), "v@example.com"))
	}
	leased := make(map[queue.ID]bool)
	for _, l := range s.claim(3, func(d string) int {
		if d == "example.com" {
			return 0
		}
		return 9
	}) {
		leased[l.Entry.ID] = true
	}
	s.must(s.Commit(s.Context(), queue.Batch{Results: []queue.Result{{ID: want[5], Recipient: 1, Record: queue.Record{State: queue.Delivered}}}}))
	var got []queue.ID
	s.must(s.Scan(s.Context(), func(i queue.Item) bool {
		if i.Recipient == 0 {
			got = append(got, i.ID)
		}
		if i.ID == want[5] && i.Recipient == 1 {
			s.Error("a final recipient was shown")
		}
		if i.Leased != (i.Recipient == 0 && leased[i.ID]) || i.State != queue.Pending || i.Destination == "" {
			s.Errorf("%+v", i)
		}
		return true
	}))
	if !slices.Equal(got, want) {
		s.Errorf("%d entries, want %d, oldest first", len(got), len(want))
	}
	n := 0
	s.must(s.Scan(s.Context(), func(queue.Item) bool { n++; return n < 7 }))
	if n != 7 {
		s.Errorf("%d items after a stop at 7", n)
	}
}

func testChanged(s *suite) {
	drain := func() {
		select {
		case <-s.Changed():
		default:
		}
	}
	wait := func(what string) {
		s.Helper()
		select {
		case <-s.Changed():
		case <-time.After(10 * time.Second):
			s.Fatalf("no signal after %s", what)
		}
	}
	drain()
	id := s.add("a@example.com")
	wait("add")
	l := s.claim(1, nil)
	s.Release(s.Context(), l...)
	wait("release")
	drain()
	s.must(s.Commit(s.Context(), queue.Batch{Results: []queue.Result{{ID: id, Record: queue.Record{State: queue.Pending, Destination: "x", Next: s.now()}}}}))
	wait("result")
}

func testNextDue(s *suite) {
	next := func() time.Time {
		s.Helper()
		_, next, err := s.Claim(s.Context(), queue.Claim{Now: s.now(), Max: 10})
		s.must(err)
		return next
	}
	if n := next(); !n.IsZero() {
		s.Errorf("empty queue: %s", n)
	}
	s.add("a@example.com")
	l := s.claim(1, nil)[0]
	if n := next(); n.After(l.Until.Add(time.Second)) || n.Before(l.Until.Add(-time.Second)) {
		s.Errorf("%s is not the end of the lease, %s", n, l.Until)
	}
	due := s.now().Add(7 * time.Minute)
	s.must(s.result(l, func(r *queue.Record) { r.Next = due }))
	if n := next(); n.Sub(due).Abs() > time.Second {
		s.Errorf("%s is not %s", n, due)
	}
}

func testReplaced(s *suite) {
	s.add("a@example.com")
	l := s.claim(1, nil)[0]
	a, b := s.entry("b@example.net"), s.entry("c@example.net")
	rec := l.Records[0]
	rec.State = queue.Replaced
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a, b}, Results: []queue.Result{{ID: l.Entry.ID, Record: rec}}}))
	s.reopen()
	if l := s.claim(10, nil); len(l) != 2 || l[0].Destination != "example.net" {
		s.Errorf("%+v", l)
	}
}

// testParallel has several committers and claimers at work: everything is delivered once.
func testParallel(s *suite) {
	const workers, each = 8, 25
	var adders, takers sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[queue.ID]int)
	stop := make(chan struct{})
	for w := range workers {
		adders.Go(func() {
			for i := range each {
				a := s.entry(fmt.Sprintf("u%d@d%d.example", i, w%3))
				if err := s.Commit(context.Background(), queue.Batch{Add: []queue.Add{a}}); err != nil {
					s.Error(err)
				}
			}
		})
		takers.Go(func() {
			for done := false; !done; {
				select {
				case <-stop:
					done = true // one last look
				default:
				}
				leases, _, err := s.Claim(context.Background(), queue.Claim{Now: s.now(), Max: 3})
				if err != nil {
					s.Error(err)
				}
				for _, l := range leases {
					done = false
					mu.Lock()
					seen[l.Entry.ID]++
					mu.Unlock()
					if err := s.result(l, to(queue.Delivered)); err != nil {
						s.Error(err)
					}
				}
			}
		})
	}
	adders.Wait()
	close(stop)
	takers.Wait()
	if len(seen) != workers*each {
		s.Errorf("%d of %d delivered", len(seen), workers*each)
	}
	for id, n := range seen {
		if n != 1 {
			s.Errorf("%s delivered %d times", id, n)
		}
	}
}

func testCancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	a := s.entry("a@example.com")
	err := s.Commit(ctx, queue.Batch{Add: []queue.Add{a}})
	_, _, got := s.Get(s.Context(), a.Entry.ID)
	if (err == nil) != (got == nil) {
		s.Errorf("commit says %v, get says %v", err, got)
	}
}
