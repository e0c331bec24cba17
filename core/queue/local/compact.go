package local

import (
	"context"
	"errors"

	"github.com/postern-mail/postern/core/queue"
)

const (
	compactEntries = 16      // copied in one commit ...
	compactBytes   = 1 << 20 // ... of about this size at most
	compactLook    = 4096    // entries looked at under one lock
	compactPasses  = 3       // over one segment; what changes meanwhile is left for later
)

// compact empties the oldest segment that is not worth its space, by copying what lives
// in it to the end of the log. It reports whether there may be more to do.
func (s *Store) compact() bool {
	s.mu.Lock()
	s.expireMarks()
	seg := s.candidate()
	s.mu.Unlock()
	if seg == nil {
		return false
	}
	for range compactPasses {
		if err := s.compactPass(seg); err != nil {
			if errors.Is(err, errClosed) {
				return false
			}
			s.o.Log.Warn("queue: segment could not be emptied", "segment", segmentName(seg.number), "error", err)
			return false
		}
		s.mu.Lock()
		empty := seg.items == 0 && seg.marks == 0
		s.mu.Unlock()
		if empty {
			return true
		}
	}
	return false
}

// candidate is the oldest segment that is more than half dead, once the dead part of the log is larger
// than the living one and some segments; or one that is damaged, so that the damage is
// found only once. The caller holds mu.
func (s *Store) candidate() *segment {
	total, live := int64(0), int64(0)
	for _, seg := range s.x.segs {
		if seg != s.current {
			total += seg.size
			live += seg.bytes
		}
	}
	crowded := total > 2*live+4*s.o.SegmentSize
	var oldest *segment
	for _, seg := range s.x.segs {
		switch {
		case seg == s.current || seg.items == 0 && seg.marks == 0:
		case !seg.damaged && (!crowded || seg.bytes > seg.size/2):
		case oldest == nil || seg.number < oldest.number:
			oldest = seg
		}
	}
	return oldest
}

// expireMarks forgets the marks whose time is over. The caller holds mu.
func (s *Store) expireMarks() {
	now := timeToInt(s.o.Clock())
	for key, m := range s.x.marks {
		if m.until <= now {
			s.x.segs[m.seg].marks--
			delete(s.x.marks, key)
		}
	}
}

func (s *Store) compactPass(seg *segment) error {
	if err := s.copyMarks(seg); err != nil {
		return err
	}
	for from := uint32(1); ; from += compactLook {
		sns, end := s.residents(seg.number, from)
		for len(sns) > 0 {
			n := min(len(sns), compactEntries)
			err := s.copyEntries(seg.number, sns[:n])
			s.release(sns[:n]...)
			sns = sns[n:]
			if err != nil {
				s.release(sns...)
				return err
			}
		}
		if end {
			return nil
		}
		select {
		case <-s.stop:
			return errClosed
		default:
		}
	}
}

// residents takes snapshots of entries with something in a segment, among the
// compactLook ones at from.
func (s *Store) residents(number, from uint32) (sns []snapshot, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := min(from+compactLook, s.x.entries.next)
	for i := from; i < to; i++ {
		e := s.x.entries.at(i)
		if e.id == 0 {
			continue
		}
		here := e.loc.seg == number
		for k := uint32(0); k < e.count && !here; k++ {
			here = s.x.rcpts.at(e.first+k).loc.seg == number
		}
		if here {
			sns = append(sns, s.snapshot(i))
		}
	}
	return sns, to >= s.x.entries.next
}

// copyEntries appends what some entries have in a segment to the log, once more.
func (s *Store) copyEntries(number uint32, sns []snapshot) error {
	r := s.newRequest()
	defer func() { s.free(r) }()
	flush := func() error {
		err := s.submit(context.Background(), r)
		s.free(r)
		r = s.newRequest()
		if errors.Is(err, errChanged) || errors.Is(err, queue.ErrGone) {
			return nil // the next pass sees what is left
		}
		return err
	}
	for i := range sns {
		if err := s.copyEntry(r, number, &sns[i]); err != nil {
			if err = s.unreadable(&sns[i], err); !errors.Is(err, queue.ErrGone) {
				return err
			}
		}
		if len(r.enc.b) > compactBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(r.adds)+len(r.changes) == 0 {
		return nil
	}
	return flush()
}

func (s *Store) copyEntry(r *request, number uint32, sn *snapshot) error {
	if sn.at.seg == number {
		entry, records, err := s.load(sn)
		if err != nil {
			return err
		}
		r.add(itemMove, entry, records)
		a := &r.adds[len(r.adds)-1]
		a.from, a.locs = sn.at, sn.locs
		return nil
	}
	for n, at := range sn.locs {
		if at.seg != number {
			continue
		}
		rec, err := sn.result(at, n)
		var bad *damage
		if errors.As(err, &bad) {
			rec, err = sn.briefs[n], nil
		}
		if err != nil {
			return err
		}
		r.result(queue.Result{ID: sn.id, Recipient: n, Record: rec}, recopy, at)
	}
	return nil
}

func (s *Store) copyMarks(seg *segment) error {
	r := s.newRequest()
	defer s.free(r)
	s.mu.Lock()
	if seg.marks > 0 {
		for key, m := range s.x.marks {
			if m.seg == seg.number {
				r.mark(key, m.until)
			}
		}
	}
	s.mu.Unlock()
	if len(r.marks) == 0 {
		return nil
	}
	return s.submit(context.Background(), r)
}
