package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
)

// maxGroup bounds what one write carries, in bytes, beyond its first request.
const maxGroup = 8 << 20

// write is the writer: everything that waits goes into one write and one sync.
func (s *Store) write() {
	defer close(s.written)
	var group []*request
	for first := range s.requests {
		group = append(group[:0], first)
		size := len(first.enc.b)
	more:
		for size < maxGroup {
			select {
			case r, ok := <-s.requests:
				if !ok {
					break more
				}
				group = append(group, r)
				size += len(r.enc.b)
			default:
				break more
			}
		}
		s.commit(group, true)
	}
}

// commit makes a group durable and tells everybody in it. After a failure those that only
// record what has happened already (results and marks) are tried once more in the next
// segment: a delivery does not become undone by a bad disk.
func (s *Store) commit(group []*request, retry bool) {
	now := s.o.Clock()
	s.mu.Lock()
	admitted := group[:0]
	for _, r := range group {
		if r.err = s.admit(r); r.err != nil {
			r.done <- struct{}{}
			continue
		}
		admitted = append(admitted, r)
	}
	s.mu.Unlock()
	if len(admitted) == 0 {
		return
	}
	if err := s.ready(now); err != nil {
		s.refuse(admitted, err, false)
		return
	}
	seg, start := s.current, s.current.size
	if err := s.append(admitted); err != nil {
		s.recover(err)
		again := s.refuse(admitted, err, retry)
		if len(again) > 0 {
			s.commit(again, false)
		}
		return
	}
	s.mu.Lock()
	off := start
	for _, r := range admitted {
		s.apply(r, seg, uint32(off), now)
		off += int64(len(r.enc.b))
	}
	seg.size = off
	s.tell()
	tidy := len(s.garbage) > 0
	s.mu.Unlock()
	for _, r := range admitted {
		r.done <- struct{}{}
	}
	s.signal()
	if tidy {
		s.wakeJanitor()
	}
}

// ready sees to it that there is a segment to write to.
func (s *Store) ready(now time.Time) error {
	if s.current != nil && s.current.size >= s.o.SegmentSize {
		s.seal()
		s.wakeJanitor()
	}
	if s.current != nil {
		return nil
	}
	return s.startSegment(now)
}

// seal ends the current segment in good order.
func (s *Store) seal() {
	s.prev = sealed{s.current.number, s.current.size, true}
	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
}

// append writes the frames of a group and syncs them.
func (s *Store) append(group []*request) error {
	start := s.current.size
	buf := s.buf[:0]
	if len(group) == 1 {
		buf = group[0].enc.b // no need to copy
	}
	for _, r := range group {
		s.seq++
		f := frame{seq: s.seq, size: len(r.enc.b) - frameHeader, group: start, sum: binary.LittleEndian.Uint32(r.enc.b[24:])}
		f.put(r.enc.b, s.current.marker)
		if len(group) > 1 {
			buf = append(buf, r.enc.b...)
		}
	}
	if len(group) > 1 && cap(buf) <= maxGroup {
		s.buf = buf
	}
	n, err := s.current.file.WriteAt(buf, start)
	if err == nil && n < len(buf) {
		err = errors.New("short write")
	}
	if err != nil {
		return &writeError{err, n == 0}
	}
	return s.current.file.Sync()
}

// writeError is a failed write. With untouched set nothing of it can be in the file.
type writeError struct {
	error
	untouched bool
}

func (e *writeError) Unwrap() error { return e.error }

// recover ends the current segment after a failed write or sync. It returns when nothing
// of the failed group can come back after a restart: the next segment's header says so
// durably or, where that cannot be written, the tail is cut off durably. If a disk lets
// it do neither, it gives up after a while: the answer "no" may then turn out wrong, if the
// gateway dies before the disk recovers, and the client tries again anyway.
func (s *Store) recover(cause error) {
	bad := s.current
	s.o.Log.Error("queue: write failed, starting another segment", "segment", segmentName(bad.number), "error", cause)
	s.prev = sealed{bad.number, bad.size, false}
	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
	var w *writeError
	if errors.As(cause, &w) && w.untouched {
		return
	}
	wait := 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += wait {
		err := s.startSegment(s.o.Clock())
		if err == nil {
			return
		}
		if bad.file.Truncate(bad.size) == nil && bad.file.Sync() == nil {
			return
		}
		if waited >= s.patience {
			s.o.Log.Error("queue: refused mail may come back after a restart", "segment", segmentName(bad.number), "error", err)
			return
		}
		wait = min(2*wait, time.Second)
		time.Sleep(wait)
	}
}

// refuse tells everybody in a group that it failed, except for those that retry lets try
// again, which it returns.
func (s *Store) refuse(group []*request, cause error, retry bool) (again []*request) {
	if disk.IsFull(cause) {
		cause = fmt.Errorf("%w: %w", queue.ErrNoSpace, cause)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range group {
		s.dismiss(r, len(r.adds), len(r.changes))
		if retry && len(r.adds) == 0 {
			again = append(again, r)
			continue
		}
		r.err = cause
		r.done <- struct{}{}
	}
	return again
}
