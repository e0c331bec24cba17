package local

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// retryRead is how long an entry waits that could not be read because of an I/O error.
const retryRead = time.Minute

// picked is a lease in the making.
type picked struct {
	id      queue.ID
	dest    string
	numbers []int
	counted bool // the attempt is durable already
	entry   *queue.Entry
	records []queue.Record
	sn      snapshot // if entry is nil
}

// Claim implements queue.Store. Share and Room are called with the store locked.
func (s *Store) Claim(ctx context.Context, c queue.Claim) ([]queue.Lease, time.Time, error) {
	var todo []picked
	s.mu.Lock()
	now := s.x.clock.at(c.Now)
	next := int64(never)
	if c.Max > 0 {
		next = s.x.pick(now, &c, func(id uint32) bool {
			todo = append(todo, s.take(id, now))
			return len(todo) < c.Max
		})
	}
	wake := s.wallTime(next, c.Now)
	s.mu.Unlock()
	if len(todo) == 0 {
		return nil, wake, nil
	}
	ready := s.loadPicked(ctx, todo)
	ready, err := s.countAttempts(ctx, c.Now, ready)
	leases := make([]queue.Lease, len(ready))
	for i := range ready {
		p := &ready[i]
		leases[i] = queue.Lease{Entry: p.entry, Destination: p.dest, Recipients: p.numbers, Records: p.records, Until: c.Now.Add(s.o.Lease)}
	}
	return leases, wake, err
}

// take leases everything that is due for the destination and entry of one recipient. The
// caller holds mu.
func (s *Store) take(first uint32, now int64) picked {
	r := s.x.rcpts.at(first)
	i := r.entry
	e := s.x.entries.at(i)
	p := picked{id: queue.ID(e.id), dest: s.x.dests[r.dest].name, counted: r.flags&flagCounted != 0}
	c, ok := s.x.cache.m[p.id]
	if ok = ok && p.counted && s.untouched(i); ok {
		p.entry = c.entry
	} else {
		p.sn = s.snapshot(i)
	}
	want := *r
	for k := range e.count {
		id := e.first + k
		r := s.x.rcpts.at(id)
		if r.pos < 0 || r.flags&flagLeased != 0 || r.dest != want.dest || r.due > now || (r.flags&flagCounted != 0) != p.counted {
			continue
		}
		s.x.lease(id, now+int64(s.o.Lease))
		p.numbers = append(p.numbers, int(k))
		if ok {
			p.records = append(p.records, c.records[k])
		}
		s.x.counted(r, e)
	}
	return p
}

// loadPicked reads what is not in memory, and verifies content that is not fresh: what
// was altered on disk is held and not delivered.
func (s *Store) loadPicked(ctx context.Context, todo []picked) []picked {
	ready := todo[:0]
	for _, p := range todo {
		if p.entry != nil {
			ready = append(ready, p)
			continue
		}
		entry, records, err := s.load(&p.sn)
		s.release(p.sn)
		if err != nil {
			if err = s.unreadable(&p.sn, err); !errors.Is(err, queue.ErrGone) {
				s.o.Log.Error("queue: entry could not be read, trying again later", "id", p.id, "error", err)
				s.back(&p, retryRead)
			}
			continue
		}
		p.entry = entry
		for _, n := range p.numbers {
			p.records = append(p.records, records[n])
		}
		if !p.counted && !s.verify(ctx, &p) {
			continue
		}
		ready = append(ready, p)
	}
	return ready
}

