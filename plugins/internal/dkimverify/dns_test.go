package dkimverify

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"
)

func TestKeyRecords(t *testing.T) {
	s := newSigner(t, "rsa")
	good := s.sign(t, plain)
	der, _ := x509.MarshalPKIXPublicKey(s.key.Public())
	p := base64.StdEncoding.EncodeToString(der)
	bare := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(s.key.Public().(*rsa.PublicKey)))
	for record, want := range map[string]string{
		"v=DKIM1; p=" + p:    "pass",
		"p=" + p:             "pass",
		"v=DKIM1; p=" + bare: "pass",
		"v=DKIM1; k=rsa; h=sha256; s=email; p=" + p:     "pass",
		"v=DKIM1; h=sha1:sha256; s=tlsrpt:*; p=" + p:    "pass",
		"v=DKIM1; unknown=x; n=a note; p=" + p + ";":    "pass",
		"v=DKIM1; p=" + p[:40] + "  \r\n\t" + p[40:]:    "pass",
		"v=DKIM1; t=y; p=" + p:                          "pass",
		"v=DKIM1;; k=rsa; ;p=" + p + " ; ;":             "pass",
		"v=DKIM1; p=":                                   "permerror", // revoked
		"v=DKIM1":                                       "permerror",
		"v=DKIM2; p=" + p:                               "permerror",
		"p=" + p + "; v=DKIM1":                          "permerror", // it has to be first
		"v=DKIM1; h=sha1; p=" + p:                       "permerror",
		"v=DKIM1; s=tlsrpt; p=" + p:                     "permerror",
		"v=DKIM1; k=ed25519; p=" + p:                    "permerror",
		"v=DKIM1; k=ed25519; p=" + p[:44]:               "permerror",
		"v=DKIM1; k=x448; p=" + p:                       "permerror",
		"v=DKIM1; p=!!!":                                "permerror",
		"v=DKIM1; p=AAAA":                               "permerror",
		"v=DKIM1; p=" + p + "; p=" + p:                  "permerror",
		"":                                              "permerror",
		"v=spf1 -all":                                   "permerror",
		"v=DKIM1; p=" + publishedBits(t, 512):           "policy",
		"v=DKIM1; p=" + publishedBits(t, 1023):          "policy",
		"v=DKIM1; p=" + publishedBits(t, 1024):          "fail",
		"v=DKIM1; p=" + publishedBits(t, 8192):          "fail",
		"v=DKIM1; p=" + publishedBits(t, 8193):          "policy",
		"v=DKIM1; p=" + publishedBits(t, 16384):         "policy", // M-10
		"v=DKIM1; n=" + strings.Repeat("x", 1<<20) + p:  "permerror",
		"v=DKIM1; p=" + strings.Repeat("A", 1<<20):      "permerror",
		"v=DKIM1; k=rsa; p=" + p + "\x00":               "permerror",
		"v=DKIM1; k; p=" + p:                            "permerror",
		"v=DKIM1; " + manyTags(1000) + "p=" + p:         "permerror",
		"k=rsa; p=" + p + strings.Repeat("; a=b", 1000): "permerror",
	} {
		rs := verify(t, Options{Resolver: zone{"s1._domainkey.example.org": record}}, good)
		if values(rs) != want {
			t.Errorf("%.60q: %+v", record, rs)
		}
		if rs[0].Testing != strings.Contains(record, "t=y") {
			t.Errorf("%.60q: testing is %t", record, rs[0].Testing)
		}
	}
}

// fakeKey is a number of that length with a usual exponent.
func fakeKey(bits int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
}

