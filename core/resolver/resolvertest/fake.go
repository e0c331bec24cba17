// Package resolvertest is a DNS for tests: a map literal.
//
//	resolvertest.Zones{
//		"example.org":    {MX: []string{"10 mx.example.org"}},
//		"mx.example.org": {Addrs: []string{"192.0.2.1", "2001:db8::1"}},
//		"192.0.2.1":      {PTR: []string{"mx.example.org"}},
//		"null.example":   {MX: []string{"0 ."}},
//		"broken.example": {Err: resolver.ErrTemporary},
//	}
//
// A name that is not in the map does not exist; one without the records asked for has no
// data. Keys are lower case. Zones only read the map: safe for concurrent use while
// nobody changes it.
package resolvertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-mail/postern/core/resolver"
)

// Zones is what the fake knows, by name, or by address for PTR.
type Zones map[string]Records

// Records are those of one name. Err answers every question about it.
type Records struct {
	MX    []string // "10 mx.example.org"
	Addrs []string
	PTR   []string
	Err   error
}

var _ resolver.Resolver = Zones{}

func (z Zones) find(name, typ string, pick func(Records) []string) ([]string, error) {
	key := strings.ToLower(name)
	if key != "." {
		key = strings.TrimSuffix(key, ".")
	}
	r, ok := z[key]
	values := pick(r)
	switch {
	case !ok:
		return nil, &resolver.Error{Name: name, Type: typ, Kind: resolver.ErrNotFound}
	case r.Err != nil:
		return nil, &resolver.Error{Name: name, Type: typ, Kind: r.Err}
	case len(values) == 0:
		return nil, &resolver.Error{Name: name, Type: typ, Kind: resolver.ErrNoData}
	}
	return values, nil
}

// LookupMX implements resolver.Resolver.
func (z Zones) LookupMX(_ context.Context, domain string) ([]resolver.MX, error) {
	values, err := z.find(domain, "MX", func(r Records) []string { return r.MX })
	var out []resolver.MX
	for _, v := range values {
		var mx resolver.MX
		if _, err := fmt.Sscanf(v, "%d %s", &mx.Preference, &mx.Host); err != nil {
			panic("resolvertest: not an MX: " + v)
		}
		out = append(out, mx)
	}
	return out, err
}

// LookupAddrs implements resolver.Resolver.
func (z Zones) LookupAddrs(_ context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	values, err := z.find(host, "A", func(r Records) []string { return r.Addrs })
	var out []netip.Addr
	for _, v := range values {
		out = append(out, netip.MustParseAddr(v))
	}
	return out, err
}

// LookupPTR implements resolver.Resolver.
func (z Zones) LookupPTR(ctx context.Context, addr netip.Addr) (name string, verified bool, err error) {
	names, err := z.find(addr.String(), "PTR", func(r Records) []string { return r.PTR })
	for _, n := range names {
		if !resolver.IsHostName(n) {
			continue
		}
		if addrs, _ := z.LookupAddrs(ctx, n); slices.Contains(addrs, addr) {
			return n, true, nil
		}
		if name == "" {
			name = n
		}
	}
	if err == nil && name == "" {
		err = &resolver.Error{Name: addr.String(), Type: "PTR", Kind: resolver.ErrNotFound}
	}
	return name, false, err
}
