package state

import "net/netip"

// ClientKey is the unit in which clients are counted: an IPv4 address, or an IPv6 /64,
// since whoever has one address of a /64 has all of them. IPv4 addresses in IPv6 form are
// the IPv4 address.
func ClientKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
