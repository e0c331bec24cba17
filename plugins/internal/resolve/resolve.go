// Package resolve asks the DNS for plugins.
//
// A Resolver asks the servers that the gateway names ([sdk.Config].DNSServers), or the
// system's: the DNS and nothing else, so that what is in /etc/hosts, where this host's own
// names are, decides about nobody's mail. Names are always complete: no search list is ever
// tried. Errors are *net.DNSError, not wrapped, because libraries tell "no such name" from
// "ask again later" by that type. It is safe for concurrent use. It keeps nothing, unless it
// is told to: then answers for as long as they are good, in bounded memory.
package resolve

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Resolver is the part of a resolver that plugins use. [net.Resolver] has the same methods.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// DNS is a Resolver that asks name servers.
type DNS struct {
	servers func() []string
	first   atomic.Uint32 // the server that answered last
	cache   *cache        // nil: none
}

// New returns a resolver that asks servers ("host:port") in turn, or the system's if there
// are none.
func New(servers []string) *DNS {
	if len(servers) == 0 {
		return &DNS{servers: sync.OnceValue(System)}
	}
	return &DNS{servers: func() []string { return servers }}
}

// NewCaching is New with a memory for answers. It is for what is asked again and again, and
// may be some minutes old.
func NewCaching(servers []string) *DNS {
	d := New(servers)
	d.cache = newCache(time.Now)
	return d
}

// System are the system's servers, "host:port".
func System() []string {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(conf.Servers) == 0 {
		return []string{"127.0.0.1:53"} // as the C library does
	}
	var out []string
	for _, s := range conf.Servers {
		out = append(out, net.JoinHostPort(s, conf.Port))
	}
	return out
}

// LookupTXT implements Resolver.
func (d *DNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return lookup(ctx, d, name, dns.TypeTXT, func(rr *dns.TXT) (string, bool) { return Text(rr), true })
}

// LookupMX implements Resolver.
func (d *DNS) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	out, err := lookup(ctx, d, name, dns.TypeMX, func(rr *dns.MX) (*net.MX, bool) { return &net.MX{Host: rr.Mx, Pref: rr.Preference}, true })
	slices.SortStableFunc(out, func(a, b *net.MX) int { return int(a.Pref) - int(b.Pref) })
	return out, err
}

// LookupAddr implements Resolver.
func (d *DNS) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, notFound(addr)
	}
	return lookup(ctx, d, name, dns.TypePTR, func(rr *dns.PTR) (string, bool) { return rr.Ptr, true })
}

// LookupNetIP implements Resolver; network is "ip", "ip4" or "ip6". With "ip" the addresses of
// one family are enough.
func (d *DNS) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	var out []netip.Addr
	failed := error(notFound(host))
	if network != "ip6" {
		addrs, err := lookup(ctx, d, host, dns.TypeA, func(rr *dns.A) (netip.Addr, bool) { return netip.AddrFromSlice(rr.A.To4()) })
		out, failed = addrs, err
	}
	if network != "ip4" {
		addrs, err := lookup(ctx, d, host, dns.TypeAAAA, func(rr *dns.AAAA) (netip.Addr, bool) { return netip.AddrFromSlice(rr.AAAA.To16()) })
		out = append(out, addrs...)
		if e, ok := failed.(*net.DNSError); ok && e.IsNotFound { // the other one's failure says more
			failed = err
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, failed
}

// LookupIPAddr implements Resolver.
func (d *DNS) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	addrs, err := d.LookupNetIP(ctx, "ip", host)
	var out []net.IPAddr
	for _, a := range addrs {
		out = append(out, net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()})
	}
	return out, err
}

// Exists reports whether a name exists: the servers do not say NXDOMAIN (RFC 8020). An error
// is a *net.DNSError and temporary.
func (d *DNS) Exists(ctx context.Context, name string) (bool, error) {
	_, err := d.query(ctx, name, dns.TypeA)
	if e, ok := err.(*net.DNSError); ok && e.IsNotFound {
		return false, nil
	}
	return err == nil, err
}

// lookup asks for records of a type. That there are none is an error.
func lookup[R dns.RR, T any](ctx context.Context, d *DNS, name string, qtype uint16, value func(R) (T, bool)) ([]T, error) {
	records, err := d.query(ctx, name, qtype)
	if err != nil {
		return nil, err
	}
	var out []T
	for _, rr := range records {
		if r, ok := rr.(R); ok { // others are aliases on the way to it
			if v, ok := value(r); ok {
				out = append(out, v)
			}
		}
	}
	if len(out) == 0 {
		return nil, notFound(name)
	}
	return out, nil
}

func notFound(name string) *net.DNSError {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}
