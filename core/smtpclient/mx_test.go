package smtpclient

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/resolver"
	"github.com/postern-mail/postern/core/resolver/resolvertest"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

func zones(z resolvertest.Zones) func(*Options) {
	return func(o *Options) { o.Resolver = z }
}

// TestMXOrder: by preference; equals share the load; what refuses is passed over.
func TestMXOrder(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	z := resolvertest.Zones{
		"x.test":  {MX: []string{"20 b.test", "10 a1.test", "10 a2.test", "30 c.test"}},
		"a1.test": {Addrs: []string{"192.0.2.1"}}, "a2.test": {Addrs: []string{"192.0.2.2"}},
		"b.test": {Addrs: []string{"192.0.2.3", "2001:db8::3"}}, "c.test": {Addrs: []string{"192.0.2.4"}},
	}
	first := map[string]int{}
	for range 40 {
		r := newRig(t, map[string]string{"[2001:db8::3]:25": sink.Addr(), "192.0.2.4:25": sink.Addr()}, zones(z))
		res := r.one(toMX("x.test"))
		want(t, res, 250, "2.0.0")
		if res.Remote != "b.test" {
			t.Error(res.Remote)
		}
		d := r.dials()
		first[d[0]]++
		if len(d) != 4 || d[2] != "192.0.2.3:25" || d[3] != "[2001:db8::3]:25" {
			t.Errorf("%v", d)
		}
	}
	if first["192.0.2.1:25"] == 0 || first["192.0.2.2:25"] == 0 || len(first) != 2 {
		t.Errorf("equal preferences are not shuffled: %v", first)
	}
}

// TestDNSFailures: what the DNS says for good bounces, everything else waits.
func TestDNSFailures(t *testing.T) {
	z := resolvertest.Zones{
		"servfail.test":  {Err: resolver.ErrTemporary},
		"null.test":      {MX: []string{"0 ."}, Addrs: []string{"192.0.2.1"}},
		"implicit.test":  {Addrs: []string{"192.0.2.1"}},
		"nothing.test":   {PTR: []string{"x"}},
		"dangling.test":  {MX: []string{"10 gone.test"}, Addrs: []string{"192.0.2.1"}},
		"trouble.test":   {MX: []string{"10 servfail.test"}, Addrs: []string{"192.0.2.1"}},
		"half.test":      {MX: []string{"10 gone.test", "20 servfail.test"}},
		"self.test":      {MX: []string{"10 GW.example.org"}},
		"selfip.test":    {MX: []string{"10 selfhost.test"}},
		"selfhost.test":  {Addrs: []string{"192.0.2.99"}},
		"worse.test":     {MX: []string{"10 gw.example.org", "20 implicit.test"}},
		"better.test":    {MX: []string{"20 gw.example.org", "10 implicit.test"}},
		"betterip.test":  {MX: []string{"20 selfhost.test", "10 implicit.test"}},
		"sameip.test":    {MX: []string{"10 selfhost.test", "10 implicit.test"}},
		"gw.example.org": {Addrs: []string{"192.0.2.99"}},
	}
	sink := smtptest.New(t, smtptest.Options{})
	for _, c := range []struct {
		id, domain string
		code       int
		enhanced   string
	}{
		{"N-01", "servfail.test", 451, "4.4.3"},
		{"N-02", "nxdomain.test", 550, "5.1.2"},
		{"N-04", "null.test", 556, "5.1.10"},
		{"", "implicit.test", 250, "2.0.0"},
		{"", "nothing.test", 550, "5.4.4"},
		{"N-05", "dangling.test", 550, "5.4.4"},
		{"N-05", "trouble.test", 451, "4.4.3"},
		{"N-05", "half.test", 451, "4.4.3"},
		{"L-03", "self.test", 554, "5.4.6"},
		{"L-03", "selfip.test", 554, "5.4.6"},
		{"L-03", "worse.test", 554, "5.4.6"},
		{"L-03", "better.test", 250, "2.0.0"},
		{"L-03", "betterip.test", 250, "2.0.0"},
		{"L-03", "sameip.test", 554, "5.4.6"},
		{"L-03", "gw.example.org", 554, "5.4.6"},
	} {
		t.Run(c.id+" "+c.domain, func(t *testing.T) {
			r := newRig(t, map[string]string{"192.0.2.1:25": sink.Addr()}, func(o *Options) {
				o.Resolver = z
				o.OwnAddresses = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.99:25")}
			})
			want(t, r.one(toMX(c.domain)), c.code, c.enhanced)
			if len(r.dials()) > 0 && c.code != 250 {
				t.Error("dialled", r.dials())
			}
		})
	}
}

