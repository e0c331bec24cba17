package local

import (
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// lane is what takes turns: a destination for the mail of one class.
type lane struct {
	class queue.Class
	name  string
}

// dest is a lane with recipients that are not final.
type dest struct {
	lane
	due   heap   // its pending recipients that are not leased
	refs  int    // recipients that name it
	pos   int32  // in schedule.waiting, or -1
	ready bool   // in schedule.ready
	turn  uint64 // the Claim that took leases last ...
	taken int    // ... and how many
}

// schedule says what is due and whose turn it is. It is part of the index and has no lock
// of its own.
type schedule struct {
	rcpts   slab[rcpt]
	dests   []dest // 0 is not used
	names   map[lane]uint32
	unused  []uint32
	waiting heap     // destinations by their first due time
	ready   []uint32 // destinations with something due, in the order of their turns
	leases  heap     // leased recipients by the end of the lease
	turn    uint64
}

func newSchedule() schedule {
	return schedule{dests: make([]dest, 1), names: make(map[lane]uint32)}
}

// byDue are the keys of heaps of recipients, byFirst of the heap of destinations.
type (
	byDue   struct{ s *schedule }
	byFirst struct{ s *schedule }
)

func (b byDue) key(id uint32) int64  { return b.s.rcpts.at(id).due }
func (b byDue) pos(id uint32) *int32 { return &b.s.rcpts.at(id).pos }

func (b byFirst) key(id uint32) int64  { return b.s.rcpts.at(b.s.dests[id].due.top()).due }
func (b byFirst) pos(id uint32) *int32 { return &b.s.dests[id].pos }

// intern returns the index of a destination and counts a reference.
func (s *schedule) intern(class queue.Class, name []byte) uint32 {
	if i, ok := s.names[lane{class, string(name)}]; ok {
		s.dests[i].refs++
		return i
	}
	d := dest{lane: lane{class, string(name)}, refs: 1, pos: -1}
	var i uint32
	if n := len(s.unused); n > 0 {
		i = s.unused[n-1]
		s.unused = s.unused[:n-1]
		s.dests[i] = d
	} else {
		i = uint32(len(s.dests))
		s.dests = append(s.dests, d)
	}
	s.names[d.lane] = i
	return i
}

// forget drops a reference.
func (s *schedule) forget(i uint32) {
	s.dests[i].refs--
	s.reclaim(i)
}

func (s *schedule) reclaim(i uint32) {
	if d := &s.dests[i]; d.refs == 0 && !d.ready {
		delete(s.names, d.lane)
		*d = dest{refs: -1, pos: -1}
		s.unused = append(s.unused, i)
	}
}

// enqueue makes a recipient due at its time.
func (s *schedule) enqueue(id uint32) {
	r := s.rcpts.at(id)
	d := &s.dests[r.dest]
	d.due.push(byDue{s}, id)
	s.settle(r.dest)
}

// dequeue takes a recipient out of the heap that it is in, if any.
func (s *schedule) dequeue(id uint32) {
	r := s.rcpts.at(id)
	switch {
	case r.pos < 0:
	case r.flags&flagLeased != 0:
		s.leases.remove(byDue{s}, id)
	default:
		d := &s.dests[r.dest]
		if d.pos >= 0 && len(d.due.ids) == 1 { // the heap of destinations must not see it empty
			s.waiting.remove(byFirst{s}, r.dest)
		}
		d.due.remove(byDue{s}, id)
		s.settle(r.dest)
	}
	r.flags &^= flagLeased
}

// settle puts a destination where it belongs after a change of its heap.
func (s *schedule) settle(i uint32) {
	d := &s.dests[i]
	switch {
	case d.ready || d.due.empty(): // Claim clears up
	case d.pos < 0:
		s.waiting.push(byFirst{s}, i)
	default:
		s.waiting.fix(byFirst{s}, i)
	}
}

// lease moves a recipient from its destination to the leases.
func (s *schedule) lease(id uint32, until int64) {
	s.dequeue(id)
	r := s.rcpts.at(id)
	r.flags |= flagLeased
	r.due = until
	s.leases.push(byDue{s}, id)
}

// unlease makes a leased recipient due again at the given time.
func (s *schedule) unlease(id uint32, due int64) {
	s.dequeue(id)
	s.rcpts.at(id).due = due
	s.enqueue(id)
}

// expire ends the leases whose time is over.
func (s *schedule) expire(now int64) {
	for !s.leases.empty() {
		id := s.leases.top()
		r := s.rcpts.at(id)
		if r.due > now {
			return
		}
		r.flags &^= flagCounted // its holder may have begun an attempt
		s.unlease(id, now)
	}
}

// wake moves the destinations that have something due to the end of the row.
func (s *schedule) wake(now int64) {
	for !s.waiting.empty() {
		i := s.waiting.top()
		if (byFirst{s}).key(i) > now {
			return
		}
		s.waiting.remove(byFirst{s}, i)
		s.dests[i].ready = true
		s.ready = append(s.ready, i)
	}
}

// pick calls take with the first due recipient of one destination after the other, in
// turns, until take returns false or nobody whom c leaves room has anything due. It returns
// when something more will be due, or max int64.
func (s *schedule) pick(now int64, c *queue.Claim, take func(id uint32) bool) int64 {
	s.turn++
	s.expire(now)
	s.wake(now)
	var full []uint32 // no room: they keep their turn, behind those that wait for one
	var taken [queue.Classes]int
	more := true
	head := 0
	for more && head < len(s.ready) {
		i := s.ready[head]
		head++
		d := &s.dests[i]
		if d.turn != s.turn {
			d.turn, d.taken = s.turn, 0
		}
		if d.due.empty() || s.rcpts.at(d.due.top()).due > now {
			d.ready = false
			s.settle(i)
			s.reclaim(i)
			continue
		}
		if c.Share != nil && c.Share(d.class) <= taken[d.class] || c.Room != nil && c.Room(d.class, d.name) <= d.taken {
			full = append(full, i)
			continue
		}
		d.taken++
		taken[d.class]++
		more = take(d.due.top())
		s.ready = append(s.ready, i)
	}
	s.ready = append(s.ready[:0], s.ready[head:]...)
	if len(s.ready) > 0 && !more {
		s.ready = append(s.ready, full...)
		return now
	}
	s.ready = append(s.ready, full...)
	return s.nextDue()
}

// nextDue is when a waiting destination has something due or a lease ends.
func (s *schedule) nextDue() int64 {
	next := int64(never)
	if !s.waiting.empty() {
		next = (byFirst{s}).key(s.waiting.top())
	}
	if !s.leases.empty() {
		next = min(next, s.rcpts.at(s.leases.top()).due)
	}
	return next
}

const never = 1<<63 - 1

// clock turns times into nanoseconds that do not jump with the wall clock.
type clock struct {
	now     func() time.Time
	elapsed func() time.Duration // nil: by the monotonic reading of the times
	start   time.Time
}

// at is the time now in the schedule's own count.
func (c *clock) at(now time.Time) int64 {
	if c.elapsed != nil {
		return int64(c.elapsed())
	}
	return int64(now.Sub(c.start))
}
