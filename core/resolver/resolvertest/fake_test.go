package resolvertest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/postern-mail/postern/core/resolver"
)

func TestZones(t *testing.T) {
	z := Zones{
		"example.org":    {MX: []string{"10 mx.example.org", "0 ."}},
		"mx.example.org": {Addrs: []string{"192.0.2.1"}},
		"192.0.2.1":      {PTR: []string{"other.example", "mx.example.org"}},
		"192.0.2.2":      {PTR: []string{"mx.example.org"}},
		"broken.example": {Err: resolver.ErrTemporary},
	}
	ctx := t.Context()
	if mx, err := z.LookupMX(ctx, "Example.org."); err != nil || len(mx) != 2 || mx[0] != (resolver.MX{Host: "mx.example.org", Preference: 10}) || mx[1].Host != "." {
		t.Error(mx, err)
	}
	if a, err := z.LookupAddrs(ctx, "mx.example.org"); err != nil || a[0] != netip.MustParseAddr("192.0.2.1") {
		t.Error(a, err)
	}
	for a, want := range map[string]bool{"192.0.2.1": true, "192.0.2.2": false} {
		if n, verified, err := z.LookupPTR(ctx, netip.MustParseAddr(a)); err != nil || n != "mx.example.org" || verified != want {
			t.Error(a, n, verified, err)
		}
	}
	for name, want := range map[string]error{"none.example": resolver.ErrNotFound, "mx.example.org": resolver.ErrNoData, "broken.example": resolver.ErrTemporary} {
		if _, err := z.LookupMX(ctx, name); !errors.Is(err, want) {
			t.Error(name, err)
		}
	}
	if n, _, err := z.LookupPTR(ctx, netip.MustParseAddr("192.0.2.3")); !errors.Is(err, resolver.ErrNotFound) {
		t.Error(n, err)
	}
}
