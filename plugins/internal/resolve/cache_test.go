package resolve

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// countingServer answers and counts.
func countingServer(t *testing.T, answer func(r *dns.Msg, q dns.Question)) (string, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	started := make(chan struct{})
	s := &dns.Server{Addr: "127.0.0.1:0", Net: "udp", NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		n.Add(1)
		r := new(dns.Msg).SetReply(q)
		answer(r, q.Question[0])
		w.WriteMsg(r)
	})}
	go s.ListenAndServe()
	<-started
	t.Cleanup(func() { s.Shutdown() })
	return s.PacketConn.LocalAddr().String(), n
}

func rr(t *testing.T, format string, args ...any) dns.RR {
	r, err := dns.NewRR(fmt.Sprintf(format, args...))
	if err != nil {
		t.Error(err)
	}
	return r
}

// Answers are kept for their lifetime and not longer than the cache's own; failures are not.
func TestCache(t *testing.T) {
	addr, n := countingServer(t, func(r *dns.Msg, q dns.Question) {
		soa := rr(t, "test. 600 IN SOA a. b. 1 2 3 4 30")
		switch q.Name {
		case "short.test.", "SHORT.test.":
			r.Answer = append(r.Answer, rr(t, "%s 600 IN TXT a", q.Name), rr(t, "%s 10 IN TXT b", q.Name))
		case "long.test.":
			r.Answer = append(r.Answer, rr(t, "%s 86400 IN TXT a", q.Name))
		case "zero.test.":
			r.Answer = append(r.Answer, rr(t, "%s 0 IN TXT a", q.Name))
		case "none.test.":
			r.Ns = append(r.Ns, soa)
		case "absent.test.":
			r.Rcode = dns.RcodeNameError
			r.Ns = append(r.Ns, soa)
		case "nosoa.test.":
			r.Rcode = dns.RcodeNameError
		default:
			r.Rcode = dns.RcodeServerFailure
		}
	})
	now := time.Unix(1779321600, 0)
	for name, good := range map[string]time.Duration{"short.test": 10 * time.Second, "SHORT.test": 10 * time.Second, "long.test.": maxTTL, "none.test": 30 * time.Second, "absent.test": 30 * time.Second, "zero.test": 0, "nosoa.test": 0, "broken.test": 0} {
		d := New([]string{addr})
		d.cache = newCache(func() time.Time { return now })
		first, ferr := d.LookupTXT(t.Context(), name)
		for _, after := range []time.Duration{0, max(good-1, 0), good} {
			start := now
			before := n.Load()
			now = now.Add(after)
			got, err := d.LookupTXT(t.Context(), name)
			now = start
			if fmt.Sprint(got, err) != fmt.Sprint(first, ferr) {
				t.Errorf("%s after %s: %v %v, was %v %v", name, after, got, err, first, ferr)
			}
			if asked := n.Load() != before; asked != (after >= good) {
				t.Errorf("%s after %s: asked %v", name, after, asked)
			}
		}
	}
	d := New([]string{addr}) // no cache
	for range 3 {
		before := n.Load()
		if _, err := d.LookupTXT(t.Context(), "long.test"); err != nil || n.Load() != before+1 {
			t.Errorf("without a cache: %v", err)
		}
	}
}

// However many names are asked for, the cache does not grow beyond its bound.
func TestCacheBound(t *testing.T) {
	c := newCache(time.Now)
	for i := range 3 * maxAnswers {
		r := &dns.Msg{Answer: []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Ttl: 300}, Txt: []string{"x"}}}}
		c.put(question{fmt.Sprint(i), dns.TypeTXT}, r)
		if len(c.m) > maxAnswers {
			t.Fatalf("%d answers", len(c.m))
		}
	}
	big := &dns.Msg{}
	for range 100 {
		big.Answer = append(big.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "x.", Ttl: 300}, Txt: []string{"0123456789012345678901234567890123456789"}})
	}
	c.put(question{"big", dns.TypeTXT}, big)
	if _, _, ok := c.get(question{"big", dns.TypeTXT}); ok {
		t.Error("a huge answer is kept")
	}
}

// The server that answers is asked first from then on.
func TestRemembersServer(t *testing.T) {
	bad, asked := countingServer(t, func(r *dns.Msg, _ dns.Question) { r.Rcode = dns.RcodeRefused })
	good, _ := countingServer(t, func(r *dns.Msg, q dns.Question) { r.Answer = append(r.Answer, rr(t, "%s 60 IN TXT a", q.Name)) })
	d := New([]string{bad, good})
	for range 3 {
		if txt, err := d.LookupTXT(t.Context(), "x.test"); err != nil || len(txt) != 1 {
			t.Errorf("%q, %v", txt, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the server that refuses was asked %d times", n)
	}
}
