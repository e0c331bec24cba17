package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// stub is a name server on the loopback interface, over UDP and TCP on one port.
type stub struct {
	addr    string
	queries atomic.Int32
	tcp     atomic.Int32
}

func newStub(t *testing.T, answer func(w dns.ResponseWriter, m *dns.Msg, q dns.Question)) *stub {
	t.Helper()
	s := &stub{}
	var pc net.PacketConn
	var l net.Listener
	for range 20 {
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		pc.Close()
	}
	if l == nil {
		t.Fatal("no port free for both UDP and TCP")
	}
	s.addr = pc.LocalAddr().String()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.queries.Add(1)
		if w.LocalAddr().Network() == "tcp" {
			s.tcp.Add(1)
		}
		m := new(dns.Msg)
		m.SetReply(q)
		answer(w, m, q.Question[0])
	})
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go srv.ActivateAndServe()
		<-started
		t.Cleanup(func() { srv.Shutdown() })
	}
	return s
}

// zone answers from records in master file form; unknown names do not exist.
func zone(t *testing.T, records ...string) func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
	var all []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	return func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
		known := false
		for _, rr := range all {
			if strings.EqualFold(rr.Header().Name, q.Name) {
				known = true
				if rr.Header().Rrtype == q.Qtype || rr.Header().Rrtype == dns.TypeCNAME {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		w.WriteMsg(m)
	}
}

func resolverFor(t *testing.T, edit func(*Options), servers ...*stub) *DNS {
	t.Helper()
	o := Options{Timeout: 300 * time.Millisecond, Hosts: filepath.Join(t.TempDir(), "hosts")}
	for _, s := range servers {
		o.Servers = append(o.Servers, s.addr)
	}
	if edit != nil {
		edit(&o)
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLookups(t *testing.T) {
	s := newStub(t, zone(t,
		"example.org. 60 MX 20 MX2.example.org.", "example.org. 60 MX 10 mx1.example.org.",
		"null.test. 60 MX 0 .",
		"mx1.example.org. 60 A 192.0.2.1", "mx1.example.org. 60 AAAA 2001:db8::1", "six.test. 60 AAAA 2001:db8::6",
		"1.2.0.192.in-addr.arpa. 60 PTR mx1.example.org.", "2.2.0.192.in-addr.arpa. 60 PTR mx1.example.org.",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 PTR mx1.example.org.",
		"www.test. 60 CNAME mx1.example.org.",
	))
	d := resolverFor(t, nil, s)
	ctx := t.Context()
	mx, err := d.LookupMX(ctx, "Example.ORG")
	if err != nil || !slices.Contains(mx, MX{"mx2.example.org", 20}) || !slices.Contains(mx, MX{"mx1.example.org", 10}) || len(mx) != 2 {
		t.Error(mx, err)
	}
	if mx, err := d.LookupMX(ctx, "null.test."); err != nil || mx[0] != (MX{".", 0}) {
		t.Error(mx, err)
	}
	for name, want := range map[string]string{"mx1.example.org": "[192.0.2.1 2001:db8::1]", "six.test": "[2001:db8::6]", "www.test": "[192.0.2.1 2001:db8::1]",
		"192.0.2.7": "[192.0.2.7]", "localhost": "[127.0.0.1 ::1]", "x.localhost": "[127.0.0.1 ::1]"} {
		if addrs, err := d.LookupAddrs(ctx, name); err != nil || fmt.Sprint(addrs) != want {
			t.Error(name, addrs, err)
		}
	}
	for addr, want := range map[string]string{"192.0.2.1": "mx1.example.org", "::ffff:192.0.2.1": "mx1.example.org", "2001:db8::1": "mx1.example.org"} {
		if name, verified, err := d.LookupPTR(ctx, netip.MustParseAddr(addr)); err != nil || name != want || !verified {
			t.Error(addr, name, verified, err)
		}
	}
	if name, verified, err := d.LookupPTR(ctx, netip.MustParseAddr("192.0.2.2")); err != nil || name != "mx1.example.org" || verified {
		t.Error("a name that does not lead back:", name, verified, err)
	}
	if name, _, err := d.LookupPTR(ctx, netip.MustParseAddr("192.0.2.3")); !errors.Is(err, ErrNotFound) || name != "" {
		t.Error("none:", name, err)
	}
	for name, kind := range map[string]error{"gone.test": ErrNotFound, "mx1.example.org": ErrNoData, strings.Repeat("x", 64) + ".test": ErrNotFound, "": ErrNotFound} {
		if mx, err := d.LookupMX(ctx, name); !errors.Is(err, kind) {
			t.Error(name, mx, err)
		}
	}
	if _, err := d.LookupAddrs(ctx, "example.org"); !errors.Is(err, ErrNoData) {
		t.Error(err)
	}
}

// TestH05NamesOfHosts: what leads back to an address is its name only if it can be a host's.
func TestH05NamesOfHosts(t *testing.T) {
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 61)+".", 4), ".") + ".test"
	records := []string{"good.test. 60 A 192.0.2.100", "9.2.0.192.in-addr.arpa. 60 PTR other.test.", "9.2.0.192.in-addr.arpa. 60 PTR Good.test."}
	bad := []string{`evil\010x.test.`, `a\013\010Received:\032x.test.`, `b\252cher.test.`, `a\046b.test.`, "a_b.test.", `a\(b.test.`, "192.0.2.8.", "-a.test.", "."}
	for i, name := range bad {
		records = append(records, fmt.Sprintf("%d.2.0.192.in-addr.arpa. 60 PTR %s", 10+i, name), fmt.Sprintf("%s 60 A 192.0.2.%d", name, 10+i))
		// Any number of them is no obstacle to one that is good.
		records = append(records, "100.2.0.192.in-addr.arpa. 60 PTR "+name, name+" 60 A 192.0.2.100")
	}
	records = append(records, "100.2.0.192.in-addr.arpa. 60 PTR good.test.", "good.test. 60 A 192.0.2.9",
		"8.2.0.192.in-addr.arpa. 60 PTR 192.0.2.8.", "101.2.0.192.in-addr.arpa. 60 PTR "+long+".", long+". 60 A 192.0.2.101")
	d := resolverFor(t, nil, newStub(t, zone(t, records...)))
	for _, last := range []int{9, 100} {
		if name, verified, err := d.LookupPTR(t.Context(), netip.AddrFrom4([4]byte{192, 0, 2, byte(last)})); err != nil || name != "good.test" || !verified {
			t.Error(last, name, verified, err)
		}
	}
	if name, verified, err := d.LookupPTR(t.Context(), netip.MustParseAddr("192.0.2.101")); err != nil || name != long || !verified {
		t.Error(len(long), name, verified, err)
	}
	for _, last := range []int{8, 10, 11, 12, 13, 14, 15, 16, 17, 18} {
		if name, _, err := d.LookupPTR(t.Context(), netip.AddrFrom4([4]byte{192, 0, 2, byte(last)})); !errors.Is(err, ErrNotFound) || name != "" {
			t.Error(last, name, err)
		}
	}
}

