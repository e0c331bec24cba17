package dnsbl

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fakeDNS is a name server of the test's. Names have no final dot and are in lower case.
type fakeDNS struct {
	addr string

	mu    sync.Mutex
	a     map[string][]string
	txt   map[string]string
	ptr   map[string]string
	ttl   uint32
	dead  map[string]bool // zones that get no answer
	fails map[string]bool // zones that get SERVFAIL
	asked map[string]int  // "A name"
	block chan struct{}   // answers wait for it, if there is one
	held  chan struct{}   // says that one waits
}

func newDNS(t *testing.T) *fakeDNS {
	t.Helper()
	f := &fakeDNS{a: map[string][]string{}, txt: map[string]string{}, ptr: map[string]string{}, ttl: 300, dead: map[string]bool{}, fails: map[string]bool{}, asked: map[string]int{}, held: make(chan struct{}, 100)}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = conn.LocalAddr().String()
	server := &dns.Server{PacketConn: conn, Handler: f}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go server.ActivateAndServe()
	<-started
	t.Cleanup(func() { server.Shutdown() })
	return f
}

// list makes the zone of a list that passes the tests, with entries.
func (f *fakeDNS) list(zone string, entries map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.a["2.0.0.127."+zone], f.a["test."+zone] = []string{"127.0.0.2"}, []string{"127.0.0.2"}
	for name, answers := range entries {
		if a, err := netip.ParseAddr(name); err == nil {
			name = reversed(a)
		}
		f.a[name+"."+zone] = strings.Fields(answers)
	}
}

func (f *fakeDNS) set(fn func()) { f.mu.Lock(); defer f.mu.Unlock(); fn() }

func (f *fakeDNS) times(question string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[question]
}

func in(zones map[string]bool, name string) bool {
	for zone, yes := range zones {
		if yes && (name == zone || strings.HasSuffix(name, "."+zone)) {
			return true
		}
	}
	return false
}

func (f *fakeDNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
	qtype := q.Question[0].Qtype
	f.mu.Lock()
	f.asked[dns.TypeToString[qtype]+" "+name]++
	dead, fails, block := in(f.dead, name), in(f.fails, name), f.block
	m := new(dns.Msg).SetReply(q)
	hdr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: qtype, Class: dns.ClassINET, Ttl: f.ttl}
	switch qtype {
	case dns.TypeA:
		for _, a := range f.a[name] {
			m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: net.ParseIP(a)})
		}
	case dns.TypeTXT:
		if t, ok := f.txt[name]; ok {
			var parts []string
			for ; len(t) > 255; t = t[255:] {
				parts = append(parts, t[:255])
			}
			m.Answer = append(m.Answer, &dns.TXT{Hdr: hdr, Txt: append(parts, t)})
		}
	case dns.TypePTR:
		if t, ok := f.ptr[name]; ok {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(t)})
		}
	}
	f.mu.Unlock()
	if block != nil {
		f.held <- struct{}{}
		<-block
	}
	if len(m.Answer) == 0 {
		m.Rcode = dns.RcodeNameError
		m.Ns = append(m.Ns, &dns.SOA{Hdr: dns.RR_Header{Name: hdr.Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300}, Ns: "ns.", Mbox: "m.", Minttl: 120})
	}
	if fails {
		m.Rcode, m.Answer, m.Ns = dns.RcodeServerFailure, nil, nil
	}
	if !dead {
		w.WriteMsg(m)
	}
}

// clock is the time of a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time      { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) pass(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }
