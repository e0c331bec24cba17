package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unicode"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// volley is mail over a few sessions at once, and what each message was told. Every third is
// harmful: what compose makes of it has to be refused or deferred, unless mercy permits more.
type volley struct {
	t       testing.TB
	g       *gateway
	compose func(n int, harmful bool) (from, text string)
	mercy   bool // harmful mail may be accepted

	stop                              chan struct{}
	wg                                sync.WaitGroup
	next, accepted, deferred, refused atomic.Int64
	promised                          sync.Map // Message-ID of what was accepted -> harmful
}

// fire begins a volley.
func fire(t testing.TB, g *gateway, mercy bool, compose func(n int, harmful bool) (from, text string)) *volley {
	v := &volley{t: t, g: g, compose: compose, mercy: mercy, stop: make(chan struct{})}
	for range 4 {
		v.wg.Go(func() {
			for v.shoot() {
			}
		})
	}
	return v
}

// shoot sends one message in a session of its own.
func (v *volley) shoot() bool {
	select {
	case <-v.stop:
		return false
	default:
	}
	n := int(v.next.Add(1))
	harmful := n%3 == 0
	from, text := v.compose(n, harmful)
	id := fmt.Sprintf("<%d@volley>", n)
	c := dial(v.t, v.g.addr[0])
	defer c.conn.Close()
	c.send(fmt.Sprintf("EHLO client.example.net\r\nMAIL FROM:<%s>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n", from))
	for _, want := range []int{250, 250, 250, 354} {
		c.expect(want)
	}
	c.send("Message-ID: " + id + "\r\n" + text + ".\r\n")
	switch code, reply, err := c.reply(); {
	case code == 250 && (!harmful || v.mercy):
		v.promised.Store(id, harmful)
		v.accepted.Add(1)
	case code == 451:
		v.deferred.Add(1)
	case code/10 == 55 && harmful:
		v.refused.Add(1)
	default:
		v.t.Errorf("%s (harmful: %v): %d %s, %v", id, harmful, code, reply, err)
		return false
	}
	return true
}

// more waits until n more messages have fared so.
func (v *volley) more(what string, count *atomic.Int64, n int64) {
	v.t.Helper()
	n += count.Load()
	eventually(v.t, fmt.Sprintf("%d messages are %s", n, what), func() bool { return count.Load() >= n || v.t.Failed() })
	if v.t.Failed() {
		v.t.FailNow()
	}
}

// end ends the sessions and holds what arrived against what was promised: all of it, once,
// and as seen wants it.
func (v *volley) end(sink *smtptest.Sink, seen func(m mail.Header, harmful bool) bool) {
	v.t.Helper()
	close(v.stop)
	v.wg.Wait()
	total := int(v.accepted.Load())
	got := sink.Wait(v.t, total, patience)
	v.g.drained()
	for _, m := range got {
		h := mail.NewHeader(m.Data)
		harmful, ok := v.promised.LoadAndDelete(h.Get("Message-ID"))
		if !ok {
			v.t.Errorf("%s arrived twice, or was refused", h.Get("Message-ID"))
		} else if !seen(h, harmful.(bool)) || h.Has("X-Postern-Unscanned") {
			v.t.Errorf("what arrived was not seen (harmful: %v):\n%.1500s", harmful, m.Data)
		}
	}
	if n := len(sink.Messages()); n != total {
		v.t.Errorf("%d accepted, %d arrived", total, n)
	}
	v.t.Logf("%d accepted, %d refused, %d deferred", total, v.refused.Load(), v.deferred.Load())
}

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
	v := fire(t, g, true, func(int, bool) (string, string) {
		return "alice@example.net", "From: alice@example.net\r\nSubject: x\r\n\r\ntext\r\n"
	})
	for range 2 {
		v.more("accepted", &v.accepted, 20)
		e.Stop()
		v.more("deferred", &v.deferred, 20)
		e.Restart()
		v.more("accepted", &v.accepted, 20)
		e.Freeze()
		v.more("deferred", &v.deferred, 4) // one a session: each waits for the milter
		e.Thaw()
	}
	v.more("accepted", &v.accepted, 20)
	v.end(sink, func(h mail.Header, _ bool) bool { return h.Count("DKIM-Signature") == 1 })
}

