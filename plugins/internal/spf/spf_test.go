package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// counted counts the queries that are made.
type counted struct {
	suiteZone
	n int
}

func (c *counted) LookupTXT(ctx context.Context, name string) ([]string, error) {
	c.n++
	return c.suiteZone.LookupTXT(ctx, name)
}

func (c *counted) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	c.n++
	return c.suiteZone.LookupMX(ctx, name)
}

func (c *counted) LookupAddr(ctx context.Context, name string) ([]string, error) {
	c.n++
	return c.suiteZone.LookupAddr(ctx, name)
}

func (c *counted) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	c.n++
	return c.suiteZone.LookupNetIP(ctx, network, name)
}

func txt(s string) map[string][]string { return map[string][]string{"TXT": {s}} }

func query(from string) Query {
	local, domain, _ := strings.Cut(from, "@")
	return Query{IP: netip.MustParseAddr("192.0.2.1"), Explain: true, Helo: "mail.example.org", Local: local, Domain: domain}
}

// M-10: a hostile policy is a permerror at its limit, one within it is not, and the queries
// are bounded.
func TestM10Limits(t *testing.T) {
	z := suiteZone{}
	for i := range 12 { // i10.test includes nine more, i11.test ten
		z[fmt.Sprintf("i%d.test", i)] = txt(fmt.Sprintf("v=spf1 include:i%d.test -all", i-1))
	}
	z["i0.test"] = txt("v=spf1 ip4:192.0.2.1 -all")
	for n := 1; n <= 3; n++ {
		var terms strings.Builder
		for i := range n {
			fmt.Fprintf(&terms, " a:void%d.test", i)
		}
		z[fmt.Sprintf("v%d.test", n)] = txt("v=spf1" + terms.String() + " ip4:192.0.2.1 -all")
	}
	for _, n := range []int{9, 10, 11, 20} {
		name := fmt.Sprintf("mx%d.test", n)
		rr := txt("v=spf1 mx -all")
		for i := range n {
			host := fmt.Sprintf("h%d.%s", i, name)
			rr["MX"] = append(rr["MX"], host)
			z[host] = map[string][]string{"A": {"198.51.100.1"}}
		}
		z[name] = rr
	}
	z["bomb.test"] = txt("v=spf1" + strings.Repeat(" exists:%{l}.%{i}.bomb.test", 400) + " -all")
	z["hit.test"] = txt("v=spf1" + strings.Repeat(" exists:%{i}.hit.test", 20) + " -all")
	z["expand.test"] = txt("v=spf1 exists:" + strings.Repeat("%{s}", 3000) + ".test -all")
	z["big.test"] = txt("v=spf1 " + strings.Repeat("ip4:198.51.100.1 ", 2000) + "-all")
	z["loop.test"] = txt("v=spf1 include:loop.test -all")
	z["redirect.test"] = txt("v=spf1 redirect=redirect.test")
	tests := []struct {
		domain  string
		want    Result
		queries int
	}{
		{"i9.test", Pass, 10}, {"i10.test", Pass, 11}, {"i11.test", PermError, 11},
		{"v1.test", Pass, 2}, {"v2.test", Pass, 3}, {"v3.test", PermError, 4},
		{"mx9.test", Fail, 11}, {"mx10.test", Fail, 12}, {"mx11.test", PermError, 2}, {"mx20.test", PermError, 2},
		{"bomb.test", PermError, 4}, {"hit.test", PermError, 11}, {"expand.test", PermError, 1}, {"big.test", PermError, 1},
		{"loop.test", PermError, 11}, {"redirect.test", PermError, 11},
	}
	z["1.2.0.192.hit.test"] = nil
	for _, tt := range tests {
		c := &counted{suiteZone: z}
		got := Check(t.Context(), c, query("joe"+strings.Repeat("x", 60)+"@"+tt.domain))
		if tt.domain == "hit.test" { // two voids come first
			tt.queries = 4
		}
		if got.Result != tt.want || c.n > tt.queries {
			t.Errorf("%s: %s (%v) after %d queries, want %s after %d", tt.domain, got.Result, got.Err, c.n, tt.want, tt.queries)
		}
	}
}

// The resolver's refusal is permanent, its failure is not.
func TestResolverErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Result
	}{
		{fmt.Errorf("wrapped: %w", ErrTooMuch), PermError},
		{&net.DNSError{Err: "server misbehaving"}, TempError},
		{fmt.Errorf("wrapped: %w", &net.DNSError{IsNotFound: true}), None},
		{context.DeadlineExceeded, TempError},
		{errors.New("anything"), TempError},
	} {
		if got := Check(t.Context(), failing{tt.err}, query("a@example.org")); got.Result != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got.Result, tt.want)
		}
	}
}

type failing struct{ err error }

func (f failing) LookupTXT(context.Context, string) ([]string, error)  { return nil, f.err }
func (f failing) LookupMX(context.Context, string) ([]*net.MX, error)  { return nil, f.err }
func (f failing) LookupAddr(context.Context, string) ([]string, error) { return nil, f.err }
func (f failing) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, f.err
}

