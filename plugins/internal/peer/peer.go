// Package peer has what filters ask about the client of a message: which network it is from,
// whether it is in one that the settings name, and what its name is.
//
// An IPv4 address in its IPv6 form is that IPv4 address everywhere. It keeps nothing, and asks
// the DNS only for a name, a bounded number of times.
package peer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Addr is a client's address, invalid for mail that no client brought.
func Addr(c *mail.Client) netip.Addr { return c.Addr.Unmap().WithZone("") }

// Network is where an address is from: its /24, or /64 of IPv6. Large senders try again from
// another address of it.
func Network(a netip.Addr) netip.Prefix {
	bits := 24
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// Networks are networks that the settings name.
type Networks []netip.Prefix

// Contains reports whether an address, as [Addr] returns it, is in one of them.
func (n Networks) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) })
}

var errNetwork = errors.New(`is not a network; write it as in "192.0.2.0/24"`)

// ParseNetwork parses a network, or an address. What an IPv4 network is in its IPv6 form is
// the IPv4 network.
func ParseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errNetwork
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errNetwork
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errNetwork
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Resolver finds the names of clients. Errors that are a *net.DNSError with IsNotFound say
// that there is nothing to be found.
type Resolver interface {
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// MaxNames of a client are looked at: with each, the DNS is asked once more.
const MaxNames = 5

// Why a client has no name. Other errors say that the DNS did not tell.
var (
	ErrNoName  = errors.New("it has no name")
	ErrNotBack = errors.New("its name does not lead back to it")
)

// Name is the first name of a client that leads back to it (RFC 8601 §3), without a dot at the
// end: any other could be anybody's. If suits is given only names count for which it is true.
func Name(ctx context.Context, r Resolver, c *mail.Client, suits func(name string) bool) (string, error) {
	addr := Addr(c)
	if c.Host != "" && (suits == nil || suits(c.Host)) { // the gateway has looked
		return c.Host, nil
	}
	names, err := r.LookupAddr(ctx, addr.String())
	if len(names) == 0 {
		if err == nil || absent(err) {
			err = ErrNoName
		}
		return "", err
	}
	network := "ip6"
	if addr.Is4() {
		network = "ip4"
	}
	failed := ErrNotBack
	for _, n := range names[:min(len(names), MaxNames)] {
		n = strings.TrimSuffix(n, ".")
		if suits != nil && !suits(n) {
			continue
		}
		addrs, err := r.LookupNetIP(ctx, network, n)
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr }) {
			return n, nil
		}
		if err != nil && !absent(err) {
			failed = err
		}
	}
	return "", failed
}

func absent(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}
