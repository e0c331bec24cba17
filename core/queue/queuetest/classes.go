package queuetest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// addClass commits an entry of a class for one recipient.
func (s *suite) addClass(c queue.Class, to string) queue.ID {
	s.Helper()
	a := s.entry(to)
	a.Entry.Class = c
	s.must(s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}))
	return a.Entry.ID
}

// testClasses: a class with a long row neither takes the turns of another at the same destination
// nor more than its share, and room is asked for each by itself.
func testClasses(s *suite) {
	for range 50 {
		s.addClass(queue.Journal, "keep@same.example")
	}
	late := s.addClass(queue.Mail, "a@same.example")
	report := s.addClass(queue.Report, "b@other.example")
	type lane struct {
		queue.Class
		destination string
	}
	claim := func(max int, share, room func(queue.Class) int) map[lane]int {
		s.Helper()
		c := queue.Claim{Now: s.now(), Max: max, Share: share}
		if room != nil {
			c.Room = func(class queue.Class, destination string) int {
				if class == queue.Report != (destination == "other.example") {
					s.Errorf("room of %s is asked for %s", destination, class)
				}
				return room(class)
			}
		}
		leases, _, err := s.Claim(s.Context(), c)
		s.must(err)
		got := make(map[lane]int)
		for _, l := range leases {
			got[lane{l.Entry.Class, l.Destination}]++
			if l.Entry.Class == queue.Mail && l.Entry.ID != late || l.Entry.Class == queue.Report && l.Entry.ID != report {
				s.Errorf("%s is of class %s", l.Entry.ID, l.Entry.Class)
			}
		}
		return got
	}
	check := func(what string, got, want map[lane]int) {
		s.Helper()
		if !maps.Equal(got, want) {
			s.Errorf("%s: %v, not %v", what, got, want)
		}
	}
	journals := func(n int) func(queue.Class) int {
		return func(c queue.Class) int {
			if c == queue.Journal {
				return n
			}
			return 100
		}
	}
	mail, reports, kept := lane{queue.Mail, "same.example"}, lane{queue.Report, "other.example"}, lane{queue.Journal, "same.example"}
	check("turns", claim(3, nil, nil), map[lane]int{mail: 1, reports: 1, kept: 1})
	s.reopen()
	check("a share", claim(20, journals(2), nil), map[lane]int{mail: 1, reports: 1, kept: 2})
	check("a share that is used up", claim(20, journals(0), nil), map[lane]int{})
	s.reopen()
	s.advance(time.Hour)
	check("room", claim(20, nil, journals(3)), map[lane]int{mail: 1, reports: 1, kept: 3})
	check("share and room", claim(20, journals(4), journals(5)), map[lane]int{kept: 4})
	check("neither", claim(20, nil, nil), map[lane]int{kept: 20})
}

// testClassStays: an entry keeps its class through all that happens to it and to the store.
func testClassStays(s *suite) {
	want := make(map[queue.ID]queue.Class)
	for c := range queue.Class(queue.Classes) {
		want[s.addClass(c, fmt.Sprintf("%s@same.example", c))] = c
	}
	check := func(when string) {
		s.Helper()
		n := 0
		s.must(s.Scan(s.Context(), func(i queue.Item) bool {
			e, _, err := s.Get(s.Context(), i.ID)
			s.must(err)
			if n++; i.Class != want[i.ID] || e.Class != want[i.ID] {
				s.Errorf("%s: %s is %s in the list and %s itself, not %s", when, i.ID, i.Class, e.Class, want[i.ID])
			}
			return true
		}))
		if n != len(want) {
			s.Errorf("%s: %d in the list", when, n)
		}
	}
	// only leases of a class come back where the others have no share
	only := func(when string, class queue.Class) {
		s.Helper()
		leases, _, err := s.Claim(s.Context(), queue.Claim{Now: s.now(), Max: 10, Share: func(c queue.Class) int {
			if c == class {
				return 10
			}
			return 0
		}})
		s.must(err)
		if len(leases) != 1 || leases[0].Entry.Class != class {
			s.Errorf("%s: %d leases of %s", when, len(leases), class)
		}
		s.Release(s.Context(), leases...)
	}
	look := func(when string) {
		s.Helper()
		check(when)
		for c := range queue.Class(queue.Classes) {
			only(when, c)
		}
	}
	look("fresh")
	for _, st := range []queue.State{queue.Held, queue.Parked, queue.Pending} {
		var b queue.Batch
		for _, id := range slices.Sorted(maps.Keys(want)) {
			b.Results = append(b.Results, queue.Result{ID: id, Record: queue.Record{State: st, Destination: "elsewhere.example", Next: s.now()}})
		}
		s.must(s.Commit(s.Context(), b))
		check(st.String())
		s.reopen()
		check(st.String() + ", reopened")
	}
	look("released")
	s.advance(time.Hour)
	look("later")
	a := s.entry("x@example.org")
	a.Entry.Class = queue.Class(queue.Classes)
	if s.Commit(s.Context(), queue.Batch{Add: []queue.Add{a}}) == nil {
		s.Error("an entry of no class was taken")
	}
}