// Odd identities have no policy and ask nothing.
func TestNoIdentity(t *testing.T) {
	for _, q := range []Query{
		{}, {IP: netip.MustParseAddr("192.0.2.1")}, query("a@localhost"), query("a@[192.0.2.1]"), query("a@a..b"), query("a@" + strings.Repeat("a.", 200) + "org"),
		{IP: netip.MustParseAddr("192.0.2.1"), Helo: "[192.0.2.1]"}, {IP: netip.MustParseAddr("::1"), Helo: "x"},
	} {
		c := &counted{suiteZone: suiteZone{}}
		if got := Check(t.Context(), c, q); got.Result != None || c.n != 0 || got.Err == nil {
			t.Errorf("%+v: %+v after %d queries", q, got, c.n)
		}
	}
	z := suiteZone{"mail.example.org": txt("v=spf1 ip4:192.0.2.1 -all")}
	got := Check(t.Context(), z, Query{IP: netip.MustParseAddr("::ffff:192.0.2.1"), Helo: "mail.example.org."})
	if got.Result != Pass || got.Domain != "mail.example.org" || got.Mechanism != "ip4:192.0.2.1" {
		t.Errorf("null reverse-path: %+v", got)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("v=spf1 a:%{ir}.%{l1r-}.example.org/24//64 mx ptr:%{d2} exists:%{p} ?include:b.test redirect=c.test exp=d.test", "a-b", "v=spf1 -all")
	f.Add("v=spf1 ip4:1.2.3.4/32 ip6:::1/128 %%%_%- a:x%{H}.org -all exp=%{s}.x", "\"", "%{c} %{R} %{t}")
	f.Fuzz(func(t *testing.T, policy, local, other string) {
		z := suiteZone{"example.org": txt(policy), "b.test": txt(other), "c.test": txt(other), "d.test": txt(other)}
		c := &counted{suiteZone: z}
		q := query("a@example.org")
		q.Local, q.Helo, q.Receiver, q.Explain = local, local, "mx.test", true
		got := Check(t.Context(), c, q)
		if c.n > 1+maxTerms*(1+maxMX)+1+maxNames+1 {
			t.Fatalf("%d queries", c.n)
		}
		if none := got.Result == None || got.Result == TempError || got.Result == PermError; none != (got.Err != nil) {
			t.Fatalf("%+v", got)
		}
		printable := func(s string) bool {
			return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
		}
		if x := got.Explanation; x != "" && (got.Result != Fail || len(x) > maxExpansion || printable(local) && !printable(x)) {
			t.Fatalf("%+v", got)
		}
		switch got.Result {
		case None, Neutral, Pass, Fail, SoftFail, TempError, PermError:
		default:
			t.Fatalf("result %q", got.Result)
		}
	})
}

// The grammar of RFC 7208 §7.1 as one expression agrees about what a macro-string is, and what
// one stands for is made of what it may be made of.
func FuzzMacro(f *testing.F) {
	for _, s := range []string{"%{ir}.%{v}._spf.%{d2}", "%%%_%-", "%{l1r+-_}x%{L}", "%{d0}", "%{d00}", "%{x}", "%{", "%", "a b", "%{c}%{R}%{T}", "%{s99999999999999999999}"} {
		f.Add(s, "joe+x-y.z")
	}
	grammar := regexp.MustCompile(`^(?:[!-$&-~]|%[%_-]|%\{[slodiphcrtvSLODIPHCRTV](?:0*[1-9][0-9]*)?[rR]?[-.+,/_=]*\})*$`)
	huge := regexp.MustCompile(`[0-9]{19}`)
	forAll := regexp.MustCompile(`%\{[crtCRT]`)
	f.Fuzz(func(t *testing.T, s, local string) {
		if huge.MatchString(s) {
			return
		}
		all := isMacroString(s, true)
		if want := grammar.MatchString(s); all != want || isMacroString(s, false) != (all && !forAll.MatchString(strings.ReplaceAll(s, "%%", ""))) {
			t.Fatalf("%q: %t, want %t", s, all, want)
		}
		if !all {
			return
		}
		e := &evaluation{ctx: t.Context(), r: suiteZone{}, q: query("a@example.org"), sender: "example.org"}
		e.q.Local, e.q.Helo = local, local
		out, err := e.expand(s, "example.org")
		if err != nil && !errors.Is(err, errPerm) || len(out) > maxExpansion {
			t.Fatalf("%q: %d bytes, %v", s, len(out), err)
		}
		if strings.ContainsAny(out, "\r\n\x00") && !strings.ContainsAny(local, "\r\n\x00") {
			t.Fatalf("%q became %q", s, out)
		}
		name, err := e.target(s, "example.org")
		if err == nil && (len(name) > 253 || !strings.HasSuffix(strings.TrimSuffix(out, "."), name)) {
			t.Fatalf("%q became %q and %q", s, out, name)
		}
	})
}
