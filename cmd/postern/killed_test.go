package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// victims are a gateway whose plugins are killed, and mail that shows whether they saw it.
type victims struct {
	*gateway
	plugins []string
	ammunition
	after func(v *volley) // looks at all that has arrived; nil: nothing more
}

// keyOf makes a key for a domain in a folder, and returns its record.
func keyOf(t testing.TB, dir, domain, selector string) map[string]string {
	t.Helper()
	out, code := postern(t, "", "dkim", "keygen", domain, "--selector", selector, "--json", "--config", write(t, dir, basics))
	var r struct{ Name, Value string }
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("keygen: exit code %d\n%s", code, out)
	}
	return map[string]string{r.Name: r.Value}
}

const oneFile = "From: alice@example.net\r\nSubject: x\r\nX-Do: header\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" +
	"Content-Type: application/octet-stream; name=%s\r\n\r\nx\r\n--b--\r\n"

// attaching is mail with an attachment that is taken out, or one that is forbidden.
func attaching(_ int, harmful bool) (from, text string) {
	return "alice@example.net", fmt.Sprintf(oneFile, map[bool]string{true: "a.exe", false: "a.txt"}[harmful])
}

// attachments takes files called *.txt out, and refuses mail with *.exe.
const attachments = "[[plugin.settings.rule]]\nnames = [\"exe\"]\naction = \"reject\"\n[[plugin.settings.rule]]\nnames = [\"txt\"]\naction = \"strip\"\n"

// submitted are the filters of our own users' mail, and what makes copies of it.
func submitted(t *testing.T, sink *smtptest.Sink) victims {
	dir := t.TempDir()
	key := keyOf(t, dir, "example.net", "s")
	archive := smtptest.New(t, smtptest.Options{})
	return victims{
		gateway: startIn(t, dir, forwarding("example.org", "smtp://"+sink.Addr())+strings.TrimPrefix(forwarding("archive.test", "smtp://"+archive.Addr()), basics)+
			"[[plugin]]\nname = \"attachments\"\ntimeout = \"2s\"\n"+attachments+
			ruled(t, dir, `addheader "X-Ruled" "yes";`)+
			withMilter("milter", startScripted(t), `timeout = "2s"`)+
			"[[plugin]]\nname = \"banner\"\ntimeout = \"2s\"\n[plugin.settings]\nmail = \"submitted\"\nsubject_prefix = \"[OUT]\"\ntext = \"a disclaimer\"\n"+
			"[[plugin]]\nname = \"bcc\"\ntimeout = \"2s\"\n[plugin.settings]\ncopies = {\"example.org\" = \"bcc@archive.test\"}\n"+
			"[[plugin]]\nname = \"journal\"\ntimeout = \"2s\"\n[plugin.settings]\nto = \"journal@archive.test\"\n"+
			"[[plugin]]\nname = \"dkim\"\ntimeout = \"2s\"\n[plugin.settings]\ndomains = [\"example.net\"]\nselector = \"s\"\n"+published(t, key)),
		plugins: []string{"attachments", "sieve", "milter", "banner", "bcc", "journal", "dkim"},
		ammunition: ammunition{compose: attaching, seen: func(h mail.Header, s *shot) bool {
			verified(t, s.id, s.data, "example.net", "rsa-sha256", key)
			return h.Count("X-Attachments-Removed") == 1 && h.Count("X-Ruled") == 1 && h.Count("X-Added") == 1 &&
				h.Get("Subject") == "[OUT] x" && bytes.Count(s.data, []byte("a disclaimer")) == 1
		}},
		after: func(v *volley) {
			n := int(v.accepted.Load())
			copies := make(map[string]int)
			for _, m := range archive.Wait(t, 2*n, patience) {
				copies[m.To[0]+" "+volleyID.FindString(string(m.Data))]++
			}
			for id, s := range v.shots {
				for _, to := range []string{"bcc@archive.test ", "journal@archive.test "} {
					if s.accepted && copies[to+id] != 1 {
						t.Errorf("%d copies of %s to %s", copies[to+id], id, to)
					}
				}
			}
			if got := len(archive.Messages()); got != 2*n {
				t.Errorf("%d copies of %d messages", got, n)
			}
		},
	}
}

var volleyID = regexp.MustCompile(`<[0-9]+@volley>`)

