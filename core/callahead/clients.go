package callahead

import (
	"net/netip"
	"time"

	"github.com/postern-mail/postern/core/state"
)

// clientKey is what is counted as one client.
type clientKey = netip.Addr

// count is of addresses that were asked for a client and are not known to exist, from start
// on.
type count struct {
	start time.Time
	n     int
}

// take counts an address for a client and reports whether it is within the limit of the
// hour. One that turns out to exist, or of which nothing turns out, is given back.
func (k *Knowledge) take(client netip.Addr, limit int) (ok bool) {
	now := k.o.Clock()
	k.asked.Update(state.ClientKey(client), func(c *count) {
		if since := now.Sub(c.start); since >= time.Hour || since < 0 {
			*c = count{start: now}
		}
		if ok = c.n < limit; ok {
			c.n++
		}
	})
	return ok
}

func (k *Knowledge) giveBack(client netip.Addr) {
	k.asked.Update(state.ClientKey(client), func(c *count) { c.n = max(c.n-1, 0) })
}
