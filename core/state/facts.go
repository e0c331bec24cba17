package state

import (
	"bytes"
	"strconv"
	"sync"
	"time"
)

// Facts are small values with a lifetime, of several owners: greylists, counts, answers.
// Each owner has room for so many bytes; when that is used up, his longest unused facts
// go first. Nothing is durable. It is safe for concurrent use.
type Facts struct {
	clock func() time.Time
	room  int

	mu     sync.Mutex
	owners map[string]*owned
}

// owned is what one owner has.
type owned struct {
	facts *Cache[string, fact]
	size  int
}

type fact struct {
	value []byte
	until time.Time // zero: no limit
}

const (
	factOverhead = 200      // bytes a fact takes beside key and value, about
	maxFacts     = 1 << 20  // of one owner; the room ends sooner
	maxFactValue = 64 << 10 // bytes; larger ones are not kept
)

// NewFacts gives every owner room for so many bytes.
func NewFacts(room int, clock func() time.Time) *Facts {
	return &Facts{clock: clock, room: room, owners: make(map[string]*owned)}
}

func (f *Facts) of(owner string) *owned {
	o := f.owners[owner]
	if o == nil {
		o = &owned{facts: NewCache[string, fact](maxFacts)}
		f.owners[owner] = o
	}
	return o
}

// get is Get under the lock.
func (f *Facts) get(o *owned, key string) ([]byte, bool) {
	v, ok := o.facts.Get(key)
	if ok && !v.until.IsZero() && !f.clock().Before(v.until) {
		o.forget(key)
		return nil, false
	}
	return v.value, ok
}

// put is Put under the lock.
func (f *Facts) put(o *owned, key string, value []byte, until time.Time) {
	o.forget(key)
	if value == nil || len(value) > maxFactValue {
		return
	}
	o.facts.Set(key, fact{bytes.Clone(value), until})
	o.size += len(key) + len(value) + factOverhead
	for o.size > f.room {
		oldest, v, ok := o.facts.Oldest()
		if !ok {
			return
		}
		o.facts.Delete(oldest)
		o.size -= len(oldest) + len(v.value) + factOverhead
	}
}

func (o *owned) forget(key string) {
	if v, ok := o.facts.Get(key); ok {
		o.facts.Delete(key)
		o.size -= len(key) + len(v.value) + factOverhead
	}
}

func (f *Facts) until(lifetime time.Duration) time.Time {
	if lifetime <= 0 {
		return time.Time{}
	}
	return f.clock().Add(lifetime)
}

// Get returns a fact. The value must not be changed.
func (f *Facts) Get(owner, key string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.get(f.of(owner), key)
}

// Put writes a fact for a lifetime (0: as long as there is room); a nil value removes it.
func (f *Facts) Put(owner, key string, value []byte, lifetime time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(f.of(owner), key, value, f.until(lifetime))
}

// CompareAndSwap is Put if the fact is what old says (nil: if there is none), and returns
// whether it was.
func (f *Facts) CompareAndSwap(owner, key string, old, value []byte, lifetime time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.of(owner)
	now, ok := f.get(o, key)
	if ok != (old != nil) || ok && !bytes.Equal(now, old) {
		return false
	}
	f.put(o, key, value, f.until(lifetime))
	return true
}

// Count adds to a number, which a fact keeps in decimal, and returns the sum. It begins
// again when the lifetime has passed since the first count. What is no number counts as 0.
func (f *Facts) Count(owner, key string, delta int64, lifetime time.Duration) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.of(owner)
	now, ok := f.get(o, key)
	until := f.until(lifetime)
	if v, there := o.facts.Get(key); ok && there {
		until = v.until
	}
	sum, _ := strconv.ParseInt(string(now), 10, 64)
	sum += delta
	f.put(o, key, strconv.AppendInt(nil, sum, 10), until)
	return sum
}
