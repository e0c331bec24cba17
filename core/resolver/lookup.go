package resolver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// plain is a name of an answer as this package gives it.
func plain(name string) string {
	if name == "." {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// LookupMX implements Resolver.
func (d *DNS) LookupMX(ctx context.Context, domain string) ([]MX, error) {
	ans, err := d.Query(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	out := make([]MX, 0, len(ans.Records))
	for _, rr := range ans.Records {
		mx := rr.(*dns.MX)
		out = append(out, MX{plain(mx.Mx), mx.Preference})
	}
	return out, nil
}

// LookupAddrs implements Resolver. One family is enough: where the other one's question
// failed, the answer is what there is.
func (d *DNS) LookupAddrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil && !bogus(a) {
		return []netip.Addr{a}, nil
	}
	if addrs := d.hosts.lookup(plain(host)); len(addrs) > 0 {
		return addrs, nil
	}
	if h := plain(host); h == "localhost" || strings.HasSuffix(h, ".localhost") {
		// RFC 6761 §6.3: never asked in the DNS.
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	type result struct {
		ans Answer
		err error
	}
	six := make(chan result, 1)
	go func() {
		ans, err := d.Query(ctx, host, dns.TypeAAAA)
		six <- result{ans, err}
	}()
	four, err4 := d.Query(ctx, host, dns.TypeA)
	r6 := <-six
	var out []netip.Addr
	for _, rr := range slices.Concat(four.Records, r6.ans.Records) {
		var a netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			a, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(rr.AAAA.To16())
		}
		if !bogus(a) {
			out = append(out, a)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case errors.Is(err4, ErrTemporary) || err4 == nil:
		if err4 == nil {
			err4 = &Error{host, "A", ErrTemporary, "malformed address"}
		}
		return nil, err4
	case errors.Is(r6.err, ErrTemporary):
		return nil, r6.err
	}
	return nil, err4
}

// IsHostName reports whether a name, in lower case, can be that of a host (RFC 1123 §2.1). The DNS
// may have anything under an address: line ends, blanks, a name that is an address itself.
func IsHostName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	last := ""
	for last = range strings.SplitSeq(name, ".") {
		if last == "" || len(last) > 63 || last[0] == '-' || last[len(last)-1] == '-' {
			return false
		}
		for _, c := range []byte(last) {
			if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	return strings.Trim(last, "0123456789") != ""
}

// LookupPTR implements Resolver.
func (d *DNS) LookupPTR(ctx context.Context, addr netip.Addr) (name string, verified bool, err error) {
	rev, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return "", false, &Error{addr.String(), "PTR", ErrNotFound, "not an address"}
	}
	ans, err := d.Query(ctx, rev, dns.TypePTR)
	if errors.Is(err, ErrNoData) {
		return "", false, &Error{addr.String(), "PTR", ErrNotFound, ""}
	}
	if err != nil {
		return "", false, err
	}
	var temporary error
	asked := 0
	for _, rr := range ans.Records {
		n := plain(rr.(*dns.PTR).Ptr)
		if !IsHostName(n) {
			continue
		}
		if asked++; asked > maxNames {
			break
		}
		if name == "" {
			name = n
		}
		addrs, err := d.LookupAddrs(ctx, n)
		if err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr.Unmap().WithZone("") }) {
			return n, true, nil
		}
		if errors.Is(err, ErrTemporary) {
			temporary = err
		}
	}
	switch {
	case temporary != nil:
		return "", false, temporary
	case name == "":
		return "", false, &Error{addr.String(), "PTR", ErrNotFound, "its name is not that of a host"}
	}
	return name, false, nil
}