// TestN06PrivateAddresses: the DNS cannot send us into a private network, unless the admin
// allowed it; the configuration can.
func TestN06PrivateAddresses(t *testing.T) {
	for _, a := range []string{
		"127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "0.1.2.3", "::", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
		"100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fc00::1", "fd12::1", "ff02::1",
		"64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:a00:1::", "::127.0.0.1", "fec0::1", "198.18.0.1", "192.0.0.1", "2001::1", "100::1",
	} {
		z := resolvertest.Zones{"x.test": {MX: []string{"10 mx.test"}}, "mx.test": {Addrs: []string{a}}}
		r := newRig(t, map[string]string{}, zones(z))
		want(t, r.one(toMX("x.test")), 550, "5.4.4")
		want(t, r.one(toMX("mx.test")), 550, "5.4.4") // implicit MX
		if len(r.dials()) > 0 {
			t.Errorf("%s: dialled %v", a, r.dials())
		}
		lit := netip.MustParseAddr(a)
		if domain := "[" + a + "]"; lit.Is4() {
			want(t, r.one(toMX(domain)), 550, "5.4.4") // N-09
		}
	}
	for _, a := range []string{"192.0.2.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:4860::1", "64:ff9b::808:808", "2002:808:808::1"} {
		if !public(netip.MustParseAddr(a)) {
			t.Errorf("%s is refused", a)
		}
	}
	sink := smtptest.New(t, smtptest.Options{})
	z := resolvertest.Zones{"x.test": {MX: []string{"10 mx.test"}}, "mx.test": {Addrs: []string{"10.0.0.1"}}, "relay.test": {Addrs: []string{"10.0.0.1"}}}
	for _, match := range []string{"x.test", "mx.test", "*", "*.test"} {
		r := newRig(t, map[string]string{"10.0.0.1:25": sink.Addr()}, func(o *Options) {
			o.Resolver = z
			o.Destinations = []Destination{{Match: "other.test"}, {Match: match, AllowPrivate: true}}
		})
		want(t, r.one(toMX("x.test")), 250, "2.0.0")
	}
	r := newRig(t, map[string]string{"10.0.0.1:25": sink.Addr()}, zones(z))
	want(t, r.one(hops(t, "smtp://relay.test")), 250, "2.0.0")
	want(t, r.one(hops(t, "smtp://10.0.0.1")), 250, "2.0.0")
}

// rebinding gives another answer to every question.
type rebinding struct {
	resolvertest.Zones
	n int
}