// TestUnverifiedNames: without one that leads back the first of the names that a host can have is
// the name; one of which the DNS cannot say whether it leads back says nothing of the others.
func TestUnverifiedNames(t *testing.T) {
	answer := zone(t, "7.2.0.192.in-addr.arpa. 60 PTR a_b.test.", "7.2.0.192.in-addr.arpa. 60 PTR First.test.", "7.2.0.192.in-addr.arpa. 60 PTR second.test.", "second.test. 60 A 192.0.2.1",
		"8.2.0.192.in-addr.arpa. 60 PTR first.test.", "8.2.0.192.in-addr.arpa. 60 PTR broken.test.",
		"9.2.0.192.in-addr.arpa. 60 PTR broken.test.", "9.2.0.192.in-addr.arpa. 60 PTR nine.test.", "nine.test. 60 A 192.0.2.9")
	d := resolverFor(t, func(o *Options) { o.Attempts = 1 }, newStub(t, func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
		if q.Name == "broken.test." {
			m.Rcode = dns.RcodeServerFailure
			w.WriteMsg(m)
			return
		}
		answer(w, m, q)
	}))
	for addr, want := range map[string]struct {
		name     string
		verified bool
		err      error
	}{"192.0.2.7": {"first.test", false, nil}, "192.0.2.8": {"", false, ErrTemporary}, "192.0.2.9": {"nine.test", true, nil}} {
		if name, verified, err := d.LookupPTR(t.Context(), netip.MustParseAddr(addr)); name != want.name || verified != want.verified || !errors.Is(err, want.err) {
			t.Errorf("%s: %q %t %v, want %v", addr, name, verified, err, want)
		}
	}
}

