// Package once helps mailboxes to store a delivery once: nobody else tries the same key at
// the same time, and what was stored of late is remembered, so that a delivery that comes
// again because its answer got lost is known, wherever the message is by now. What it
// remembers is bounded and gone with the process: that is no guarantee, but a mailbox that
// also looks for the message needs less luck. It is safe for concurrent use.
package once

import (
	"context"
	"hash/maphash"
	"sync"
)

// Keys are the deliveries of a mailbox plugin, by whatever names them.
type Keys struct {
	max  int
	seed maphash.Seed

	mu     sync.Mutex
	busy   map[string]chan struct{} // closed when the attempt is over
	stored map[uint64]struct{}
	order  []uint64 // of stored, a ring
	oldest int
}

// New returns Keys that remember at most max deliveries.
func New(max int) *Keys {
	return &Keys{max: max, seed: maphash.MakeSeed(), busy: make(map[string]chan struct{}), stored: make(map[uint64]struct{})}
}

// Claim waits until nobody else tries the key. The caller then does, until it calls release.
func (k *Keys) Claim(ctx context.Context, key string) (release func(), err error) {
	for {
		k.mu.Lock()
		other, taken := k.busy[key]
		if !taken {
			mine := make(chan struct{})
			k.busy[key] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				delete(k.busy, key)
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Remember notes that a key is stored. The oldest goes first.
func (k *Keys) Remember(key string) {
	h := maphash.String(k.seed, key)
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.stored[h]; ok {
		return
	}
	if len(k.order) < k.max {
		k.order = append(k.order, h)
	} else {
		delete(k.stored, k.order[k.oldest])
		k.order[k.oldest] = h
		k.oldest = (k.oldest + 1) % k.max
	}
	k.stored[h] = struct{}{}
}

// Remembered reports whether a key is known to be stored.
func (k *Keys) Remembered(key string) bool {
	h := maphash.String(k.seed, key)
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.stored[h]
	return ok
}
