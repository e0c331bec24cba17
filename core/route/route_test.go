package route

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestParseHop(t *testing.T) {
	long := "/" + strings.Repeat("x", 99)
	for _, c := range []struct {
		in   string
		want Hop
		bad  bool
	}{
		{in: "maildir", want: Hop{Scheme: SchemeMailbox, Address: "maildir"}},
		{in: "imap-append2", want: Hop{Scheme: SchemeMailbox, Address: "imap-append2"}},
		{in: "smtp://10.0.0.5:25", want: Hop{Scheme: SchemeSMTP, Address: "10.0.0.5:25"}},
		{in: "smtp://10.0.0.5", want: Hop{Scheme: SchemeSMTP, Address: "10.0.0.5:25"}},
		{in: "smtp://MX.Example.org:2525", want: Hop{Scheme: SchemeSMTP, Address: "mx.example.org:2525"}},
		{in: "smtp://bücher.test.", want: Hop{Scheme: SchemeSMTP, Address: "xn--bcher-kva.test:25"}},
		{in: "smtp://localhost", want: Hop{Scheme: SchemeSMTP, Address: "localhost:25"}},
		{in: "smtp://[2001:DB8::1]:2525", want: Hop{Scheme: SchemeSMTP, Address: "[2001:db8::1]:2525"}},
		{in: "smtp://[2001:db8::1]", want: Hop{Scheme: SchemeSMTP, Address: "[2001:db8::1]:25"}},
		{in: "smtps://relay.test", want: Hop{Scheme: SchemeSMTP, Address: "relay.test:465", ImplicitTLS: true}},
		{in: "lmtp://127.0.0.1", want: Hop{Scheme: SchemeLMTP, Address: "127.0.0.1:24"}},
		{in: "lmtp://unix:/run/dovecot/lmtp", want: Hop{Scheme: SchemeLMTP, Address: "unix:/run/dovecot/lmtp"}},
		{in: "lmtp://unix:" + long, want: Hop{Scheme: SchemeLMTP, Address: "unix:" + long}},
		{in: "lmtp://unix:" + long + "x", bad: true},
		{in: "", bad: true}, {in: "Mail Dir", bad: true}, {in: "host.example:25", bad: true}, {in: "10.0.0.5", bad: true},
		{in: "smtp://", bad: true}, {in: "smtp://:25", bad: true}, {in: "smtp://h:0", bad: true}, {in: "smtp://h:65536", bad: true},
		{in: "smtp://h:", bad: true}, {in: "smtp://h:25x", bad: true}, {in: "smtp://2001:db8::1", bad: true}, {in: "smtp://[10.0.0.1]", bad: true},
		{in: "smtp://[::1", bad: true}, {in: "smtp://[::1]x", bad: true}, {in: "smtp://a b", bad: true}, {in: "smtp://user@h", bad: true},
		{in: "smtp://h/x", bad: true}, {in: "smtp://unix:/run/x", bad: true}, {in: "lmtp://unix:run/x", bad: true}, {in: "lmtp://unix:/run/../x", bad: true},
		{in: "lmtp://unix:", bad: true}, {in: "http://h", bad: true}, {in: "smtp://0.0.0.0", bad: true}, {in: "smtp://[::]:25", bad: true},
		{in: "smtp://[ff02::1]", bad: true}, {in: "smtp://[[10.0.0.1]]", bad: true}, {in: "lmtp://unix:/a,b", bad: true},
		{in: "lmtp://uniX", bad: true}, {in: "smtp://unix:25", bad: true}, {in: "smtp://[fe80::1%a b]", bad: true}, {in: "smtp://\xea\xea00", bad: true},
		{in: "smtp://[fe80::1%eth0]", want: Hop{Scheme: SchemeSMTP, Address: "[fe80::1%eth0]:25"}},
	} {
		got, err := ParseHop(c.in)
		if (err != nil) != c.bad || !c.bad && got != c.want {
			t.Errorf("%q: %+v %v", c.in, got, err)
		}
	}
	for in, want := range map[string]Hop{
		"smtp.provider.example:587":  {Scheme: SchemeSMTP, Address: "smtp.provider.example:587"},
		"smtp.provider.example":      {Scheme: SchemeSMTP, Address: "smtp.provider.example:25"},
		"smtp.provider.example:465":  {Scheme: SchemeSMTP, Address: "smtp.provider.example:465", ImplicitTLS: true},
		"smtps://p.example:4465":     {Scheme: SchemeSMTP, Address: "p.example:4465", ImplicitTLS: true},
		"smtp://smtp.example.org:25": {Scheme: SchemeSMTP, Address: "smtp.example.org:25"},
	} {
		if got, err := ParseSmarthost(in); err != nil || got != want {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
	for _, in := range []string{"lmtp://h", "lmtp://unix:/x", "", "h:x"} {
		if h, err := ParseSmarthost(in); err == nil {
			t.Errorf("%q: %+v", in, h)
		}
	}
}

func TestRoute(t *testing.T) {
	o := Options{
		Domains: map[mail.Domain][]string{
			mail.MustDomain("local.test"): {"maildir"},
			mail.MustDomain("relay.test"): {"smtp://10.0.0.5", "lmtp://unix:/run/lmtp"},
			mail.MustDomain("same.test"):  {"smtp://10.0.0.5:25", "lmtp://unix:/run/lmtp"},
			mail.MustDomain("tls.test"):   {"smtps://10.0.0.5"},
		},
		Hostname: mail.MustDomain("gw.test"),
	}
	routes := func(o Options) map[string]string {
		table, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, rcpt := range []string{"a@local.test", "a@LOCAL.test", "a@relay.test", "a@same.test", "a@tls.test", "a@else.test", "a@sub.local.test", "a@[192.0.2.1]"} {
			r, err := table.Route(mail.MustPath(rcpt))
			if err != nil {
				var s mail.Status
				if !errors.As(err, &s) || !s.Permanent() {
					t.Errorf("%s: %v", rcpt, err)
				}
				got[rcpt] = "refused"
				continue
			}
			got[rcpt] = r.Key
			if (r.Transport == Mailbox) != (r.Key == "mailbox:maildir") || len(r.Hops) == 0 {
				t.Errorf("%s: %+v", rcpt, r)
			}
		}
		return got
	}
	want := map[string]string{
		"a@local.test": "mailbox:maildir", "a@LOCAL.test": "mailbox:maildir", "a@relay.test": "smtp:10.0.0.5:25,lmtp:unix:/run/lmtp",
		"a@same.test": "smtp:10.0.0.5:25,lmtp:unix:/run/lmtp", "a@tls.test": "smtps:10.0.0.5:465",
		"a@else.test": "mx:else.test", "a@sub.local.test": "mx:sub.local.test", "a@[192.0.2.1]": "refused",
	}
	if d := cmp.Diff(want, routes(o)); d != "" {
		t.Error(d)
	}
	o.AllowLiterals = true
	want["a@[192.0.2.1]"] = "mx:[192.0.2.1]"
	if d := cmp.Diff(want, routes(o)); d != "" {
		t.Error(d)
	}
	o.AllowLiterals = false
	o.Smarthost, o.Credentials = []string{"s1.test:587", "s2.test"}, "smarthost"
	want["a@else.test"], want["a@sub.local.test"], want["a@[192.0.2.1]"] = "smarthost", "smarthost", "refused"
	if d := cmp.Diff(want, routes(o)); d != "" {
		t.Error(d)
	}
	table, _ := New(o)
	r, err := table.Route(mail.MustPath("a@else.test"))
	wantRoute := Route{Key: "smarthost", Transport: SMTP, Hops: []Hop{
		{Scheme: SchemeSMTP, Address: "s1.test:587", Credentials: "smarthost"}, {Scheme: SchemeSMTP, Address: "s2.test:25", Credentials: "smarthost"}}}
	if d := cmp.Diff(wantRoute, r); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := table.Route(mail.Path{Local: "postmaster"}); err == nil {
		t.Error("recipient without a domain has a route")
	}
}

// TestL03OwnListener: a next hop that is one of our own listeners is refused at once.
func TestL03OwnListener(t *testing.T) {
	own := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("127.0.0.1:2525"), netip.MustParseAddrPort("[::]:587")}
	for hop, refused := range map[string]bool{
		"smtp://192.0.2.1": true, "smtp://192.0.2.1:26": false, "smtp://192.0.2.2": false, "smtp://127.0.0.1:2525": true,
		"smtp://127.0.0.2:2525": false, "smtp://localhost:2525": true, "smtp://[::ffff:127.0.0.1]:2525": true,
		"smtp://127.0.0.1:587": true, "smtp://127.9.9.9:587": true, "smtp://[::1]:587": true, "smtp://localhost:587": true,
		"smtp://gw.test": true, "smtp://gw.test:26": false, "smtps://gw.test:587": true, "lmtp://127.0.0.1:2525": true, "maildir": false,
	} {
		_, err := New(Options{Domains: map[mail.Domain][]string{mail.MustDomain("x.test"): {hop}}, Own: own, Hostname: mail.MustDomain("gw.test")})
		if (err != nil) != refused {
			t.Errorf("deliver %s: %v", hop, err)
		}
		if host, ok := strings.CutPrefix(hop, "smtp://"); ok {
			if _, err := New(Options{Smarthost: []string{host}, Own: own, Hostname: mail.MustDomain("gw.test")}); (err != nil) != refused {
				t.Errorf("smarthost %s: %v", host, err)
			}
		}
	}
}

func TestTableErrors(t *testing.T) {
	for _, deliver := range [][]string{nil, {}, {"maildir", "smtp://h"}, {"maildir", "imap"}, {"what://x"}} {
		_, err := New(Options{Domains: map[mail.Domain][]string{mail.MustDomain("x.test"): deliver}})
		if err == nil || !strings.Contains(err.Error(), "x.test") {
			t.Errorf("%q: %v", deliver, err)
		}
	}
}

func FuzzParseHop(f *testing.F) {
	for _, s := range []string{"maildir", "smtp://h:25", "lmtp://unix:/x", "smtp://[::1]:25", "smtps://a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHop(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(h.String(), "\r\n\x00, ") && h.Scheme != SchemeLMTP {
			t.Fatalf("%q: %q", s, h.String())
		}
		// What was parsed names the same hop when written again.
		scheme := map[Scheme]string{SchemeSMTP: "smtp://", SchemeLMTP: "lmtp://", SchemeMailbox: ""}[h.Scheme]
		if h.ImplicitTLS {
			scheme = "smtps://"
		}
		if again, err := ParseHop(scheme + h.Address); err != nil || again != h {
			t.Fatalf("%q: %+v, again %+v %v", s, h, again, err)
		}
	})
}