// TestN01TemporaryFailures: nothing of this may ever bounce a mail.
func TestN01TemporaryFailures(t *testing.T) {
	rcode := func(code int) func(dns.ResponseWriter, *dns.Msg, dns.Question) {
		return func(w dns.ResponseWriter, m *dns.Msg, _ dns.Question) { m.Rcode = code; w.WriteMsg(m) }
	}
	for name, answer := range map[string]func(dns.ResponseWriter, *dns.Msg, dns.Question){
		"SERVFAIL": rcode(dns.RcodeServerFailure), "REFUSED": rcode(dns.RcodeRefused), "NOTIMP": rcode(dns.RcodeNotImplemented), "FORMERR": rcode(dns.RcodeFormatError),
		"silence":    func(dns.ResponseWriter, *dns.Msg, dns.Question) {},
		"garbage":    func(w dns.ResponseWriter, _ *dns.Msg, _ dns.Question) { w.Write([]byte("garbage")) },
		"another id": func(w dns.ResponseWriter, m *dns.Msg, _ dns.Question) { m.Id++; w.WriteMsg(m) },
		"another question": func(w dns.ResponseWriter, m *dns.Msg, _ dns.Question) {
			m.Question[0].Name = "other.test."
			w.WriteMsg(m)
		},
		"no response flag": func(w dns.ResponseWriter, m *dns.Msg, _ dns.Question) { m.Response = false; w.WriteMsg(m) },
		"always truncated": func(w dns.ResponseWriter, m *dns.Msg, _ dns.Question) { m.Truncated = true; w.WriteMsg(m) },
	} {
		s := newStub(t, answer)
		d := resolverFor(t, func(o *Options) { o.Attempts = 1 }, s)
		if _, err := d.LookupMX(t.Context(), "x.test"); !errors.Is(err, ErrTemporary) {
			t.Errorf("%s: MX %v", name, err)
		}
		if _, err := d.LookupAddrs(t.Context(), "x.test"); !errors.Is(err, ErrTemporary) {
			t.Errorf("%s: A %v", name, err)
		}
		if _, _, err := d.LookupPTR(t.Context(), netip.MustParseAddr("192.0.2.1")); !errors.Is(err, ErrTemporary) {
			t.Errorf("%s: PTR %v", name, err)
		}
	}
	// The next server is asked, and the list once more.
	bad, good := newStub(t, rcode(dns.RcodeServerFailure)), newStub(t, zone(t, "x.test. 60 MX 10 mx.test."))
	if mx, err := resolverFor(t, nil, bad, good).LookupMX(t.Context(), "x.test"); err != nil || len(mx) != 1 {
		t.Error(mx, err)
	}
	d := resolverFor(t, func(o *Options) { o.Attempts = 3 }, bad)
	before := bad.queries.Load()
	d.LookupMX(t.Context(), "y.test")
	if n := bad.queries.Load() - before; n != 3 {
		t.Errorf("%d questions", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := resolverFor(t, nil, good).LookupMX(ctx, "z.test"); !errors.Is(err, ErrTemporary) {
		t.Error(err)
	}
}

// TestOneFamilyIsEnough: an answer of one family stands though the other's question failed.
func TestOneFamilyIsEnough(t *testing.T) {
	s := newStub(t, func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
		if q.Qtype == dns.TypeAAAA {
			m.Rcode = dns.RcodeServerFailure
		} else if rr, _ := dns.NewRR(q.Name + " 60 A 192.0.2.1"); strings.HasPrefix(q.Name, "has") {
			m.Answer = []dns.RR{rr}
		}
		w.WriteMsg(m)
	})
	d := resolverFor(t, func(o *Options) { o.Attempts = 1 }, s)
	if a, err := d.LookupAddrs(t.Context(), "has.test"); err != nil || len(a) != 1 {
		t.Error(a, err)
	}
	if _, err := d.LookupAddrs(t.Context(), "none.test"); !errors.Is(err, ErrTemporary) {
		t.Error(err)
	}
}

func TestTruncatedGoesToTCP(t *testing.T) {
	var records []string
	for i := range 200 {
		records = append(records, fmt.Sprintf("x.test. 60 MX %d mx%d.a-rather-long-name-for-a-host.test.", i, i))
	}
	full := zone(t, records...)
	s := newStub(t, func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
		if w.LocalAddr().Network() == "udp" {
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		full(w, m, q)
	})
	mx, err := resolverFor(t, func(o *Options) { o.Timeout = 5 * time.Second }, s).LookupMX(t.Context(), "x.test")
	if err != nil || len(mx) != 200 || s.tcp.Load() != 1 {
		t.Error(len(mx), err)
	}
}

// TestN03Chains: CNAMEs are followed so far and no further, in one answer or in many.
func TestN03Chains(t *testing.T) {
	chain := func(n int) []string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("c%d.test. 60 CNAME c%d.test.", i, i+1))
		}
		return append(list, fmt.Sprintf("c%d.test. 60 A 192.0.2.1", n))
	}
	whole := func(n int) func(dns.ResponseWriter, *dns.Msg, dns.Question) {
		return func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
			if q.Qtype == dns.TypeA {
				for _, r := range chain(n) {
					rr, _ := dns.NewRR(r)
					m.Answer = append(m.Answer, rr)
				}
			}
			w.WriteMsg(m)
		}
	}
	for n, ok := range map[int]bool{1: true, maxChain: true, maxChain + 1: false, 20: false} {
		if a, err := resolverFor(t, nil, newStub(t, whole(n))).LookupAddrs(t.Context(), "c0.test"); (err == nil) != ok || !ok && !errors.Is(err, ErrTemporary) {
			t.Errorf("%d in one answer: %v %v", n, a, err)
		}
	}
	for n, ok := range map[int]bool{1: true, maxChain - 1: true, maxChain: false, 20: false} {
		s := newStub(t, zone(t, chain(n)...))
		if a, err := resolverFor(t, nil, s).LookupAddrs(t.Context(), "c0.test"); (err == nil) != ok || !ok && !errors.Is(err, ErrTemporary) {
			t.Errorf("%d in many answers: %v %v", n, a, err)
		}
		if q := s.queries.Load(); q > 2*maxChain {
			t.Errorf("%d questions", q)
		}
	}
	loop := newStub(t, zone(t, "a.test. 60 CNAME b.test.", "b.test. 60 CNAME a.test."))
	if _, err := resolverFor(t, nil, loop).LookupAddrs(t.Context(), "a.test"); !errors.Is(err, ErrTemporary) {
		t.Error(err)
	}
}