// publishedBits is p= of a key whose modulus has that length. Nobody has its private half.
func publishedBits(t testing.TB, bits int) string {
	t.Helper()
	k := fakeKey(bits)
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// What the DNS did not answer is temporary, whatever kind of error says so.
func TestDNSFailures(t *testing.T) {
	s := newSigner(t, "ed25519")
	good := s.sign(t, plain)
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no such name":     {&net.DNSError{IsNotFound: true}, "permerror"},
		"wrapped":          {fmt.Errorf("looking up: %w", &net.DNSError{IsNotFound: true}), "permerror"},
		"server failure":   {&net.DNSError{IsTemporary: true}, "temperror"},
		"both":             {&net.DNSError{IsTemporary: true, IsNotFound: true}, "temperror"},
		"wrapped failure":  {fmt.Errorf("looking up: %w", &net.DNSError{IsTemporary: true}), "temperror"},
		"timeout":          {&net.DNSError{IsTimeout: true}, "temperror"},
		"context":          {context.DeadlineExceeded, "temperror"},
		"an unknown error": {errors.New("x"), "temperror"},
	} {
		rs := verify(t, Options{Resolver: failing{c.err}}, good)
		if values(rs) != c.want {
			t.Errorf("%s: %+v", name, rs)
		}
	}
}

type failing struct{ err error }

func (f failing) LookupTXT(context.Context, string) ([]string, error) { return nil, f.err }

// A resolver that never answers, and does not heed its context, is waited for as long as a
// look-up may take, once for all signatures.
func TestSlowDNS(t *testing.T) {
	s := newSigner(t, "ed25519")
	wire := plain
	for i := range 5 {
		s.options.Selector = fmt.Sprint("s", i)
		wire = s.sign(t, wire)
	}
	stuck := make(chan struct{})
	defer close(stuck)
	rs := verify(t, Options{Resolver: slow{stuck}, LookupTime: 50 * time.Millisecond}, wire)
	if values(rs) != "temperror temperror temperror temperror temperror" {
		t.Errorf("%+v", rs)
	}
	v, _ := New(Options{Resolver: slow{stuck}, LookupTime: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if rs, err := v.Verify(ctx, message(wire)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", rs, err)
	}
}

type slow struct{ stuck chan struct{} }

func (s slow) LookupTXT(context.Context, string) ([]string, error) {
	<-s.stuck
	return nil, errors.New("late")
}

// M-10: as many signatures as are allowed are verified, with one look-up for each key.
func TestM10ManySignatures(t *testing.T) {
	s := newSigner(t, "ed25519")
	one := s.sign(t, plain)
	field := one[:len(one)-len(plain)]
	for _, n := range []int{7, 8, 9, 10000} {
		var asked atomic.Int64
		rs := verify(t, Options{Resolver: counting{s.zone(), &asked}}, strings.Repeat(field, n)+plain)
		passed := strings.Count(values(rs), "pass")
		if passed != min(n, 8) || asked.Load() != 1 || len(rs) != min(n, 9) {
			t.Errorf("%d: %d passed, %d look-ups, %d results", n, passed, asked.Load(), len(rs))
		}
		if n > 8 && (rs[8].Value != Policy || !strings.Contains(rs[8].Reason, fmt.Sprint(n-8))) {
			t.Errorf("%d: %+v", n, rs[8])
		}
	}
}

type counting struct {
	zone
	n *atomic.Int64
}

func (c counting) LookupTXT(ctx context.Context, name string) ([]string, error) {
	c.n.Add(1)
	return c.zone.LookupTXT(ctx, name)
}

// The resolver that mail filters' tests use works, and over the wire.
func TestMockDNS(t *testing.T) {
	s := newSigner(t, "rsa")
	zones := make(map[string]mockdns.Zone)
	for name, text := range s.zone() {
		zones[name+"."] = mockdns.Zone{TXT: []string{text}}
	}
	if rs := verify(t, Options{Resolver: &mockdns.Resolver{Zones: zones}}, s.sign(t, plain)); values(rs) != "pass" {
		t.Errorf("%+v", rs)
	}
	if rs := verify(t, Options{Resolver: &mockdns.Resolver{}}, s.sign(t, plain)); values(rs) != "permerror" {
		t.Errorf("%+v", rs)
	}
}
