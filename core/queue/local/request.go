package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// request is one frame on its way to the log.
type request struct {
	enc     encoder // the frame, with room for its header
	adds    []addition
	changes []change
	marks   []newMark
	err     error
	done    chan struct{}
}

// addition is an entry in a request. With from set it is a copy of one from there.
type addition struct {
	id            queue.ID
	entry         *queue.Entry
	records       []queue.Record
	content       string
	off           uint32 // of its item in the frame
	size, message uint32
	from          loc
	locs          []loc // where the last results must still be, with from
}

// change is a record in a request.
type change struct {
	id        queue.ID
	recipient int
	state     queue.State
	attempts  int
	next      int64
	dest      string
	off, size uint32
	mode      uint8
	idle      bool // refuse it for a leased recipient
	from      loc  // where its record must still be, unless mode is replace
}

// The modes of a change.
const (
	replace = iota // a result
	intent         // the next attempt of a leased recipient
	recopy         // the same record, copied from an older segment
)

type newMark struct {
	key   [16]byte
	until int64
}

var errChanged = errors.New("changed meanwhile")

// newRequest takes a request from the pool: they are large and short-lived.
func (s *Store) newRequest() *request {
	r, _ := s.pool.Get().(*request)
	if r == nil {
		r = &request{done: make(chan struct{}, 1)}
	}
	r.enc.b = append(r.enc.b[:0], make([]byte, frameHeader)...)
	return r
}

func (s *Store) free(r *request) {
	if cap(r.enc.b) > 1<<20 {
		r.enc.b = nil
	}
	clear(r.adds)
	clear(r.changes)
	r.adds, r.changes, r.marks, r.err = r.adds[:0], r.changes[:0], r.marks[:0], nil
	s.pool.Put(r)
}

func (r *request) add(kind byte, e *queue.Entry, records []queue.Record) {
	off := uint32(len(r.enc.b))
	front, message := r.enc.add(kind, e, records)
	r.adds = append(r.adds, addition{id: e.ID, entry: e, records: records, content: contentName(e.Body), off: off, size: front, message: message})
}

func (r *request) result(q queue.Result, mode uint8, from loc) {
	off := uint32(len(r.enc.b))
	size := r.enc.result(&q)
	rec := &q.Record
	r.changes = append(r.changes, change{
		id: q.ID, recipient: q.Recipient, state: rec.State, attempts: rec.Attempts, next: timeToInt(rec.Next), dest: rec.Destination,
		off: off, size: size, mode: mode, idle: q.Idle, from: from,
	})
}

func (r *request) mark(key [16]byte, until int64) {
	r.enc.mark(key, until)
	r.marks = append(r.marks, newMark{key, until})
}

// submit hands r to the writer and waits for the outcome.
func (s *Store) submit(ctx context.Context, r *request) error {
	if len(r.enc.b)-frameHeader > maxPayload {
		return fmt.Errorf("batch of %d bytes is too large", len(r.enc.b))
	}
	// The checksum is computed here, where all processors can help.
	binary.LittleEndian.PutUint32(r.enc.b[24:], checksum(r.enc.b[frameHeader:]))
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return errClosed
	}
	return s.handOver(ctx, r)
}

func (s *Store) handOver(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-r.done
	return r.err
}

// admit checks r against the index and marks what it will change, so that what comes
// later in the same group sees it. The caller holds mu.
func (s *Store) admit(r *request) error {
	for i := range r.adds {
		if err := s.admitAdd(&r.adds[i]); err != nil {
			s.dismiss(r, i, 0)
			return err
		}
	}
	for i := range r.changes {
		if err := s.admitChange(&r.changes[i]); err != nil {
			s.dismiss(r, len(r.adds), i)
			return err
		}
	}
	return nil
}

func (s *Store) admitAdd(a *addition) error {
	i, known := s.x.ids[a.id]
	if a.from.seg == 0 {
		if known {
			return fmt.Errorf("%s is in the queue already", a.id)
		}
		s.x.ids[a.id] = 0 // taken
		return nil
	}
	if !known || i == 0 {
		return errChanged
	}
	e := s.x.entries.at(i)
	if e.loc != a.from {
		return errChanged
	}
	for k := range e.count {
		r := s.x.rcpts.at(e.first + k)
		if r.flags&flagTouched != 0 || r.loc != a.locs[k] {
			return errChanged
		}
	}
	return nil
}

