package smtpclient

import (
	"sync"
	"time"
)

// What is remembered of endpoints, and for how long.
const (
	maxHints     = 10000
	failedFor    = time.Minute // tried after the others
	lockstepFor  = time.Hour   // spoken to without pipelining
	lockstepText = "pipelining seems broken, retrying without"
)

// hints remembers which endpoints failed lately or cannot pipeline. Forgetting does no
// harm, so it is bounded and not durable.
type hints struct {
	mu     sync.Mutex
	failed map[endpoint]time.Time
	slow   map[endpoint]time.Time
}

func newHints() *hints {
	return &hints{failed: make(map[endpoint]time.Time), slow: make(map[endpoint]time.Time)}
}

func (h *hints) set(m map[endpoint]time.Time, e endpoint, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for old := range m {
		if len(m) < maxHints {
			break
		}
		delete(m, old)
	}
	m[e] = time.Now().Add(d)
}

func (h *hints) has(m map[endpoint]time.Time, e endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, ok := m[e]
	if ok && time.Now().After(until) {
		delete(m, e)
		return false
	}
	return ok
}

// fail notes that e could not be talked to, well that it could.
func (h *hints) fail(e endpoint)              { h.set(h.failed, e, failedFor) }
func (h *hints) failedLately(e endpoint) bool { return h.has(h.failed, e) }

func (h *hints) well(e endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.failed, e)
}

// noPipelining notes that e mixes up pipelined commands.
func (h *hints) noPipelining(e endpoint)  { h.set(h.slow, e, lockstepFor) }
func (h *hints) lockstep(e endpoint) bool { return h.has(h.slow, e) }