// victim is a filter to kill, the mail for it, and how one sees that it has seen that.
type victim struct {
	plugin  func(t *testing.T, dir string) string // its configuration
	mercy   bool
	compose func(n int, harmful bool) (from, text string)
	seen    func(h mail.Header, harmful bool) bool
}

func victims() map[string]victim {
	plain := func(int, bool) (string, string) {
		return "alice@example.net", "From: alice@example.net\r\nSubject: x\r\n\r\ntext\r\n"
	}
	return map[string]victim{
		"attachments": {
			plugin: func(*testing.T, string) string {
				return "[[plugin]]\nname = \"attachments\"\n[[plugin.settings.rule]]\nnames = [\"exe\"]\naction = \"reject\"\n[[plugin.settings.rule]]\nnames = [\"txt\"]\naction = \"strip\"\n"
			},
			compose: func(_ int, harmful bool) (string, string) {
				file := map[bool]string{true: "a.exe", false: "a.txt"}[harmful]
				return "alice@example.net", "From: alice@example.net\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" +
					"Content-Type: application/octet-stream; name=" + file + "\r\n\r\nx\r\n--b--\r\n"
			},
			seen: func(h mail.Header, _ bool) bool { return h.Count("X-Attachments-Removed") == 1 },
		},
		"banner": {
			plugin: func(*testing.T, string) string {
				return "[[plugin]]\nname = \"banner\"\n[plugin.settings]\nmail = \"submitted\"\nsubject_prefix = \"[OUT]\"\ntext = \"a disclaimer\"\n"
			},
			mercy: true, compose: plain,
			seen: func(h mail.Header, _ bool) bool {
				return h.Get("Subject") == "[OUT] x" && bytes.Count(h.Block(), []byte("a disclaimer")) == 1
			},
		},
		"dkim": {
			plugin: func(t *testing.T, dir string) string {
				if out, code := postern(t, "", "dkim", "keygen", "example.net", "--config", write(t, dir, basics)); code != 0 {
					t.Fatal(out)
				}
				return "[[plugin]]\nname = \"dkim\"\n[plugin.settings]\ndomains = [\"example.net\"]\n"
			},
			mercy: true, compose: plain,
			seen: func(h mail.Header, _ bool) bool { return h.Count("DKIM-Signature") == 1 },
		},
		"mailauth": {
			plugin: func(t *testing.T, _ string) string {
				return fmt.Sprintf("[dns]\nservers = [%q]\n[[plugin]]\nname = \"mailauth\"\norigins = [\"submitted\"]\n", startFickleDNS(t).addr)
			},
			compose: authored,
			seen:    func(h mail.Header, _ bool) bool { return authenticated(h) == "pass" },
		},
		"milter": {
			plugin: func(t *testing.T, _ string) string { return withMilter("milter", startScripted(t), "") },
			mercy:  true,
			compose: func(n int, harmful bool) (string, string) {
				from, text := plain(n, harmful)
				return from, "X-Do: header\r\n" + text
			},
			seen: func(h mail.Header, _ bool) bool { return h.Count("X-Added") == 1 },
		},
	}
}

// A filter whose process is killed again and again in the middle of mail: nothing is lost,
// doubled or passes unseen, and no message is blamed.
func TestFilterKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for name, tc := range victims() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			dir := t.TempDir()
			g := startIn(t, dir, forwarding("example.org", "smtp://"+sink.Addr())+tc.plugin(t, dir))
			line := g.log.wait(t, "plugin started", nil)
			v := fire(t, g, tc.mercy, tc.compose)
			for range 3 {
				// All that was in it when it died before has been answered since.
				v.more("sent", &v.next, 40)
				n := g.log.len()
				if err := syscall.Kill(pidOf(line), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				line = g.log.waitFrom(t, n, "plugin restarted", has("plugin", name))
			}
			v.more("sent", &v.next, 40)
			v.end(sink, tc.seen)
			if n := g.log.count("plugin", has("action", "convicted")); n != 0 {
				t.Errorf("%d messages were blamed", n)
			}
		})
	}
}

