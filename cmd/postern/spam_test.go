package main_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// theirs makes every client of these tests a stranger, whose mail is judged.
func theirs(config string) string {
	return strings.Replace(config, `networks = ["127.0.0.0/8"]`, `networks = ["192.0.2.0/24"]`, 1)
}

// GTUBE is refused while the client is there; spam is marked or held by its score; what is
// clean arrives as it was sent below the fields that say so, and none of those is forged.
func TestSpam(t *testing.T) {
	t.Parallel()
	const forged = "X-Spam-Flag: NO\r\nx-spam-status: No, score=-100\r\nX-Spam-Score: -100\r\nX-Spam-Flag: NO\r\n"
	for engine, tc := range map[string]struct {
		settings   func(t *testing.T) string
		seven, ten string // fields of messages with these scores
		reply      string
	}{
		"rspamd": {
			func(t *testing.T) string { return fmt.Sprintf("url = %q\nreject = 20", peertest.StartRspamd(t).URL) },
			"X-Test-Score: 7\r\nSubject: x\r\n", "X-Test-Score: 10\r\nSubject: x\r\n", "5.7.1 Gtube pattern",
		},
		"spamassassin": {
			func(t *testing.T) string {
				return fmt.Sprintf("address = %q\nreject = 15", peertest.StartSpamd(t).Address)
			},
			"Subject: spam-7\r\n", "Subject: spam-3 spam-7\r\n", "5.7.1 Message is spam",
		},
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			sink := smtptest.New(t, smtptest.Options{})
			g := start(t, theirs(filtered(sink, "spam", "", fmt.Sprintf("engine = %q\nquarantine = 9\n%s", engine, tc.settings(t)))))
			const head = "From: alice@example.net\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-ID: <1@example.net>\r\n"
			if code, reply := g.offer(head+"Subject: x\r\n\r\n"+peertest.GTUBE+"\r\n", "bob@example.org"); code != 554 || reply != tc.reply {
				t.Errorf("GTUBE: %d %s", code, reply)
			}
			arrives := func(n int, text string) mail.Header {
				t.Helper()
				if code, reply := g.offer(forged+text, "bob@example.org"); code != 250 {
					t.Fatalf("%d %s", code, reply)
				}
				m := sink.Wait(t, n, patience)[n-1].Data
				untouched(t, m, []byte(text))
				h, _ := mail.SplitMessage(m)
				return h
			}
			h := arrives(1, head+"Subject: x\r\n\r\ntext\r\n")
			if h.Has("X-Spam-Flag") || h.Get("X-Spam-Score") != "0.0" || !strings.HasPrefix(h.Get("X-Spam-Status"), "No, score=0.0 required=") || h.Count("X-Spam-Status") != 1 {
				t.Errorf("clean:\n%s", h.Block())
			}
			h = arrives(2, head+tc.seven+"\r\ntext\r\n")
			if h.Get("X-Spam-Flag") != "YES" || h.Count("X-Spam-Flag") != 1 || h.Get("X-Spam-Level") != "*******" || !strings.HasPrefix(h.Get("X-Spam-Status"), "Yes, score=7.0 required=") {
				t.Errorf("spam:\n%s", h.Block())
			}
			if code, reply := g.offer(head+tc.ten+"\r\ntext\r\n", "bob@example.org"); code != 250 {
				t.Fatalf("%d %s", code, reply)
			}
			eventually(t, "only what is held is left", func() bool {
				q := g.queue()
				return len(q) == 1 && q[0].State == "held" && strings.Contains(q[0].Reason, "spam, score 10.0 of ")
			})
		})
	}
}

// One message, three recipients: each domain has its own threshold.
func TestSpamByDomain(t *testing.T) {
	t.Parallel()
	e := peertest.StartRspamd(t)
	sink := smtptest.New(t, smtptest.Options{})
	config := theirs(filtered(sink, "spam", "", fmt.Sprintf("url = %q\n[plugin.settings.domains]\n\"strict.test\" = {reject = 5}\n\"lax.test\" = {tag = \"off\"}\n", e.URL)))
	for _, name := range []string{"strict.test", "lax.test"} {
		config += fmt.Sprintf("[[domain]]\nname = %q\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", name, sink.Addr())
	}
	g := start(t, config)
	if code, reply := g.offer("X-Test-Score: 7\r\nFrom: alice@example.net\r\nSubject: x\r\n\r\ntext\r\n", "a@example.org", "b@strict.test", "c@lax.test"); code != 250 {
		t.Fatalf("%d %s", code, reply)
	}
	got := make(map[string]string)
	for _, m := range sink.Wait(t, 2, patience) {
		h, _ := mail.SplitMessage(m.Data)
		got[strings.Join(m.To, ",")] = h.Get("X-Spam-Flag")
	}
	if len(got) != 2 || got["a@example.org"] != "YES" || got["c@lax.test"] != "" {
		t.Errorf("arrived with X-Spam-Flag %v", got)
	}
	if code, reply := g.offer("X-Test-Score: 7\r\nFrom: alice@example.net\r\nSubject: x\r\n\r\ntext\r\n", "b@strict.test"); code != 554 {
		t.Errorf("strict domain alone: %d %s", code, reply)
	}
}