func TestCache(t *testing.T) {
	s := newStub(t, func(w dns.ResponseWriter, m *dns.Msg, q dns.Question) {
		soa, _ := dns.NewRR("test. 900 SOA ns.test. h.test. 1 1 1 1 60")
		switch name, _, _ := strings.Cut(q.Name, "."); name {
		case "gone":
			m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa}
		case "nosoa":
			m.Rcode = dns.RcodeNameError
		case "fail":
			m.Rcode = dns.RcodeServerFailure
		default:
			rr, _ := dns.NewRR(q.Name + " 30 MX 10 mx.test.")
			m.Answer, m.AuthenticatedData = []dns.RR{rr}, name == "signed"
		}
		w.WriteMsg(m)
	})
	now := time.Now()
	d := resolverFor(t, func(o *Options) {
		o.Now, o.Attempts, o.CacheSize = func() time.Time { return now }, 1, 10
	}, s)
	asked := func(name string) int32 {
		before := s.queries.Load()
		d.LookupMX(t.Context(), name)
		return s.queries.Load() - before
	}
	for _, c := range []struct {
		name string
		wait time.Duration
		want int32
	}{
		{"x.test", 0, 1}, {"X.test.", 29 * time.Second, 0}, {"x.test", time.Second, 1},
		{"gone.test", 0, 1}, {"gone.test", 59 * time.Second, 0}, {"gone.test", time.Second, 1},
		{"nosoa.test", 0, 1}, {"nosoa.test", 0, 1}, {"fail.test", 0, 1}, {"fail.test", 0, 1},
	} {
		now = now.Add(c.wait)
		if n := asked(c.name); n != c.want {
			t.Errorf("%s after %s: %d questions", c.name, c.wait, n)
		}
	}
	for i := range 50 {
		asked(fmt.Sprintf("x%d.test", i))
	}
	if n := len(d.cache.m); n != 10 {
		t.Errorf("%d answers kept", n)
	}
	for name, want := range map[string]bool{"signed.test": true, "unsigned.test": false} {
		for range 2 { // the second time from the cache
			if ans, err := d.Query(t.Context(), name, dns.TypeMX); err != nil || ans.Authentic != want {
				t.Errorf("%s: %v %v", name, ans.Authentic, err)
			}
		}
	}
}

