package resolve

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/foxcpp/go-mockdns"
)

func TestNames(t *testing.T) {
	server, err := mockdns.NewServer(map[string]mockdns.Zone{
		"example.org.":           {A: []string{"192.0.2.1"}, TXT: []string{"v=spf1 -all"}, MX: []net.MX{{Host: "mx.example.org.", Pref: 5}}},
		"1.2.0.192.in-addr.arpa": {PTR: []string{"example.org."}},
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
