package queuetest

import (
	"errors"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// testIdle changes recipients from outside, as an admin does: never while somebody attempts
// them, and never so that two begin.
func testIdle(s *suite) {
	a := s.entry("a@example.com")
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
	again := a.Records[0]
	again.Next = s.now()
	steer := func() error {
		return s.Commit(s.Context(), queue.Batch{Results: []queue.Result{{ID: a.Entry.ID, Record: again, Idle: true}}})
	}
	s.must(steer())
	l := s.claim(2, nil)
	if len(l) != 1 {
		s.Fatalf("%d leases", len(l))
	}
	if err := steer(); !errors.Is(err, queue.ErrBusy) {
		s.Errorf("changed while leased: %v", err)
	}
	if len(s.claim(1, nil)) != 0 {
		s.Fatal("leased twice")
	}
	s.must(s.result(l[0], func(r *queue.Record) { r.Next = s.now().Add(time.Hour) }))
	s.must(steer())
	if l = s.claim(1, nil); len(l) != 1 {
		s.Fatal("not due after the change")
	}
	s.must(s.result(l[0], to(queue.Delivered)))
	if err := steer(); !errors.Is(err, queue.ErrGone) {
		s.Errorf("changed after the end: %v", err)
	}
	s.idleRefused()
	s.idleRace()
}

// idleRefused checks that a batch which is refused leaves its recipients due.
func (s *suite) idleRefused() {
	a := s.entry("a@example.com")
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
	err := s.Commit(s.Context(), queue.Batch{Results: []queue.Result{
		{ID: a.Entry.ID, Record: queue.Record{State: queue.Held}, Idle: true},
		{ID: s.ids.New(s.now()), Record: queue.Record{State: queue.Held}, Idle: true},
	}})
	if !errors.Is(err, queue.ErrGone) {
		s.Fatalf("a batch with an unknown entry: %v", err)
	}
	l := s.claim(1, nil)
	if len(l) != 1 {
		s.Fatal("not due after a change that did not happen")
	}
	s.must(s.result(l[0], to(queue.Delivered)))
}

// idleRace claims at all moments of a change.
func (s *suite) idleRace() {
	for i := range 100 {
		a := s.entry("a@example.com")
		s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
		again := a.Records[0]
		again.Next = s.now()
		var steering sync.WaitGroup
		steering.Go(func() {
			s.Commit(s.Context(), queue.Batch{Results: []queue.Result{{ID: a.Entry.ID, Record: again, Idle: true}}})
		})
		time.Sleep(time.Duration(i) * 5 * time.Microsecond)
		leases := append(s.claim(1, nil), s.claim(1, nil)...)
		steering.Wait()
		leases = append(leases, s.claim(1, nil)...)
		if len(leases) != 1 {
			s.Fatalf("%d leases of one recipient", len(leases))
		}
		s.must(s.result(leases[0], to(queue.Delivered)))
	}
}

// testFamily finds every version of a message by the id of the first.
func testFamily(s *suite) {
	a := s.entry("a@example.com", "b@example.com")
	b := s.entry("c@example.com")
	b.Entry.Family = a.Entry.ID
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a, b}}))
	look := func() {
		s.Helper()
		n := 0
		s.must(s.Scan(s.Context(), func(i queue.Item) bool {
			if n++; i.Family != a.Entry.ID {
				s.Errorf("recipient %d of %s has family %s, want %s", i.Recipient, i.ID, i.Family, a.Entry.ID)
			}
			return true
		}))
		if n != 3 {
			s.Errorf("%d items, want 3", n)
		}
	}
	look()
	s.reopen()
	look()
	for _, l := range s.claim(9, nil) {
		s.must(s.result(l, to(queue.Held)))
	}
	look()
}