func TestSystemFiles(t *testing.T) {
	s := newStub(t, zone(t, "x.test. 60 A 192.0.2.1"))
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	text := "# a comment\n127.0.0.1 localhost\n2001:db8::5 Lmtp.local lmtp # both\n10.0.0.5 lmtp.local\nnonsense x\n10.0.0.6\n"
	if err := os.WriteFile(hosts, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := resolverFor(t, func(o *Options) { o.Hosts = hosts }, s)
	for name, want := range map[string]string{"lmtp.local": "[10.0.0.5 2001:db8::5]", "LMTP.": "[2001:db8::5]", "localhost": "[127.0.0.1]", "x.test": "[192.0.2.1]"} {
		if a, err := d.LookupAddrs(t.Context(), name); err != nil || fmt.Sprint(a) != want {
			t.Error(name, a, err)
		}
	}
	conf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("# c\nsearch x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\noptions timeout:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &resolvFile{path: conf}
	if got := fmt.Sprint(f.servers()); got != "[192.0.2.53:53 [fe80::1%eth0]:53]" {
		t.Error(got)
	}
	if got := fmt.Sprint((&resolvFile{path: filepath.Join(dir, "none")}).servers()); got != "[127.0.0.1:53]" {
		t.Error(got)
	}
	for server, ok := range map[string]bool{"192.0.2.1:5353": true, "192.0.2.1": true, "2001:db8::1": true, "[2001:db8::1]:53": true, "ns.test:53": true, "ns.test": false, ":53": false, "x:": false} {
		if _, err := New(Options{Servers: []string{server}}); (err == nil) != ok {
			t.Errorf("%q: %v", server, err)
		}
	}
}
