package queuetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

func testFreshAtOnce(s *suite) {
	id := s.add("a@example.com")
	l := s.claim(10, nil)
	if len(l) != 1 || l[0].Entry.ID != id || l[0].Records[0].Attempts != 1 || l[0].Destination != "example.com" || !l[0].Until.After(s.now()) {
		s.Fatalf("%+v", l)
	}
	if len(s.claim(10, nil)) != 0 {
		s.Error("claimed twice")
	}
}

func testRetry(s *suite) {
	id := s.add("a@example.com")
	later := s.now().Add(10 * time.Minute)
	s.must(s.result(s.claim(1, nil)[0], func(r *queue.Record) { r.Next, r.Reason = later, "busy" }))
	if len(s.claim(1, nil)) != 0 {
		s.Fatal("claimed before its time")
	}
	s.advance(10*time.Minute - time.Second)
	if len(s.claim(1, nil)) != 0 {
		s.Fatal("claimed before its time")
	}
	s.advance(time.Second)
	l := s.claim(1, nil)
	if len(l) != 1 || l[0].Records[0].Attempts != 2 || l[0].Records[0].Reason != "busy" || !l[0].Records[0].Next.After(s.now()) {
		s.Fatalf("%+v", l)
	}
	s.reopen() // the attempt was written before it was made
	_, recs, err := s.Get(s.Context(), id)
	s.must(err)
	if recs[0].Attempts != 2 || !recs[0].Next.Equal(l[0].Records[0].Next) {
		s.Errorf("%+v", recs)
	}
	if len(s.claim(1, nil)) != 0 {
		s.Error("claimed before the back-off ended")
	}
}

func testAfterRestart(s *suite) {
	id := s.add("a@example.com")
	s.claim(1, nil) // its holder dies
	s.reopen()
	l := s.claim(1, nil)
	if len(l) != 1 || l[0].Entry.ID != id || l[0].Records[0].Attempts != 2 {
		s.Fatalf("%+v", l)
	}
}

func testOneLease(s *suite) {
	id := s.add("a@one.example", "b@two.example", "c@one.example", "d@one.example")
	l := s.claim(10, nil)
	if len(l) != 2 {
		s.Fatalf("%d leases", len(l))
	}
	if l[0].Destination != "one.example" {
		l[0], l[1] = l[1], l[0]
	}
	if !slices.Equal(l[0].Recipients, []int{0, 2, 3}) || !slices.Equal(l[1].Recipients, []int{1}) || len(l[0].Records) != 3 || l[0].Entry.ID != id {
		s.Errorf("%+v", l)
	}
}

// testFairness is N-18: a destination with a long row does not hold up the others.
func testFairness(s *suite) {
	for i := range 200 {
		s.add(fmt.Sprintf("u%d@dead.example", i))
	}
	s.add("a@one.example")
	s.add("a@two.example")
	got := make(map[string]int)
	for _, l := range s.claim(6, nil) {
		got[l.Destination]++
	}
	if got["one.example"] != 1 || got["two.example"] != 1 || got["dead.example"] != 4 {
		s.Errorf("%v", got)
	}
	s.add("b@three.example")
	if l := s.claim(2, nil); l[0].Destination != "three.example" && l[1].Destination != "three.example" {
		s.Errorf("a newcomer waits behind the row: %v", l)
	}
}

func testRoom(s *suite) {
	for i := range 5 {
		s.add(fmt.Sprintf("u%d@full.example", i))
		s.add(fmt.Sprintf("u%d@some.example", i))
	}
	rooms := map[string]int{"some.example": 2}
	room := func(d string) int { return rooms[d] }
	l := s.claim(10, room)
	if len(l) != 2 || l[0].Destination != "some.example" || l[1].Destination != "some.example" {
		s.Fatalf("%+v", l)
	}
	rooms = map[string]int{"full.example": 10, "some.example": -1}
	if l = s.claim(10, room); len(l) != 5 || l[0].Destination != "full.example" {
		s.Errorf("%+v", l)
	}
}

func testLeaseExpires(s *suite) {
	s.add("a@example.com")
	l := s.claim(1, nil)[0]
	s.advance(l.Until.Sub(s.now()) - time.Second)
	if len(s.claim(1, nil)) != 0 {
		s.Fatal("claimed while leased")
	}
	s.advance(2 * time.Second)
	again := s.claim(1, nil)
	if len(again) != 1 || again[0].Records[0].Attempts != 2 {
		s.Errorf("%+v", again)
	}
}

func testExtend(s *suite) {
	s.add("a@example.com")
	l := s.claim(1, nil)[0]
	s.must(s.Extend(s.Context(), l, l.Until.Add(time.Hour)))
	s.advance(l.Until.Sub(s.now()) + time.Minute)
	if len(s.claim(1, nil)) != 0 {
		s.Fatal("claimed while leased")
	}
	s.must(s.result(l, to(queue.Delivered)))
	if s.Extend(s.Context(), l, s.now().Add(time.Hour)) == nil {
		s.Error("the lease of a done entry was extended")
	}
}

func testRelease(s *suite) {
	s.add("a@example.com")
	l := s.claim(1, nil)[0]
	s.Release(s.Context(), l)
	again := s.claim(1, nil)
	if len(again) != 1 || again[0].Records[0].Attempts != 1 {
		s.Errorf("%+v", again)
	}
	s.must(s.result(again[0], to(queue.Delivered)))
	s.Release(s.Context(), again...) // too late, and harmless
	if len(s.claim(1, nil)) != 0 {
		s.Error("done entry was claimed")
	}
}

func testHeldAndParked(s *suite) {
	for _, st := range []queue.State{queue.Held, queue.Parked} {
		a := s.entry("a@example.com")
		a.Records[0] = queue.Record{State: st, Destination: "example.com", Reason: "wait", Expires: s.now().Add(time.Minute)}
		s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
		s.advance(time.Hour)
		if len(s.claim(1, nil)) != 0 {
			s.Fatalf("%s entry was claimed", st)
		}
		s.reopen()
		if len(s.claim(1, nil)) != 0 {
			s.Fatalf("%s entry was claimed", st)
		}
		rec := a.Records[0]
		rec.State, rec.Next = queue.Pending, s.now()
		s.must(s.Commit(s.Context(), queue.Batch{Results: []queue.Result{{ID: a.Entry.ID, Record: rec}}}))
		l := s.claim(1, nil)
		if len(l) != 1 || l[0].Entry.ID != a.Entry.ID {
			s.Fatalf("%s and released: %+v", st, l)
		}
		s.must(s.result(l[0], to(queue.Delivered)))
	}
	s.add("a@example.com")
	l := s.claim(1, nil)[0]
	s.must(s.result(l, to(queue.Held))) // held while leased
	s.advance(24 * time.Hour)
	if len(s.claim(1, nil)) != 0 {
		s.Error("held entry was claimed")
	}
}
