package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"
	"github.com/miekg/dns"
)

func TestNames(t *testing.T) {
	server, err := mockdns.NewServer(map[string]mockdns.Zone{
		"example.org.":            {A: []string{"192.0.2.1"}, TXT: []string{"v=spf1 -all"}, MX: []net.MX{{Host: "mx.example.org.", Pref: 5}}},
		"1.2.0.192.in-addr.arpa.": {PTR: []string{"example.org."}},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d := New([]string{server.LocalAddr().String()})
	ctx := context.Background()
	if txt, err := d.LookupTXT(ctx, "example.org"); err != nil || len(txt) != 1 || txt[0] != "v=spf1 -all" {
		t.Errorf("TXT: %q, %v", txt, err)
	}
	if mx, err := d.LookupMX(ctx, "example.org"); err != nil || len(mx) != 1 || mx[0].Host != "mx.example.org." {
		t.Errorf("MX: %v, %v", mx, err)
	}
	if ips, err := d.LookupNetIP(ctx, "ip4", "example.org."); err != nil || len(ips) != 1 || ips[0].String() != "192.0.2.1" {
		t.Errorf("A: %v, %v", ips, err)
	}
	_, err = d.LookupTXT(ctx, "absent.example.org")
	if dns, ok := errors.AsType[*net.DNSError](err); !ok || !dns.IsNotFound {
		t.Errorf("an absent name: %v", err)
	}
}

// TestNextServer: a server that nobody listens on is passed over.
func TestNextServer(t *testing.T) {
	server, err := mockdns.NewServer(map[string]mockdns.Zone{"example.org.": {TXT: []string{"x"}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	d := New([]string{gone.LocalAddr().String(), server.LocalAddr().String()})
	if txt, err := d.LookupTXT(context.Background(), "example.org"); err != nil || len(txt) != 1 {
		t.Errorf("%q, %v", txt, err)
	}
}

// TestExists tells a name without addresses from one that is not there.
func TestExists(t *testing.T) {
	server, err := mockdns.NewServer(map[string]mockdns.Zone{
		"example.org.": {TXT: []string{"x"}},
		"broken.org.":  {Err: errors.New("SERVFAIL")},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	d := New([]string{gone.LocalAddr().String(), server.LocalAddr().String()})
	for name, want := range map[string]bool{"example.org": true, "EXAMPLE.org.": true, "absent.example.org": false} {
		if got, err := d.Exists(t.Context(), name); got != want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := d.Exists(t.Context(), "broken.org"); err == nil {
		t.Error("a server that fails says nothing")
	} else if dns, ok := errors.AsType[*net.DNSError](err); !ok || !dns.IsTemporary {
		t.Errorf("%v", err)
	}
}

// TestAddresses: only the DNS is asked, and a failure is not an absence.
func TestAddresses(t *testing.T) {
	many := mockdns.Zone{}
	for i := range 200 { // do not fit into a datagram
		many.A = append(many.A, fmt.Sprintf("192.0.2.%d", i))
	}
	server, err := mockdns.NewServer(map[string]mockdns.Zone{
		"both.test.":              {A: []string{"192.0.2.1"}, AAAA: []string{"2001:db8::1"}},
		"alias.test.":             {CNAME: "both.test."},
		"many.test.":              many,
		"none.test.":              {TXT: []string{"x"}},
		"broken.test.":            {Err: errors.New("SERVFAIL")},
		"1.0.0.127.in-addr.arpa.": {PTR: []string{"a.test.", "b.test."}},
		"2.0.0.127.in-addr.arpa.": {TXT: []string{"x"}},
		"3.0.0.127.in-addr.arpa.": {Err: errors.New("SERVFAIL")},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d := New([]string{server.LocalAddr().String()})
	kind := func(err error) string {
		dns, ok := err.(*net.DNSError) // not wrapped
		switch {
		case err == nil:
			return ""
		case ok && dns.IsNotFound:
			return "absent"
		case ok && dns.Temporary():
			return "temporary"
		}
		return "other"
	}
	for q, want := range map[string]string{
		"ip both.test": "2", "ip4 both.test": "1", "ip6 both.test.": "1", "ip4 alias.test": "1", "ip4 many.test": "200", "ip 192.0.2.7": "1",
		"ip none.test": "0absent", "ip4 absent.test": "0absent", "ip broken.test": "0temporary", "ip localhost": "0absent",
	} {
		network, host, _ := strings.Cut(q, " ")
		addrs, err := d.LookupNetIP(t.Context(), network, host)
		if got := fmt.Sprint(len(addrs), kind(err)); strings.ReplaceAll(got, " ", "") != want {
			t.Errorf("%s: %s", q, got)
		}
	}
	if ips, err := d.LookupIPAddr(t.Context(), "both.test"); err != nil || len(ips) != 2 {
		t.Errorf("%v, %v", ips, err)
	}
	for addr, want := range map[string]string{"127.0.0.1": "2", "127.0.0.2": "0absent", "127.0.0.3": "0temporary", "127.0.0.4": "0absent", "::1": "0absent", "x": "0absent"} {
		names, err := d.LookupAddr(t.Context(), addr)
		if got := fmt.Sprint(len(names), kind(err)); strings.ReplaceAll(got, " ", "") != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.LookupNetIP(ctx, "ip", "both.test"); kind(err) != "temporary" {
		t.Errorf("%v", err)
	}
}

// TestText: texts are the bytes that the zone has, whatever they are.
func TestText(t *testing.T) {
	for _, want := range []string{"", `v=DKIM1; n="a \ b"; p=x`, `\`, `\065`, "Käse\x00\xff\r\n", strings.Repeat(`"`, 255)} {
		spelled := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\x00", `\000`, "\xff", `\255`, "\r", `\013`, "\n", `\010`, "\xc3", `\195`, "\xa4", `\164`).Replace(want)
		addr, _ := countingServer(t, func(r *dns.Msg, q dns.Question) {
			r.Answer = append(r.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{spelled, "+"}})
		})
		got, err := New([]string{addr}).LookupTXT(t.Context(), "x.test")
		if err != nil || len(got) != 1 || got[0] != want+"+" {
			t.Errorf("%q: %q, %v", want, got, err)
		}
	}
}

// A text is what its bytes are on the wire, whatever they are.
func FuzzText(f *testing.F) {
	f.Add([]byte("v=spf1 \\\" ; \x00\xff\\032\\"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1000 {
			return
		}
		var data []byte
		for piece := range slices.Chunk(text, 255) {
			data = append(append(data, byte(len(piece))), piece...)
		}
		if data == nil {
			data = []byte{0}
		}
		wire := append([]byte{1, 'x', 0, 0, 16, 0, 1, 0, 0, 0, 9, byte(len(data) >> 8), byte(len(data))}, data...)
		rr, _, err := dns.UnpackRR(wire, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := Text(rr.(*dns.TXT)); got != string(text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
