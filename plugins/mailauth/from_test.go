package mailauth

import (
	"fmt"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func TestAuthors(t *testing.T) {
	for from, want := range map[string]string{
		"a@x.test":                           "x.test",
		"Ann <a@X.test>":                     "x.test",
		"\"a@evil.test\" <a@x.test>":         "x.test",
		"a@evil.test <a@x.test>":             "x.test",
		"(b@evil.test) a@x.test (c)":         "x.test",
		"Ann <a(c@evil.test)@x.test>":        "x.test",
		"Ann < a @ x.test >":                 "x.test",
		"<@relay.test,@r2.test:a@x.test>":    "x.test",
		"\"a b@c\"@x.test":                   "x.test",
		"\"<b@evil.test>\" <\"a>b\"@x.test>": "x.test",
		"a@x.test, Bob <b@y.test>":           "x.test y.test",
		"a@x.test, b@x.test":                 "x.test",
		"Group: a@x.test, b@y.test;":         "x.test y.test",
		"undisclosed:;":                      "",
		"<a@x.test><b@y.test>":               "x.test y.test",
		"Ann <a@x.test> <b@y.test>":          "x.test y.test",
		"Ann <a@x.test":                      "x.test",
		// What has no address that can be made out, and readers mend.
		"Ann \"<a@x.test>\\\" <a@y.test>":      "x.test y.test",
		"\"a <a@x.test>":                       "x.test",
		"(a <a@x.test>":                        "x.test",
		"a@x.test:;":                           "x.test",
		"Ann a@x.test>":                        "x.test",
		"'a@x.test'":                           "x.test",
		"a @ x . test":                         "x.test",
		"a@x.\r\n test":                        "x.test",
		"a@x.test b@y.test":                    "x.test y.test",
		"a@y.test@x.test":                      "y.test x.test",
		"<a@\"x.test\">, a@ x.test":            "x.test",
		"=?utf-8?q?a=40x.test?=":               "x.test",
		"=?utf-8?b?PGFAeC50ZXN0Pg==?= <a>":     "x.test",
		"a@x.test\x01":                         "x.test",
		"a@x.test\xff":                         "x.test",
		"<a@\"x.test\">":                       "x.test",
		"a@..x.test":                           "",
		strings.Repeat("@ ", maxFrom/2-10):     "",
		strings.Repeat("@. ", maxFrom/3-9):     "",
		"":                                     "",
		"Ann":                                  "",
		"<>":                                   "",
		"a@":                                   "",
		"a@localhost":                          "localhost",
		"a@[192.0.2.1]":                        "[192.0.2.1]",
		"a@b\u00fccher.test":                   "xn--bcher-kva.test",
		"=?utf-8?q?a=40evil.test?= <a@x.test>": "x.test",
		"a@x.test\r\nFrom: b@y.test":           "x.test y.test",
		"a@a.t, a@b.t, a@c.t, a@d.t":           "a.t b.t c.t d.t",
		"a@a.t, a@b.t, a@c.t, a@d.t, a@e.t":    "a.t b.t c.t d.t !",
		strings.Repeat("a", maxFrom+1):         "!",
		strings.Repeat("<", maxFrom-1):         "",
		strings.Repeat("(", maxFrom-1):         "",
	} {
		got, err := authors(mail.NewHeader([]byte("From: " + from + "\r\n\r\n")))
		var text []string
		for _, d := range got {
			text = append(text, d.String())
		}
		if err != nil {
			text = append(text, "!")
		}
		if strings.Join(text, " ") != want {
			t.Errorf("%.60q: %q", from, text)
		}
	}
}

// Several authors: the strictest policy of those that fail (RFC 9989 §11.5).
func TestSeveralAuthors(t *testing.T) {
	p := newPlugin(t, zones(), "")
	for from, want := range map[string]sdk.Action{
		"a@none.test, b@reject.test":                            sdk.ActionReject,
		"a@reject.test, b@none.test":                            sdk.ActionReject,
		"a@none.test\r\nFrom: b@reject.test":                    sdk.ActionReject,
		"a@quarantine.test, b@none.test":                        sdk.ActionQuarantine,
		"a@broken.test, b@reject.test":                          sdk.ActionReject,
		"a@none.test, b@other.test":                             sdk.ActionContinue,
		"a@a.test, b@b.test, c@c.test, d@d.test, e@reject.test": sdk.ActionQuarantine,
		"nobody":              sdk.ActionContinue,
		"a@none.test\r\nX: x": sdk.ActionContinue,
	} {
		v, err := sdktest.Filter(t, p, Manifest(), message("eve@other.test", "198.51.100.9", "From: "+from+"\r\n\r\nx\r\n"))
		if err != nil || v.Action != want {
			t.Errorf("%q: %+v, %v", from, v, err)
		}
	}
	for _, wire := range []string{"", "\r\n", "no header at all", "\r\nbody", "Subject: x"} { // they pass as they are
		v, err := sdktest.Filter(t, p, Manifest(), message("eve@other.test", "198.51.100.9", wire))
		if err != nil || v.Action != sdk.ActionContinue || v.Notes["dmarc"] != "none" {
			t.Errorf("%q: %+v, %v", wire, v, err)
		}
	}
}

// M-10: whatever a message brings along, it takes a bounded number of look-ups, and not for
// long.
func TestM10Bounded(t *testing.T) {
	z := zones()
	bomb := "v=spf1"
	for i := range 10 {
		d := fmt.Sprintf("m%d.bomb.test.", i)
		bomb += " mx:" + strings.TrimSuffix(d, ".")
		hosts := mockdns.Zone{}
		for j := range 10 {
			h := fmt.Sprintf("h%d.%s", j, d)
			hosts.MX = append(hosts.MX, mxHost(h))
			z[h] = mockdns.Zone{A: []string{"198.51.100.1"}}
		}
		z[d] = hosts
	}
	z["bomb.test."] = mockdns.Zone{TXT: []string{bomb + " -all"}}
	p := newPlugin(t, z, "")
	c := &counting{Resolver: p.resolver}
	p.resolver = c
	var err error
	if p.dkim, err = newVerifier(p, 5); err != nil {
		t.Fatal(err)
	}
	wire := strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=bomb.test; s=s1; h=from; bh=x; b=y\r\n", 1000) +
		"From: a@a.b.c.d.e.f.g.h.i.j.reject.test, b@a.b.c.d.e.f.g.h.i.j.bomb.test\r\n\r\nbody\r\n"
	v, err := sdktest.Filter(t, p, Manifest(), message("eve@bomb.test", "192.0.2.1", wire))
	if err != nil || v.Action != sdk.ActionReject || v.Notes["spf"] != "permerror" {
		t.Errorf("%+v, %v", v, err)
	}
	if n := c.n.Load(); n > spfLookups+5+2*9 {
		t.Errorf("%d look-ups", n)
	}
	if n := len(results(t, v).Results); n > 12 {
		t.Errorf("%d results", n)
	}
}

func FuzzAuthors(f *testing.F) {
	f.Add("Ann <a@x.test>, \"b\" (c) <@r:d@y.test>; g: e@f;")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "\r\n") {
			return
		}
		ds, err := authors(mail.NewHeader([]byte("From: " + s + "\r\n\r\n")))
		if len(ds) > maxAuthors {
			t.Fatalf("%v", ds)
		}
		for _, d := range ds {
			if again, err := mail.ParseDomain(d.String()); err != nil || again != d || d.IsZero() {
				t.Fatalf("%q in %q: %v", d, s, err)
			}
		}
		// Whom another reader takes for an author is one.
		list, _ := netmail.ParseAddressList(s)
		for _, a := range list {
			d, bad := mail.ParseDomain(a.Address[strings.LastIndexByte(a.Address, '@')+1:])
			if err == nil && bad == nil && !slices.Contains(ds, d) {
				t.Fatalf("%q is from %v, and not from %v", s, ds, a)
			}
		}
	})
}
