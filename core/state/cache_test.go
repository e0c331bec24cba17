package state

import (
	"net/netip"
	"testing"
)

func TestCacheBound(t *testing.T) {
	const limit = 3
	for _, n := range []int{limit - 1, limit, limit + 1} {
		c := NewCache[int, string](limit)
		for i := range n {
			c.Set(i, "v")
		}
		if c.Len() != min(n, limit) {
			t.Errorf("%d entries set: %d kept", n, c.Len())
		}
		if _, ok := c.Get(0); ok != (n <= limit) {
			t.Errorf("%d entries set: the first is kept: %v", n, ok)
		}
	}
}

func TestCacheForgetsLongestUnused(t *testing.T) {
	c := NewCache[string, int](2)
	c.Set("a", 1)
	c.Set("b", 2)
	c.Get("a")
	c.Set("c", 3)
	if _, ok := c.Get("b"); ok {
		t.Error("b is kept although a was used later")
	}
	if v, _ := c.Get("a"); v != 1 {
		t.Errorf("a is %d", v)
	}
	c.Update("a", func(v *int) { *v += 10 })
	if v, _ := c.Get("a"); v != 11 {
		t.Errorf("a is %d after the update", v)
	}
	c.Delete("a")
	c.Delete("never there")
	if _, ok := c.Get("a"); ok || c.Len() != 1 {
		t.Errorf("a is there after Delete, %d entries", c.Len())
	}
}

func TestC12ClientKey(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"192.0.2.1", "192.0.2.1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"},
		{"2001:db8:1:3::", "2001:db8:1:3::"},
		{"fe80::1%eth0", "fe80::"},
		{"::1", "::"},
	} {
		if got := ClientKey(netip.MustParseAddr(c.addr)); got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.addr, got, c.want)
		}
	}
	if ClientKey(netip.Addr{}).IsValid() {
		t.Error("no address has a key")
	}
}
