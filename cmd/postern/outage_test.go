package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unicode"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// A milter that stops, comes back, hangs and goes on under load: what is accepted is signed,
// once, and arrives, once.
func TestMilterOutageUnderLoad(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	dir, _ := signing(t, basics)
	key, err := os.ReadFile(filepath.Join(dir, "data", "dkim", "example.org.postern.pem"))
	if err != nil {
		t.Fatal(err)
	}
	e := peertest.StartOpenDKIM(t, map[string]string{"key": string(key)}, "Mode s", "Domain example.net", "Selector s", "KeyFile $DIR/key")
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withMilter("opendkim", e.Address, "timeout = \"2s\""))
	v := fire(t, g, sink, ammunition{mercy: true, seen: func(h mail.Header, _ *shot) bool { return h.Count("DKIM-Signature") == 1 }})
	v.outages(e.Engine)
	v.end()
}

// outages has an engine stop, come back, hang and go on under load, twice.
func (v *volley) outages(e *peertest.Engine) {
	v.t.Helper()
	works := func() {
		v.t.Helper()
		v.more("accepted", &v.accepted, 20)
		if !v.mercy {
			v.more("refused", &v.refused, 10)
		}
	}
	for range 2 {
		works()
		e.Stop()
		v.more("deferred", &v.deferred, 20)
		e.Restart()
		works()
		e.Freeze()
		v.more("deferred", &v.deferred, 4) // one a session: each waits for the engine
		e.Thaw()
	}
	works()
}

// harming is mail that has something harmful in it.
func harming(harm string) func(n int, harmful bool) (from, text string) {
	return func(_ int, harmful bool) (string, string) {
		text := "From: alice@example.net\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\n\r\n"
		if harmful {
			text += harm
		}
		return "alice@example.net", text + "\r\n"
	}
}

// Engines that go and come under load: no message is lost, none comes twice, and no virus
// gets through.
func TestAntivirusOutageUnderLoad(t *testing.T) {
	t.Parallel()
	e := peertest.StartClamd(t)
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, filtered(sink, "antivirus", "timeout = \"2s\"\norigins = [\"submitted\"]", fmt.Sprintf("addresses = [\"unix:%s\"]\nheader = true", e.Socket)))
	v := fire(t, g, sink, ammunition{compose: harming(peertest.EICAR()), seen: func(h mail.Header, _ *shot) bool { return h.Count("X-Virus-Status") == 1 }})
	v.outages(e.Engine)
	v.end()
}

// The same for rspamd as for clamd: outages under load lose nothing and let nothing through.
func TestSpamOutageUnderLoad(t *testing.T) {
	t.Parallel()
	e := peertest.StartRspamd(t)
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, theirs(filtered(sink, "spam", "timeout = \"2s\"", fmt.Sprintf("url = %q", e.URL))))
	v := fire(t, g, sink, ammunition{compose: harming(peertest.GTUBE), seen: func(h mail.Header, _ *shot) bool { return h.Count("X-Spam-Status") == 1 }})
	v.outages(e.Engine)
	v.end()
}

// A DNS that is silent, refuses, or lies, under load: forged mail is refused or deferred where
// that is what the admin wants, and otherwise says that nobody knows; it never passes.
func TestMailauthOutageUnderLoad(t *testing.T) {
	t.Parallel()
	for temperror, mercy := range map[string]bool{"tempfail": false, "accept": true} {
		t.Run(temperror, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			d := startFickleDNS(t, authors)
			g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+fmt.Sprintf(
				"[dns]\nservers = [%q]\n[[plugin]]\nname = \"mailauth\"\norigins = [\"submitted\"]\n[plugin.settings]\ntimeout = \"300ms\"\ntemperror = %q\n", d.addr, temperror))
			v := fire(t, g, sink, ammunition{compose: authored, mercy: mercy, seen: func(h mail.Header, s *shot) bool {
				switch authenticated(h) {
				case "pass":
					return !s.harmful && bytes.HasPrefix(h.Block(), []byte("Authentication-Results:"))
				case "temperror":
					return mercy
				}
				return false
			}})
			for _, mood := range []string{"silent", "refuses", "garbage", "another question", "another id", "cut off"} {
				v.more("accepted", &v.accepted, 10)
				v.more("refused", &v.refused, 5)
				d.mood.Store(mood)
				if mercy {
					v.more("accepted", &v.accepted, 10)
				} else {
					v.more("deferred", &v.deferred, 10)
				}
				d.mood.Store("")
			}
			v.more("refused", &v.refused, 5)
			v.end()
		})
	}
}

