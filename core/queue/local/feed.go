package local

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

var _ queue.Feed = (*Store)(nil)

const (
	feedBatch  = 500  // changes told at a time, about
	feedRecent = 4096 // entries whose addresses a follower remembers
)

// Follow implements queue.Feed.
func (s *Store) Follow(ctx context.Context, name string, yield func(context.Context, []queue.Change) error) error {
	c, err := s.attach(name)
	if err != nil {
		return err
	}
	defer s.detach(c)
	f := follower{s: s, c: c, recent: make(map[queue.ID]*known)}
	for ctx.Err() == nil {
		changes, next, err := f.read()
		if err != nil {
			return err
		}
		if len(changes) > 0 {
			if err := yield(ctx, changes); err != nil {
				continue
			}
		}
		moved := f.move(next)
		if len(changes) == 0 && !moved {
			if err := f.wait(ctx); err != nil {
				return err
			}
		}
	}
	return f.save(true)
}

// attach takes the cursor for a follower.
func (s *Store) attach(name string) (*cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursor(name)
	if c == nil {
		return nil, fmt.Errorf("queue: there is no cursor %q", name)
	}
	if c.news != nil {
		return nil, fmt.Errorf("queue: %s is followed already", name)
	}
	c.news = make(chan struct{}, 1)
	return c, nil
}

func (s *Store) detach(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.news = nil
}

// lastSegment is the number of the newest segment. The caller holds mu.
func (s *Store) lastSegment() uint32 {
	last := uint32(0)
	for n := range s.x.segs {
		last = max(last, n)
	}
	return last
}

// tell wakes the followers. The caller holds mu.
func (s *Store) tell() {
	for _, c := range s.cursors {
		if c.news != nil {
			select {
			case c.news <- struct{}{}:
			default:
			}
		}
	}
}

// known is what a follower remembers of an entry.
type known struct {
	family   queue.ID
	from     mail.Path
	to       []mail.Recipient
	attempts []int // of each recipient, as told last
	isACopy  bool
}

// follower reads the log for one cursor.
type follower struct {
	s      *Store
	c      *cursor
	recent map[queue.ID]*known // entries read lately
	order  []queue.ID          // of recent, oldest first
	saved  time.Time
	dirty  bool
}

// position is a place in the log.
type position struct {
	seg uint32
	off int64
}

// read returns the changes in the next frames, and where it stopped.
func (f *follower) read() ([]queue.Change, position, error) {
	s := f.s
	s.mu.Lock()
	at := position{f.c.seg, f.c.off}
	seg := s.x.segs[at.seg]
	if seg == nil || at.off >= seg.size && seg != s.current { // go on in the next one
		next := uint32(0)
		for n := range s.x.segs {
			if n > at.seg && (next == 0 || n < next) {
				next = n
			}
		}
		if next == 0 {
			s.mu.Unlock()
			return nil, at, nil
		}
		at = position{next, firstFrame}
		seg = s.x.segs[next]
	}
	size := seg.size
	seg.pins++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		seg.pins--
		s.mu.Unlock()
	}()
	var changes []queue.Change
	w := window{f: seg.file, limit: size}
	sc := scan{}
	for at.off < size && len(changes) < feedBatch {
		next, _, err := scanOne(&w, seg.marker, at.off, &sc, func(_ int64, fr frame, payload []byte) error {
			changes = f.changes(changes, fr.seq, payload)
			return nil
		})
		if err != nil {
			return nil, at, fmt.Errorf("queue: %s: %w", segmentName(seg.number), err)
		}
		at.off = next // what is damaged there was set aside at the start
	}
	return changes, at, nil
}

// changes adds those of a frame.
func (f *follower) changes(out []queue.Change, seq uint64, payload []byte) []queue.Change {
	for off := 0; off < len(payload); {
		it, err := nextItem(payload, off)
		if err != nil {
			return out
		}
		off += int(it.size())
		d := it.check()
		switch it.kind {
		case itemAdd:
			m, err := nextItem(payload, off)
			if err != nil {
				return out
			}
			off += int(m.size())
			fr := d.front()
			records := d.records(fr.records)
			e := m.check().message(fr.id, f.s.o.Content.Path, string(fr.content))
			if d.err != nil {
				continue
			}
			f.remember(e)
			for i := range records {
				out = append(out, f.change(seq, fr.id, i, records[i], true))
			}
		case itemMove: // nothing happened but to the log
			if m, err := nextItem(payload, off); err == nil {
				off += int(m.size())
			}
		case itemResult:
			id, n := queue.ID(d.u64()), d.num()
			if r := d.record(); d.err == nil {
				out = append(out, f.change(seq, id, n, r, false))
			}
		}
	}
	return out
}

func (f *follower) change(seq uint64, id queue.ID, n int, r queue.Record, added bool) queue.Change {
	c := queue.Change{Seq: seq, ID: id, Recipient: n, Added: added, Record: r}
	k := f.recent[id]
	if k == nil {
		if e, _, err := f.s.Get(context.Background(), id); err == nil {
			k = f.remember(e)
		}
	}
	if k == nil || n >= len(k.to) {
		return c
	}
	c.Family, c.From, c.To, c.Copy = k.family, k.from, k.to[n].Path, k.isACopy
	c.Begun = !added && k.attempts[n] > 0 && r.State == queue.Pending && r.Attempts > k.attempts[n]
	k.attempts[n] = r.Attempts
	return c
}

func (f *follower) remember(e *queue.Entry) *known {
	k := &known{e.Family, e.Envelope.ReversePath, e.Envelope.Recipients, make([]int, len(e.Envelope.Recipients)), e.Class.IsCopy()}
	if _, ok := f.recent[e.ID]; !ok {
		if len(f.order) >= feedRecent {
			delete(f.recent, f.order[0])
			f.order = f.order[1:]
		}
		f.order = append(f.order, e.ID)
	}
	f.recent[e.ID] = k
	return k
}

// move takes the cursor on, unless it was moved on meanwhile, and reports whether it moved.
func (f *follower) move(to position) bool {
	s := f.s
	s.mu.Lock()
	moved := to.seg > f.c.seg || to.seg == f.c.seg && to.off > f.c.off
	left := to.seg != f.c.seg
	if moved {
		f.c.seg, f.c.off, f.c.lost = to.seg, to.off, false
	}
	s.mu.Unlock()
	if moved {
		f.dirty = true
		if left {
			s.wakeJanitor()
		}
		if err := f.save(false); err != nil {
			s.o.Log.Warn("queue: cursor not saved", "cursor", f.c.name, "error", err)
		}
	}
	return moved
}

// save makes the cursor durable: now, or when the last time was a second ago.
func (f *follower) save(now bool) error {
	if !f.dirty || !now && time.Since(f.saved) < time.Second {
		return nil
	}
	f.s.mu.Lock()
	at := position{f.c.seg, f.c.off}
	f.s.mu.Unlock()
	f.saved = time.Now()
	if err := f.s.writeCursor(f.c.name, at.seg, at.off); err != nil {
		return err
	}
	f.dirty = false
	return nil
}

// wait returns when there is something new, saving the cursor meanwhile.
func (f *follower) wait(ctx context.Context) error {
	tick := time.NewTimer(time.Second)
	defer tick.Stop()
	select {
	case <-ctx.Done():
	case <-f.c.news:
	case <-f.s.stop:
		return errClosed
	case <-tick.C:
		return f.save(true)
	}
	return nil
}
