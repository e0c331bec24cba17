package policy

import (
	"net/netip"
	"time"

	"github.com/postern-mail/postern/core/state"
)

// trackedClients bounds the clients that are counted, for each kind of count.
const trackedClients = 1 << 16

// counters are what a reload keeps.
type counters struct {
	messages   *rate
	recipients *rate
}

func newCounters() *counters { return &counters{newRate(), newRate()} }

// ClientLimits returns the limits for a client.
func (p *Policy) ClientLimits(a netip.Addr) Limits {
	limits, bits := p.Limits, -1
	a = a.Unmap().WithZone("")
	for _, n := range p.Networks {
		for _, prefix := range n.Networks {
			if prefix.Bits() > bits && prefix.Contains(a) {
				limits, bits = n.Limits, prefix.Bits()
			}
		}
	}
	if limits.Recipients <= 0 {
		limits.Recipients = 1000
	}
	return limits
}

// rate counts events of clients in a window that slides: the count of the last full
// window fades out as the present one goes on.
type rate struct {
	clients *state.Cache[netip.Addr, window]
}

type window struct {
	start        time.Time
	now, earlier int // events in this window and in the one before
}

func newRate() *rate { return &rate{state.NewCache[netip.Addr, window](trackedClients)} }

// take counts one event and reports whether it is within limit events in length. What is
// refused is not counted: a client that slows down gets through.
func (r *rate) take(client netip.Addr, limit int, length time.Duration, now time.Time) bool {
	if limit <= 0 || !client.IsValid() {
		return true
	}
	ok := false
	r.clients.Update(client, func(w *window) {
		switch since := now.Sub(w.start); {
		case w.start.IsZero(), since >= 2*length, since < 0: // also a clock that was set back
			*w = window{start: now}
		case since >= length:
			*w = window{start: w.start.Add(length), earlier: w.now}
		}
		left := float64(length-now.Sub(w.start)) / float64(length)
		if ok = float64(w.now)+float64(w.earlier)*left+1 <= float64(limit); ok {
			w.now++
		}
	})
	return ok
}