// authored is mail of a domain that no other message is from, so that nobody remembers its
// records; harmful mail is forged.
func authored(n int, harmful bool) (from, text string) {
	domain := fmt.Sprintf("d%d.%s.test", n, map[bool]string{true: "forged", false: "fine"}[harmful])
	return "ann@" + domain, "Authentication-Results: mx.example.org; dmarc=pass\r\nFrom: ann@" + domain + "\r\nSubject: x\r\n\r\ntext\r\n"
}

// authenticated is the result of DMARC in the one field of our name.
func authenticated(h mail.Header) string {
	if h.Count("Authentication-Results") != 1 {
		return "missing"
	}
	_, v, _ := strings.Cut(h.Get("Authentication-Results"), "dmarc=")
	return strings.FieldsFunc(v+" -", unicode.IsSpace)[0]
}

// authors has d*.fine.test, whose mail comes from 127.0.0.1, and d*.forged.test, whose mail
// comes from nowhere; both want forgeries rejected.
func authors(name string, qtype uint16) string {
	policy, fine := strings.HasPrefix(name, "_dmarc."), strings.HasSuffix(name, ".fine.test.")
	switch {
	case strings.Count(name, ".") != map[bool]int{true: 4, false: 3}[policy] || qtype != dns.TypeTXT:
		return ""
	case policy:
		return "v=DMARC1; p=reject"
	case fine:
		return "v=spf1 ip4:127.0.0.1 -all"
	}
	return "v=spf1 -all"
}

// fickleDNS answers what its zone has. Its mood says how else it answers.
type fickleDNS struct {
	addr string
	zone func(name string, qtype uint16) string // an address or a text; "": there is none
	mood atomic.Value                           // string
}

func startFickleDNS(t testing.TB, zone func(name string, qtype uint16) string) *fickleDNS {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &fickleDNS{addr: pc.LocalAddr().String(), zone: zone}
	d.mood.Store("")
	s := &dns.Server{PacketConn: pc, Handler: d}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go s.ActivateAndServe()
	<-started
	t.Cleanup(func() { s.Shutdown() })
	return d
}

// ServeDNS implements [dns.Handler].
func (d *fickleDNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg).SetReply(q)
	hdr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
	switch value := d.zone(hdr.Name, hdr.Rrtype); {
	case value == "":
		r.Rcode = dns.RcodeNameError
	case hdr.Rrtype == dns.TypeA:
		r.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.ParseIP(value)}}
	default:
		r.Answer = []dns.RR{&dns.TXT{Hdr: hdr, Txt: chunks(value)}}
	}
	switch d.mood.Load() {
	case "silent":
		return
	case "refuses":
		r.SetRcode(q, dns.RcodeServerFailure)
	case "garbage":
		w.Write([]byte("\xff\xff garbage \x00"))
		return
	case "another question":
		r.Question[0].Name = "elsewhere.test."
	case "another id":
		r.Id++
	case "cut off":
		r.Truncated, r.Answer = true, nil // and nobody answers over TCP
	}
	w.WriteMsg(r)
}

// chunks are the strings of a text record, of at most 255 octets (RFC 1035 §3.3.14).
func chunks(text string) (all []string) {
	for ; len(text) > 255; text = text[255:] {
		all = append(all, text[:255])
	}
	return append(all, text)
}

// blocking lists 203.1.0.0/16, and has what a list must have (RFC 5782 §5).
func blocking(name string, qtype uint16) string {
	client, ok := strings.CutSuffix(name, ".bl.test.")
	if ok && qtype == dns.TypeA && (strings.HasSuffix(client, ".1.203") || client == "2.0.0.127") {
		return "127.0.0.2"
	}
	return ""
}

// strange is a client that no other message is from; harmful mail is from one that is listed.
func strange(n int, harmful bool) string {
	return fmt.Sprintf("203.%d.%d.%d", map[bool]int{true: 1}[harmful], n>>8, n&255)
}

// proxied is a gateway without relay networks behind a proxy.
func proxied(config string) string {
	return strings.Replace(theirs(config), `role = "mx"`, "role = \"mx\"\nproxy_from = [\"127.0.0.0/8\"]", 1)
}