func (s *Store) admitChange(c *change) error {
	r, ok := s.rcptOf(c.id, c.recipient)
	if !ok || r.flags&flagEnding != 0 || c.mode != recopy && queue.State(r.state).Final() {
		return fmt.Errorf("recipient %d of %s: %w", c.recipient, c.id, queue.ErrGone)
	}
	if c.mode != replace && (r.flags&flagTouched != 0 || r.loc != c.from) || c.mode == intent && r.flags&flagLeased == 0 {
		return errChanged
	}
	if c.idle {
		if r.flags&flagLeased != 0 {
			return fmt.Errorf("recipient %d of %s: %w", c.recipient, c.id, queue.ErrBusy)
		}
		s.x.dequeue(s.x.entries.at(s.x.ids[c.id]).first + uint32(c.recipient)) // nobody begins before it is done
	}
	r.flags |= flagTouched
	if c.state.Final() && c.mode == replace {
		r.flags |= flagEnding
	}
	return nil
}

func (s *Store) rcptOf(id queue.ID, recipient int) (*rcpt, bool) {
	i := s.x.ids[id]
	if i == 0 {
		return nil, false
	}
	e := s.x.entries.at(i)
	if uint32(recipient) >= e.count {
		return nil, false
	}
	return s.x.rcpts.at(e.first + uint32(recipient)), true
}

// dismiss undoes admit for the first additions and changes of r.
func (s *Store) dismiss(r *request, adds, changes int) {
	for i := range r.adds[:adds] {
		if a := &r.adds[i]; a.from.seg == 0 {
			delete(s.x.ids, a.id)
		}
	}
	for i := range r.changes[:changes] {
		c := &r.changes[i]
		if p, ok := s.rcptOf(c.id, c.recipient); ok {
			p.flags &^= flagTouched | flagEnding
			if c.idle && p.pos < 0 && queue.State(p.state) == queue.Pending {
				s.x.enqueue(s.x.entries.at(s.x.ids[c.id]).first + uint32(c.recipient))
			}
		}
	}
}

// apply makes the index say what is durable now: r, in a frame at off. The caller holds mu.
func (s *Store) apply(r *request, seg *segment, off uint32, now time.Time) {
	for i := range r.adds {
		a := &r.adds[i]
		at := loc{seg.number, off + a.off, a.size}
		if a.from.seg != 0 {
			if i := s.x.ids[a.id]; i != 0 { // else it was found damaged meanwhile
				s.x.move(i, at, a.message)
			}
			continue
		}
		s.applyAdd(a, at, now)
	}
	for i := range r.changes {
		c := &r.changes[i]
		s.applyChange(c, loc{seg.number, off + c.off, c.size}, now)
	}
	for _, m := range r.marks {
		s.x.remember(m.key, m.until, seg.number)
	}
}

func (s *Store) applyAdd(a *addition, at loc, now time.Time) {
	i := s.x.insert(a.id, at, a.message, []byte(a.content), len(a.records))
	e := s.x.entries.at(i)
	for k := range a.records {
		rec := &a.records[k]
		s.x.begin(e.first+uint32(k), a.entry.Class, brief{rec.State, rec.Attempts, timeToInt(rec.Next), []byte(rec.Destination)}, true, now)
	}
	switch {
	case e.open == 0:
		s.discard(s.x.end(i))
	case e.fresh > 0:
		s.x.cache.put(a.id, cached{a.entry, append([]queue.Record(nil), a.records...), int64(a.size) + int64(a.message)})
	}
}

func (s *Store) applyChange(c *change, at loc, now time.Time) {
	i := s.x.ids[c.id]
	if i == 0 {
		return // found damaged meanwhile
	}
	e := s.x.entries.at(i)
	id := e.first + uint32(c.recipient)
	r := s.x.rcpts.at(id)
	r.flags &^= flagTouched | flagEnding
	switch c.mode {
	case replace:
		s.x.set(id, brief{c.state, c.attempts, c.next, []byte(c.dest)}, at, now)
		if e.open == 0 {
			s.discard(s.x.end(i))
		}
	case intent:
		s.x.relocate(r, e, at)
		r.attempts = clampAttempts(c.attempts)
	case recopy:
		s.x.relocate(r, e, at)
	}
}

// discard remembers a content file to be removed.
func (s *Store) discard(name string) {
	if name != "" {
		s.garbage = append(s.garbage, name)
	}
}
