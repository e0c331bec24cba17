package delivery

import (
	"sync"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// lane is a next hop for the mail of one class. What happens to one class there says nothing of
// the others: an archive may refuse what a server takes that has the same address.
type lane struct {
	class queue.Class
	key   string
}

func laneOf(l *queue.Lease) lane { return lane{l.Entry.Class, l.Destination} }

// destinations knows how each next hop fares: how many attempts it may have at once, and
// until when it is left alone. It keeps what is not in its normal state only.
type destinations struct {
	mu     sync.Mutex
	m      map[lane]*destination
	pruned time.Time
}

// destination is one lane. Its window grows with every success, as TCP's does, and
// falls back to one when the host cannot be reached (slow start after an outage, N-17).
type destination struct {
	inFlight int
	window   float64   // attempts at once; 0: not limited by experience yet
	failures int       // attempts in a row that did not reach it
	until    time.Time // left alone until then
}

const (
	initialWindow = 5
	firstPause    = 5 * time.Second
	longestPause  = 10 * time.Minute
	manyHops      = 1000 // from this many on, those that nothing is sent to are forgotten
)

// room returns how many more attempts key may have now.
func (d *destinations) room(key lane, limit int, now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.m[key]
	if s == nil {
		return min(limit, initialWindow)
	}
	if now.Before(s.until) {
		return 0
	}
	if s.window == 0 {
		return min(limit, initialWindow) - s.inFlight
	}
	return min(limit, int(s.window)) - s.inFlight
}

func (d *destinations) begin(key lane) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.m[key]
	if s == nil {
		s = &destination{window: initialWindow}
		d.m[key] = s
	}
	s.inFlight++
}

// end counts an attempt. reached says that the next hop was there and talked to us.
func (d *destinations) end(key lane, reached bool, limit int, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.m[key]
	if s == nil {
		return
	}
	s.inFlight--
	defer d.prune(now)
	if reached {
		s.failures, s.until = 0, time.Time{}
		s.window = min(s.window+1, float64(max(limit, 1)))
		if s.inFlight == 0 && s.window >= initialWindow && len(d.m) > manyHops {
			delete(d.m, key)
		}
		return
	}
	// Attempts that were under way together fail together: they count once.
	if now.Before(s.until) {
		return
	}
	s.window = 1
	if s.failures++; s.failures >= 2 {
		s.until = now.Add(min(firstPause<<min(s.failures-2, 10), longestPause))
	}
}

// prune forgets next hops whose pause ended long ago: who has senders in ten thousand domains
// without a server must not be able to slow down or fill the memory. The caller holds mu.
func (d *destinations) prune(now time.Time) {
	if len(d.m) <= manyHops || now.Sub(d.pruned) < time.Minute && !now.Before(d.pruned) {
		return
	}
	d.pruned = now
	for key, s := range d.m {
		if s.inFlight == 0 && now.Sub(s.until) > longestPause {
			delete(d.m, key)
		}
	}
}

// reopens returns how long until the first destination that is left alone may be tried
// again; 0 when there is none.
func (d *destinations) reopens(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	var first time.Duration
	for _, s := range d.m {
		if wait := s.until.Sub(now); wait > 0 && (first == 0 || wait < first) {
			first = wait
		}
	}
	return first
}

// reopen ends the pauses of some next hops: somebody knows that they may be there again. When
// they are not, the next pause is as long as it would have been.
func (d *destinations) reopen(keys []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range keys {
		for class := range queue.Class(queue.Classes) {
			if s := d.m[lane{class, key}]; s != nil {
				s.until = time.Time{}
			}
		}
	}
}

// unreached reports whether every recipient failed because the next hop was not there or
// did not want to talk: a network or routing status (RFC 3463 §3.5), or a 421.
func unreached(results []result) bool {
	for _, r := range results {
		if !r.Temporary() || r.Enhanced[1] != 4 && r.Code != 421 {
			return false
		}
	}
	return len(results) > 0
}
