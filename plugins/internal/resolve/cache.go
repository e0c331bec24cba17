package resolve

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of the cache.
const (
	maxAnswers  = 4096
	maxAnswer   = 4 << 10 // bytes; longer ones are asked for again
	maxTTL      = 5 * time.Minute
	maxNegative = time.Minute // of "there is none" (RFC 2308)
)

type question struct {
	name  string
	qtype uint16
}

type cached struct {
	records []dns.RR
	absent  bool
	until   time.Time
}

// cache keeps answers for as long as they say, and not for long. A nil cache keeps nothing.
type cache struct {
	now func() time.Time
	mu  sync.Mutex
	m   map[question]cached
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, m: make(map[question]cached)}
}

func (c *cache) get(q question) (records []dns.RR, absent, ok bool) {
	if c == nil {
		return nil, false, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.m[q]
	if !ok || !c.now().Before(a.until) {
		return nil, false, false
	}
	return a.records, a.absent, true
}

func (c *cache) put(q question, r *dns.Msg) {
	if c == nil || r.Len() > maxAnswer {
		return
	}
	ttl := lifetime(r)
	if ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= maxAnswers {
		c.evict()
	}
	c.m[q] = cached{r.Answer, r.Rcode == dns.RcodeNameError, c.now().Add(ttl)}
}

// evict makes room: what is over, else some, as they come.
func (c *cache) evict() {
	now := c.now()
	for q, a := range c.m {
		if !now.Before(a.until) {
			delete(c.m, q)
		}
	}
	for q := range c.m {
		if len(c.m) <= maxAnswers*7/8 {
			return
		}
		delete(c.m, q)
	}
}

// lifetime is how long an answer is good for: that of its shortest record, or what the zone
// says of names that are not there.
func lifetime(r *dns.Msg) time.Duration {
	ttl := maxTTL
	for _, rr := range r.Answer {
		ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if r.Rcode == dns.RcodeSuccess && len(r.Answer) > 0 {
		return ttl
	}
	for _, rr := range r.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(ttl, maxNegative, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second)
		}
	}
	return 0
}
