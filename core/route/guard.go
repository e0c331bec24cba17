package route

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ExpandOwn adds, for unspecified addresses (listeners on all interfaces), the addresses
// that this host has now.
func ExpandOwn(own []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, ap := range own {
		addr := ap.Addr().Unmap()
		out = append(out, netip.AddrPortFrom(addr, ap.Port()))
		if !addr.IsUnspecified() {
			continue
		}
		for _, a := range localAddrs() {
			out = append(out, netip.AddrPortFrom(a, ap.Port()))
		}
	}
	return out
}

// IsOwn reports whether ap leads to one of own, a list made by [ExpandOwn].
func IsOwn(own []netip.AddrPort, ap netip.AddrPort) bool {
	addr := ap.Addr().Unmap()
	return slices.ContainsFunc(own, func(o netip.AddrPort) bool {
		return o.Port() == ap.Port() && (o.Addr() == addr || o.Addr().IsUnspecified() && (addr.IsLoopback() || addr.IsUnspecified()))
	})
}

// localAddrs are the addresses of this host. The loopback addresses are among them also
// where the interfaces cannot be listed.
func localAddrs() []netip.Addr {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	ifs, err := net.InterfaceAddrs()
	if err != nil {
		return addrs
	}
	for _, i := range ifs {
		if n, ok := i.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok && !slices.Contains(addrs, a.Unmap()) {
				addrs = append(addrs, a.Unmap())
			}
		}
	}
	return addrs
}

// guard finds hops that are ourselves: mail for them would loop (L-03).
type guard struct {
	host string
	own  []netip.AddrPort
}

var errLoop = errors.New("is one of our own listeners: mail would loop")

func (g guard) check(h Hop) error {
	if h.Scheme == SchemeMailbox || strings.HasPrefix(h.Address, "unix:") {
		return nil
	}
	host, portText, err := net.SplitHostPort(h.Address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if IsOwn(g.own, netip.AddrPortFrom(addr, uint16(port))) {
			return errLoop
		}
		return nil
	}
	for _, own := range g.own {
		local := own.Addr().IsLoopback() || own.Addr().IsUnspecified()
		if own.Port() == uint16(port) && (host == "localhost" && local || host == g.host && g.host != "") {
			return errLoop
		}
	}
	return nil
}