// rspamd's own words: a soft reject is 451, greylisting lets the sender pass the next time,
// its header fields and subject are taken over.
func TestSpamRspamdActions(t *testing.T) {
	t.Parallel()
	e := peertest.StartRspamd(t)
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, theirs(filtered(sink, "spam", "", fmt.Sprintf("url = %q\ngreylist_delay = \"1ns\"", e.URL))))
	const head = "From: alice@example.net\r\nSubject: x\r\n"
	if code, reply := g.offer("X-Test-Action: soft reject\r\nX-Test-Message: slow down\r\n"+head+"\r\ntext\r\n", "bob@example.org"); code != 451 || reply != "4.7.1 slow down" {
		t.Errorf("soft reject: %d %s", code, reply)
	}
	for i, want := range []int{451, 250} {
		if code, reply := g.offer("X-Test-Score: 5\r\n"+head+"\r\ntext\r\n", "bob@example.org"); code != want {
			t.Errorf("greylist, try %d: %d %s", i, code, reply)
		}
	}
	if code, reply := g.offer("X-Test-Score: 9\r\nX-Test-Milter: yes\r\nX-Remove-Me: now\r\n"+head+"\r\ntext\r\n", "bob@example.org"); code != 250 {
		t.Fatalf("%d %s", code, reply)
	}
	var h mail.Header
	for _, m := range sink.Wait(t, 2, patience) { // in any order
		if one, _ := mail.SplitMessage(m.Data); one.Get("X-Test-Score") == "9" {
			h = one
		}
	}
	if h.Get("Subject") != "[spam] x" || h.Get("X-Rspamd-Test") != "yes" || h.Has("X-Remove-Me") {
		t.Errorf("header:\n%s", h.Block())
	}
}

// With an engine that is down, hangs or lies, on_failure decides, and nothing passes unseen.
func TestSpamEngineFails(t *testing.T) {
	t.Parallel()
	e := peertest.StartRspamd(t)
	e.Freeze()
	lies := func(text string) string {
		return smtptest.Serve(t, func(c net.Conn) {
			var buf [16 << 10]byte
			c.Read(buf[:])
			c.Write([]byte(text))
		})
	}
	rspamd := func(address string) string { return fmt.Sprintf("url = \"http://%s\"", address) }
	spamd := func(address string) string { return fmt.Sprintf("engine = \"spamassassin\"\naddress = %q", address) }
	for name, settings := range map[string]string{
		"down":        rspamd(deadEnd(t)),
		"hangs":       fmt.Sprintf("url = %q", e.URL),
		"garbage":     rspamd(lies("250 ok\r\n")),
		"cut off":     rspamd(lies("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"action\":\"no action\"")),
		"giant":       rspamd(lies("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("{", 2<<20))),
		"spamd down":  spamd(deadEnd(t)),
		"spamd lies":  spamd(lies("SPAMD/1.1 0 EX_OK\r\nContent-length: 1000\r\nSpam: False ; 0.0 / 5.0\r\n\r\n")),
		"spamd hangs": spamd(strings.TrimPrefix(e.URL, "http://")),
	} {
		for policy, want := range map[string]int{"tempfail": 451, "accept": 250} {
			t.Run(name+" "+policy, func(t *testing.T) {
				t.Parallel()
				sink := smtptest.New(t, smtptest.Options{})
				g := start(t, theirs(filtered(sink, "spam", fmt.Sprintf("timeout = \"1s\"\non_failure = %q", policy), settings)))
				code, reply := g.offer(letterHead+"\r\ntext\r\n", "bob@example.org")
				if code != want {
					t.Fatalf("%d %s", code, reply)
				}
				if want == 250 {
					if m := sink.Wait(t, 1, patience)[0].Data; !bytes.Contains(append([]byte("\r\n"), m...), []byte("\r\nX-Postern-Unscanned: spam (")) {
						t.Errorf("passed unmarked:\n%s", m)
					}
				}
			})
		}
	}
}
