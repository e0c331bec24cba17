package resolver

import (
	"sync"
	"time"
)

// Lifetimes beyond these are cut, so that a mistake in a zone heals.
const (
	maxTTL         = time.Hour
	maxNegativeTTL = 5 * time.Minute
)

type cacheKey struct {
	name  string
	qtype uint16
}

type cacheEntry struct {
	ans     Answer
	err     error
	expires time.Time
}

// cache keeps answers for their lifetime, up to a number of them; beyond it any goes.
type cache struct {
	mu  sync.Mutex
	max int
	now func() time.Time
	m   map[cacheKey]cacheEntry
}

func newCache(max int, now func() time.Time) *cache {
	return &cache{max: max, now: now, m: make(map[cacheKey]cacheEntry)}
}

func (c *cache) get(k cacheKey) (Answer, error, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[k]
	if !ok {
		return Answer{}, nil, false
	}
	if !c.now().Before(e.expires) {
		delete(c.m, k)
		return Answer{}, nil, false
	}
	return e.ans, e.err, true
}

// put stores an answer, or the error that says what is not there, for ttl seconds.
func (c *cache) put(k cacheKey, ans Answer, err error, ttl uint32) {
	life := min(time.Duration(ttl)*time.Second, maxTTL)
	if err != nil {
		life = min(life, maxNegativeTTL)
	}
	if life <= 0 || c.max <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for old := range c.m {
		if len(c.m) < c.max {
			break
		}
		delete(c.m, old) // map order is random enough
	}
	c.m[k] = cacheEntry{ans, err, c.now().Add(life)}
}