// verify looks at the content file of an entry and holds its recipients if it is damaged.
func (s *Store) verify(ctx context.Context, p *picked) bool {
	if p.entry.Body.Path == "" {
		return true
	}
	err := s.o.Content.Verify(p.entry.Body)
	if err == nil {
		return true
	}
	if !errors.Is(err, mail.ErrBodyDamaged) {
		s.o.Log.Error("queue: content could not be read, trying again later", "id", p.id, "error", err)
		s.back(p, retryRead)
		return false
	}
	s.o.Log.Error("queue: content is damaged, recipients are held", "id", p.id, "error", err)
	r := s.newRequest()
	defer s.free(r)
	for i, n := range p.numbers {
		rec := p.records[i]
		rec.State, rec.Reason, rec.Expires = queue.Held, fmt.Sprintf("content is damaged: %v", err), time.Time{}
		r.result(queue.Result{ID: p.id, Recipient: n, Record: rec}, replace, loc{})
	}
	if err := s.submit(context.WithoutCancel(ctx), r); err != nil {
		s.o.Log.Error("queue: damaged content was not recorded", "id", p.id, "error", err)
		s.back(p, retryRead)
		return false
	}
	if err := s.o.Content.SetAside(contentName(p.entry.Body), fmt.Sprintf("content of entry %s: %v", p.id, err)); err != nil {
		s.o.Log.Error("queue: content was not set aside", "id", p.id, "error", err)
	}
	return false
}

// countAttempts stores the next attempt of all who need it, in one commit. If that fails
// they are due again, and only the others are returned.
func (s *Store) countAttempts(ctx context.Context, now time.Time, ready []picked) ([]picked, error) {
	r := s.newRequest()
	defer s.free(r)
	for i := range ready {
		p := &ready[i]
		if p.counted {
			continue
		}
		for k, n := range p.numbers {
			rec := &p.records[k]
			rec.Attempts++
			rec.Next = s.o.Backoff.Next(now, rec.Attempts)
			r.result(queue.Result{ID: p.id, Recipient: n, Record: *rec}, intent, p.sn.locs[n])
		}
	}
	if len(r.changes) == 0 {
		return ready, nil
	}
	err := s.submit(ctx, r)
	if err == nil {
		return ready, nil
	}
	kept := ready[:0]
	for i := range ready {
		if p := ready[i]; p.counted {
			kept = append(kept, p)
		} else {
			s.back(&p, 0)
		}
	}
	if errors.Is(err, errChanged) || errors.Is(err, queue.ErrGone) {
		return kept, nil // somebody was faster; the rest is due at once
	}
	return kept, fmt.Errorf("queue: claim: %w", err)
}

// back makes the recipients of a lease due again after a while.
func (s *Store) back(p *picked, after time.Duration) {
	s.mu.Lock()
	s.giveBack(p.id, p.numbers, after, p.counted)
	s.mu.Unlock()
	s.signal()
}

// giveBack ends a lease. With counted set the next attempt is durable already. The caller
// holds mu.
func (s *Store) giveBack(id queue.ID, numbers []int, after time.Duration, counted bool) {
	i := s.x.ids[id]
	if i == 0 {
		return
	}
	e := s.x.entries.at(i)
	due := s.x.clock.at(s.o.Clock()) + int64(after)
	for _, n := range numbers {
		if uint32(n) >= e.count {
			continue
		}
		rid := e.first + uint32(n)
		r := s.x.rcpts.at(rid)
		if r.flags&flagLeased == 0 {
			continue
		}
		s.x.unlease(rid, due)
		if counted {
			r.flags |= flagCounted
		}
	}
}

// Release implements queue.Store. The attempt stays counted: the next Claim writes nothing.
func (s *Store) Release(_ context.Context, leases ...queue.Lease) {
	s.mu.Lock()
	for i := range leases {
		s.giveBack(leases[i].Entry.ID, leases[i].Recipients, 0, true)
	}
	s.mu.Unlock()
	s.signal()
}

// Extend implements queue.Store.
func (s *Store) Extend(_ context.Context, l queue.Lease, until time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.x.ids[l.Entry.ID]
	if i == 0 {
		return fmt.Errorf("queue: extend %s: %w", l.Entry.ID, queue.ErrGone)
	}
	e := s.x.entries.at(i)
	now := s.o.Clock()
	end := s.x.clock.at(now) + int64(until.Sub(now))
	held := false
	for _, n := range l.Recipients {
		if uint32(n) >= e.count {
			continue
		}
		id := e.first + uint32(n)
		if r := s.x.rcpts.at(id); r.flags&flagLeased != 0 {
			held = true
			s.x.lease(id, end)
		}
	}
	if !held {
		return fmt.Errorf("queue: extend %s: the lease is lost", l.Entry.ID)
	}
	return nil
}
