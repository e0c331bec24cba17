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
	messages   *state.Rate[netip.Addr]
	recipients *state.Rate[netip.Addr]
}

func newCounters() *counters {
	return &counters{state.NewRate[netip.Addr](trackedClients), state.NewRate[netip.Addr](trackedClients)}
}

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

// within counts an event of a client and reports whether it is within limit events in length.
func within(r *state.Rate[netip.Addr], client netip.Addr, limit int, length time.Duration, now time.Time) bool {
	return !client.IsValid() || r.Take(client, limit, length, now)
}
