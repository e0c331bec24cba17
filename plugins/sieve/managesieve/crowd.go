package managesieve

import (
	"net/netip"
	"sync"
)

// crowd counts who is there, in all and of each client.
type crowd struct {
	most, mostEach int

	mu   sync.Mutex
	all  int
	each map[netip.Prefix]int
}

// enter reports whether there is room in all and for one more of the client. If there is both,
// it counts.
func (c *crowd) enter(client netip.Prefix) (room, roomEach bool) {
	return c.squeeze(client, c.most)
}

// squeeze is enter with another limit in all.
func (c *crowd) squeeze(client netip.Prefix, most int) (room, roomEach bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, roomEach = c.all < most, c.each[client] < c.mostEach
	if room && roomEach {
		if c.each == nil {
			c.each = make(map[netip.Prefix]int)
		}
		c.all++
		c.each[client]++
	}
	return room, roomEach
}

func (c *crowd) leave(client netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.each[client]--; c.each[client] == 0 {
		delete(c.each, client)
	}
}

// clientOf is what counts as one client: an address, of IPv6 a /64, which is one customer.
func clientOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