// A DNS that is silent, refuses, or lies, under load: forged mail is refused or deferred where
// that is what the admin wants, and otherwise says that nobody knows; it never passes.
func TestMailauthOutageUnderLoad(t *testing.T) {
	t.Parallel()
	for temperror, mercy := range map[string]bool{"tempfail": false, "accept": true} {
		t.Run(temperror, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			d := startFickleDNS(t)
			g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+fmt.Sprintf(
				"[dns]\nservers = [%q]\n[[plugin]]\nname = \"mailauth\"\norigins = [\"submitted\"]\n[plugin.settings]\ntimeout = \"300ms\"\ntemperror = %q\n", d.addr, temperror))
			v := fire(t, g, mercy, authored)
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
			v.end(sink, func(h mail.Header, harmful bool) bool {
				switch authenticated(h) {
				case "pass":
					return !harmful
				case "temperror":
					return mercy
				}
				return false
			})
		})
	}
}

// authored is mail of a domain that no other message is from, so that nobody remembers its
// records; harmful mail is forged.
func authored(n int, harmful bool) (from, text string) {
	domain := fmt.Sprintf("d%d.%s.test", n, map[bool]string{true: "forged", false: "fine"}[harmful])
	return "ann@" + domain, "Authentication-Results: mx.example.org; dmarc=pass\r\nFrom: ann@" + domain + "\r\nSubject: x\r\n\r\ntext\r\n"
}

// authenticated is the result of DMARC in the one field of our name, at the top.
func authenticated(h mail.Header) string {
	if h.Count("Authentication-Results") != 1 || !bytes.HasPrefix(h.Block(), []byte("Authentication-Results:")) {
		return "missing"
	}
	_, v, _ := strings.Cut(h.Get("Authentication-Results"), "dmarc=")
	return strings.FieldsFunc(v+" -", unicode.IsSpace)[0]
}

// fickleDNS answers for d*.fine.test, whose mail comes from 127.0.0.1, and d*.forged.test, whose
// mail comes from nowhere; both want forgeries rejected. Its mood says how else it answers.
type fickleDNS struct {
	addr string
	mood atomic.Value // string
}

func startFickleDNS(t testing.TB) *fickleDNS {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &fickleDNS{addr: pc.LocalAddr().String()}
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
	name := q.Question[0].Name
	var text string
	switch policy, fine := strings.HasPrefix(name, "_dmarc."), strings.HasSuffix(name, ".fine.test."); {
	case strings.Count(name, ".") != map[bool]int{true: 4, false: 3}[policy] || q.Question[0].Qtype != dns.TypeTXT:
		r.Rcode = dns.RcodeNameError
	case policy:
		text = "v=DMARC1; p=reject"
	case fine:
		text = "v=spf1 ip4:127.0.0.1 -all"
	default:
		text = "v=spf1 -all"
	}
	if text != "" {
		r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{text}}}
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

// What makes copies dies and hangs under load: of every message that was accepted there is one copy.
func TestCopiesKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{"bcc": `copies = {"example.org" = "all@archive.test"}`, "journal": `to = "all@archive.test"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink, archive := smtptest.New(t, smtptest.Options{}), smtptest.New(t, smtptest.Options{})
			g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+strings.TrimPrefix(forwarding("archive.test", "smtp://"+archive.Addr()), basics)+
				fmt.Sprintf("[[plugin]]\nname = %q\ntimeout = \"2s\"\n[plugin.settings]\n%s\n", name, settings))
			line := g.log.wait(t, "plugin started", nil)
			v := fire(t, g, true, func(int, bool) (string, string) { return "alice@example.net", "Subject: x\r\n\r\ntext\r\n" })
			for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGKILL} {
				v.more("sent", &v.next, 40)
				n := g.log.len()
				if err := syscall.Kill(pidOf(line), signal); err != nil {
					t.Fatal(err)
				}
				line = g.log.waitFrom(t, n, "plugin restarted", has("plugin", name))
			}
			v.more("sent", &v.next, 40)
			v.end(sink, func(mail.Header, bool) bool { return true })
			copies := make(map[string]int)
			for _, m := range archive.Wait(t, int(v.accepted.Load()), patience) {
				for _, id := range volleyID.FindAllString(string(m.Data), 1) {
					copies[id]++
				}
			}
			for _, m := range sink.Messages() {
				if id := mail.NewHeader(m.Data).Get("Message-ID"); copies[id] != 1 {
					t.Errorf("%d copies of %s", copies[id], id)
				}
			}
			if n := len(archive.Messages()); n != int(v.accepted.Load()) {
				t.Errorf("%d copies of %d messages", n, v.accepted.Load())
			}
		})
	}
}

var volleyID = regexp.MustCompile(`<[0-9]+@volley>`)