// incoming are the filters of strangers' mail, with their engines. Harmful mail is forged, spam,
// or has a virus.
func incoming(t *testing.T, sink *smtptest.Sink) victims {
	dir := t.TempDir()
	key := keyOf(t, dir, "example.org", "arc")
	d := startFickleDNS(t, func(name string, qtype uint16) string {
		if value := key[strings.TrimSuffix(name, ".")]; value != "" && qtype == dns.TypeTXT {
			return value
		}
		return authors(name, qtype)
	})
	f := newOutside(t, false)
	f.script(func(h *handed) error {
		return h.return250(h.To, strings.Replace(h.Text, "\r\n\r\n", "\r\nX-Filtered: yes\r\n\r\n", 1))
	})
	g := startIn(t, dir, unrelayed(sink, d.addr, "client_names = false\n"+withReinjection+
		"[[plugin]]\nname = \"mailauth\"\ntimeout = \"2s\"\n"+
		fmt.Sprintf("[[plugin]]\nname = \"spam\"\ntimeout = \"2s\"\n[plugin.settings]\nurl = %q\n", peertest.StartRspamd(t).URL)+
		fmt.Sprintf("[[plugin]]\nname = \"antivirus\"\ntimeout = \"2s\"\n[plugin.settings]\naddresses = [\"unix:%s\"]\nheader = true\n", peertest.StartClamd(t).Socket)+
		smtpfilter(f.addr, `timeout = "2s"`)+
		"[[plugin]]\nname = \"arc\"\ntimeout = \"2s\"\n[plugin.settings]\ndomain = \"example.org\"\n"))
	f.bringsTo(g.addr[1])
	return victims{
		gateway: g,
		plugins: []string{"mailauth", "spam", "antivirus", "smtpfilter", "arc"},
		ammunition: ammunition{
			compose: func(n int, harmful bool) (string, string) {
				from, text := authored(n, harmful && n/3%3 == 0)
				if harmful {
					text += []string{"", peertest.GTUBE + "\r\n", peertest.EICAR() + "\r\n"}[n/3%3]
				}
				return from, text
			},
			seen: func(h mail.Header, _ *shot) bool {
				return authenticated(h) == "pass" && h.Count("X-Spam-Status") == 1 && h.Count("X-Virus-Status") == 1 && h.Count("X-Filtered") == 1 &&
					h.Count("ARC-Seal") == 1 && !h.Has("X-Postern-Reinject")
			},
		},
		after: func(v *volley) {
			var sealed [][]byte
			for _, s := range v.shots {
				if s.got {
					sealed = append(sealed, s.data)
				}
			}
			for i, result := range dkimpy(t, "arc", sealed, key) {
				if result != "pass" {
					t.Errorf("chain: %s\n%s", result, sealed[i])
				}
			}
		},
	}
}

// gates are what is asked before there is a message: harmful mail comes from clients that are
// listed, and all other is of senders that nobody knows and have to wait.
func gates(t *testing.T, sink *smtptest.Sink) victims {
	d := startFickleDNS(t, blocking)
	return victims{
		gateway: start(t, proxied(forwarding("example.org", "smtp://"+sink.Addr()))+fmt.Sprintf("[dns]\nservers = [%q]\nclient_names = false\n", d.addr)+
			"[[plugin]]\nname = \"dnsbl\"\ntimeout = \"2s\"\n[[plugin.settings.list]]\nzone = \"bl.test\"\n"+
			strings.Replace(greylisting("delay = \"1s\"\nproven = 0"), "[plugin.settings]", "timeout = \"2s\"\n[plugin.settings]", 1)),
		plugins: []string{"dnsbl", "greylist"},
		ammunition: ammunition{sessions: 12, pace: again, proxy: strange, waits: true, compose: func(n int, _ bool) (string, string) {
			_, text := harmless(n, false)
			digits := strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j")
			return digits.Replace(fmt.Sprint(n)) + "@example.net", text // numbers do not make another sender
		}},
	}
}

// lenient is a filter whose mail passes without it, and says so.
func lenient(t *testing.T, sink *smtptest.Sink) victims {
	return victims{
		gateway: start(t, forwarding("example.org", "smtp://"+sink.Addr())+"[[plugin]]\nname = \"attachments\"\ntimeout = \"1s\"\non_failure = \"accept\"\n"+attachments),
		plugins: []string{"attachments"},
		ammunition: ammunition{compose: attaching, mercy: true, unscanned: "attachments", seen: func(h mail.Header, s *shot) bool {
			return !s.harmful && h.Count("X-Attachments-Removed") == 1
		}},
		after: func(v *volley) {
			if v.unseen == 0 || v.deferred.Load() > 0 {
				t.Errorf("%d messages passed unscanned, mail was deferred %d times", v.unseen, v.deferred.Load())
			}
		},
	}
}

// Every plugin's process is killed again and again in the middle of mail, and then all of them
// hang: nothing is lost, doubled or passes unseen, and no message is blamed.
func TestPluginsKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]func(*testing.T, *smtptest.Sink) victims{"submitted": submitted, "incoming": incoming, "gates": gates, "lenient": lenient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			g := line(t, sink)
			v := fire(t, g.gateway, sink, g.ammunition)
			for _, p := range slices.Concat(g.plugins, g.plugins) {
				v.more("sent", &v.next, 12)
				v.strike(syscall.SIGKILL, p)
			}
			v.more("sent", &v.next, 12)
			v.strike(syscall.SIGSTOP, g.plugins...)
			v.more("sent", &v.next, 20)
			v.end()
			if g.after != nil {
				g.after(v)
			}
		})
	}
}