// A list that is silent or broken under load keeps nobody waiting: it is left alone, mail that
// passes it says so, and who is listed is refused before that and after.
func TestDNSBLOutageUnderLoad(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	d := startFickleDNS(t, blocking)
	dir := t.TempDir()
	g := startIn(t, dir, proxied(forwarding("example.org", "smtp://"+sink.Addr()))+fmt.Sprintf("[dns]\nservers = [%q]\nclient_names = false\n", d.addr)+
		"[[plugin]]\nname = \"dnsbl\"\n[plugin.settings]\ntimeout = \"1s\"\n[[plugin.settings.list]]\nzone = \"bl.test\"\n"+
		ruled(t, dir, `if environment :matches "vnd.postern.note.dnsbl/unanswered" "*" { addheader "X-Unanswered" "${1}"; }`))
	v := fire(t, g, sink, ammunition{proxy: strange, mercy: true, seen: func(h mail.Header, s *shot) bool {
		return !s.harmful || h.Get("X-Unanswered") == "bl.test"
	}})
	for _, mood := range []string{"silent", "refuses"} {
		v.more("accepted", &v.accepted, 20)
		v.more("refused", &v.refused, 10)
		n := g.log.len()
		d.mood.Store(mood)
		g.log.waitFrom(t, n, "plugin log", has("plugin", "dnsbl", "text", "list is left alone"))
		v.more("accepted", &v.accepted, 40)
		d.mood.Store("")
		g.must("plugin", "restart", "dnsbl") // else it is left alone for minutes
	}
	v.more("refused", &v.refused, 10)
	v.end()
	if v.deferred.Load() > 0 {
		t.Errorf("mail was deferred %d times", v.deferred.Load())
	}
}

// ruled is a plugin sieve with a script of the gateway.
func ruled(t testing.TB, dir, script string) string {
	t.Helper()
	file := filepath.Join(dir, "gateway.sieve")
	if err := os.WriteFile(file, []byte("require [\"environment\", \"editheader\", \"variables\"];\n"+script+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[[plugin]]\nname = \"sieve\"\ntimeout = \"2s\"\n[plugin.settings]\ngateway = %q\n", file)
}

// A content filter that goes away, hangs before or after it has brought a message back, and
// whose plugin is killed with messages at the filter: each arrives once, filtered.
func TestSMTPFilterOutageUnderLoad(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "timeout = \"2s\"")
	works := func(h *handed) error {
		if strings.Contains(h.Text, "\r\nX-Harm: ") {
			return refuse(554, "harmful")
		}
		return h.return250(h.To, strings.Replace(h.Text, "\r\n\r\n", "\r\nX-Filtered: yes\r\n\r\n", 1))
	}
	f.script(works)
	v := fire(t, g, sink, ammunition{
		compose: func(n int, harmful bool) (string, string) {
			from, text := harmless(n, harmful)
			if harmful {
				text = "X-Harm: yes\r\n" + text
			}
			return from, text
		},
		seen: func(h mail.Header, _ *shot) bool {
			return h.Count("X-Filtered") == 1 && !h.Has("X-Postern-Reinject")
		},
	})
	for range 2 {
		v.more("accepted", &v.accepted, 20)
		f.stop()
		v.more("deferred", &v.deferred, 20)
		f.serve(t)
		v.more("accepted", &v.accepted, 20)
		var mute atomic.Int64
		thaw := make(chan struct{})
		f.script(func(h *handed) error {
			if mute.Add(1)%2 == 0 {
				works(h)
			}
			<-thaw
			return refuse(451, "too late")
		})
		v.more("deferred", &v.deferred, 8)
		f.script(works)
		close(thaw)
		v.more("accepted", &v.accepted, 20)
		with, struck := make(chan struct{}, 100), make(chan struct{})
		f.script(func(h *handed) error { // every other message is back when the plugin dies
			back := mute.Add(1)%2 == 0
			var err error
			if back {
				err = works(h)
			}
			select {
			case with <- struct{}{}:
			default:
			}
			<-struck
			if !back {
				err = works(h)
			}
			return err
		})
		<-with
		<-with
		n := g.log.len()
		if err := syscall.Kill(pluginsOf(g)[0].Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		g.log.waitFrom(t, n, "plugin died", nil)
		f.script(works)
		close(struck)
		g.log.waitFrom(t, n, "plugin restarted", nil)
	}
	v.more("accepted", &v.accepted, 20)
	v.more("refused", &v.refused, 5)
	v.end()
}