func (r *rebinding) LookupAddrs(context.Context, string) ([]netip.Addr, error) {
	r.n++
	if r.n == 1 {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// TestN07Rebinding: what is dialled is the address that was checked.
func TestN07Rebinding(t *testing.T) {
	r := newRig(t, map[string]string{}, func(o *Options) {
		o.Resolver = &rebinding{Zones: resolvertest.Zones{"x.test": {MX: []string{"10 mx.test"}}}}
	})
	r.one(toMX("x.test"))
	if d := r.dials(); len(d) != 1 || d[0] != "192.0.2.1:25" {
		t.Errorf("%v", d)
	}
}

// TestN08Flood: 300 MX of 10 addresses each cost five connections.
func TestN08Flood(t *testing.T) {
	z := resolvertest.Zones{}
	var mx []string
	for i := range 300 {
		name := fmt.Sprintf("mx%d.test", i)
		mx = append(mx, fmt.Sprintf("%d %s", i, name))
		var addrs []string
		for k := range 10 {
			addrs = append(addrs, fmt.Sprintf("198.51.%d.%d", 100+i/256, (i*10+k)%256))
		}
		z[name] = resolvertest.Records{Addrs: addrs}
	}
	z["x.test"] = resolvertest.Records{MX: mx}
	for limit, n := range map[int]int{0: 5, 4: 4, 5: 5, 6: 6} {
		r := newRig(t, map[string]string{}, func(o *Options) { o.Resolver, o.MaxAddresses = z, limit })
		want(t, r.one(toMX("x.test")), 451, "4.4.1")
		if len(r.dials()) != n {
			t.Errorf("limit %d: %d dialled", limit, len(r.dials()))
		}
	}
}

// TestN16Failover: a dead, slow or closing first smarthost costs little, is passed over for
// a while, and is not needed to deliver once.
func TestN16Failover(t *testing.T) {
	for name, script := range map[string][2]string{"slow": {"BANNER", smtptest.Stall}, "421": {"BANNER", "421 4.3.2 busy"}, "4xx": {"BANNER", "450 busy"}, "5xx": {"BANNER", "554 no"}, "EHLO": {"EHLO", "451 no"}, "dead": {}} {
		first, second := smtptest.New(t, smtptest.Options{}), smtptest.New(t, smtptest.Options{})
		if name == "dead" {
			first.Close()
		} else {
			first.Always(script[0], script[1])
		}
		r := newRig(t, nil, func(o *Options) { o.Timeouts.Failover, o.Timeouts.Banner = 200*time.Millisecond, time.Hour })
		to := hops(t, "smtp://"+first.Addr(), "smtp://"+second.Addr())
		for range 3 {
			want(t, r.one(to), 250, "2.0.0")
		}
		if n := len(second.Messages()); n != 3 || len(first.Messages()) != 0 {
			t.Errorf("%s: %d delivered", name, n)
		}
		if d := r.dials(); d[0] != first.Addr() || slices.Contains(d[1:], first.Addr()) {
			t.Errorf("%s: dialled %v", name, d)
		}
	}
	// No fallback after an answer about the recipient.
	first, second := smtptest.New(t, smtptest.Options{}), smtptest.New(t, smtptest.Options{})
	first.Always("RCPT", "550 5.1.1 nobody")
	want(t, newRig(t, nil, nil).one(hops(t, "smtp://"+first.Addr(), "smtp://"+second.Addr())), 550, "5.1.1")
	if second.Connections() != 0 {
		t.Error("asked the second hop")
	}
}

// TestConfiguredHopNeverBounces: what is wrong with a hop of the configuration is for the
// admin to mend.
func TestConfiguredHopNeverBounces(t *testing.T) {
	z := resolvertest.Zones{"self.test": {Addrs: []string{"192.0.2.9"}}, "servfail.test": {Err: resolver.ErrTemporary}}
	r := newRig(t, map[string]string{}, func(o *Options) {
		o.Resolver = z
		o.OwnAddresses = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:25"), netip.MustParseAddrPort("0.0.0.0:2525")}
	})
	for hop, enhanced := range map[string]string{"smtp://gone.test": "4.4.3", "smtp://servfail.test": "4.4.3", "smtp://self.test": "4.4.6",
		"smtp://127.0.0.1:2525": "4.4.6", "smtp://192.0.2.1": "4.4.1", "maildir": "4.3.5"} {
		want(t, r.one(hops(t, hop)), 451, enhanced)
	}
	res := r.one(hops(t))
	want(t, res, 451, "4.3.5")
	if len(r.dials()) != 1 {
		t.Error(r.dials())
	}
}

func TestOptions(t *testing.T) {
	z := resolvertest.Zones{}
	for name, o := range map[string]Options{
		"no hostname": {Resolver: z}, "bad hostname": {Resolver: z, Hostname: "a b"}, "no resolver": {Hostname: "x.test"},
		"bad match": {Resolver: z, Hostname: "x.test", Destinations: []Destination{{Match: "a b"}}},
		"bad pin":   {Resolver: z, Hostname: "x.test", Destinations: []Destination{{Match: "*", Pin: "sha256:12"}}},
		"no ca":     {Resolver: z, Hostname: "x.test", Destinations: []Destination{{Match: "*", CAFile: "/does/not/exist"}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, c := range []struct {
		match, name string
		ok          bool
	}{
		{"x.test", "x.test", true}, {"x.test", "a.x.test", false}, {"*.x.test", "a.x.test", true}, {"*.x.test", "a.b.x.test", true},
		{"*.x.test", "x.test", false}, {"*.x.test", "ax.test", false}, {"*", "anything", true}, {"X.Test", "x.test", true},
		{"10.0.0.1", "10.0.0.1", true}, {"bücher.test", "xn--bcher-kva.test", true}, {"*.bücher.test", "a.xn--bcher-kva.test", true},
	} {
		r, err := makeRule(Destination{Match: c.match})
		if err != nil || r.matches(c.name) != c.ok {
			t.Errorf("%s %s: %v", c.match, c.name, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", Credentials{"u", "secret"}, Credentials{"u", "secret"}, Credentials{"u", "secret"}); strings.Contains(s, "secret") {
		t.Error(s)
	}
}
