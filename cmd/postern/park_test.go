package main_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

// The scanner of these tests marks what it has seen, and mail waits for it when it is away.
func scanner(t testing.TB, out *smtptest.Sink) string {
	return forwarding("example.org", "smtp://"+out.Addr()) + fmt.Sprintf("[[plugin]]\nname = \"av\"\ncommand = %q\non_failure = \"park\"\ntimeout = \"2s\"\n", program(t, "scanner"))
}

// scannable is mail of which every tenth message is large. All of it has to be accepted at
// once, and arrives as it was sent, below the one field of the scanner.
func scannable(sessions int) ammunition {
	return ammunition{sessions: sessions, mercy: true,
		compose: func(n int, _ bool) (string, string) {
			size := small
			if n%10 == 9 {
				size = large
			}
			return "alice@example.net", "Subject: a letter\r\n  folded\r\n\r\n" + strings.Repeat(fmt.Sprintf(".line of %d %s\r\n", n, strings.Repeat("x", 60)), size/80)
		},
		seen: func(h mail.Header, s *shot) bool {
			return h.Count("X-Scanned") == 1 && bytes.HasSuffix(s.data, []byte(s.text))
		},
	}
}

// scanned ends a volley of which nothing was deferred, when the scanner is back.
func scanned(v *volley) {
	v.t.Helper()
	v.end()
	if n := v.deferred.Load(); n > 0 {
		v.t.Errorf("mail was deferred %d times", n)
	}
}

// parkedIn is how many messages wait for the plugin.
func parkedIn(g *gateway) int {
	n := 0
	for _, q := range g.queue() {
		if q.State == "parked" && strings.HasPrefix(q.Reason, "waits for plugin av") {
			n++
		}
	}
	return n
}

// A scanner that an admin takes away under load: mail is accepted and waits; when the scanner
// is back, all of it goes on by itself.
func TestParkedUnderLoadPluginDisabled(t *testing.T) {
	t.Parallel()
	out := smtptest.New(t, smtptest.Options{})
	g := start(t, scanner(t, out))
	v := fire(t, g, out, scannable(6))
	v.more("accepted", &v.accepted, 100)
	g.must("plugin", "disable", "av") // in the middle
	v.more("accepted", &v.accepted, 100)
	v.cease()
	total := int(v.accepted.Load())
	// What did not meet the scanner in time is parked, all else has passed.
	eventually(t, "what is left waits for the scanner", func() bool {
		return parkedIn(g)+len(out.Messages()) == total
	})
	if n := parkedIn(g); n < 100 {
		t.Errorf("%d messages are parked, want all that came when the scanner was away", n)
	}
	g.must("plugin", "enable", "av")
	scanned(v)
}

// A scanner that hangs under load: it is killed and restarted, and what waited for it goes on.
func TestParkedUnderLoadPluginHangs(t *testing.T) {
	t.Parallel()
	out := smtptest.New(t, smtptest.Options{})
	g := start(t, scanner(t, out))
	v := fire(t, g, out, scannable(20))
	v.more("accepted", &v.accepted, 100)
	v.strike(syscall.SIGSTOP, "av")
	// Calls ended by their deadline, and the messages in them waited.
	if g.log.count("plugin", has("plugin", "av", "action", "failed: park")) == 0 {
		t.Error("no message waited")
	}
	v.more("accepted", &v.accepted, 100)
	scanned(v)
}

// A scanner that is killed again and again under load: nothing passes it.
func TestParkedUnderLoadPluginKilled(t *testing.T) {
	t.Parallel()
	out := smtptest.New(t, smtptest.Options{})
	g := start(t, scanner(t, out))
	v := fire(t, g, out, scannable(6))
	for range 3 {
		v.more("accepted", &v.accepted, 50)
		v.strike(syscall.SIGKILL, "av")
	}
	v.more("accepted", &v.accepted, 50)
	scanned(v)
}

func pidOf(line map[string]any) int { return int(line["pid"].(float64)) }

// Mail that was parked when the gateway ended goes on at the next start.
func TestParkedMailGoesOnAtTheStart(t *testing.T) {
	t.Parallel()
	out := smtptest.New(t, smtptest.Options{})
	config := scanner(t, out)
	g := start(t, config)
	g.must("plugin", "disable", "av")
	for range 5 {
		g.deliver(sender, []string{"b@example.org"}, "Subject: x\r\n\r\ntext")
	}
	if n := parkedIn(g); n != 5 {
		t.Fatalf("%d messages are parked", n)
	}
	g.kill()
	g = startIn(t, g.dir, config)
	out.Wait(t, 5, patience)
	g.drained()
}
