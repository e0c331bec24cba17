package main_test

import (
	"cmp"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// puppetOnce builds testdata/plugins/puppet, which does what mail tells it to.
var puppetOnce = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "puppet")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/plugins/puppet")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// puppet is the configuration of that plugin; keys are more of its table's, settings its own.
func puppet(t testing.TB, name, keys, settings string) string {
	t.Helper()
	path, err := puppetOnce()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[[plugin]]\nname = %q\ncommand = %q\n%s\n[plugin.settings]\n%s\n", name, path, keys, settings)
}

// strangers is basics for a test whose client is in no relay network.
var strangers = strings.Replace(basics, `networks = ["127.0.0.0/8"]`, "networks = []", 1)

func exampleTo(sink *sink) string {
	return fmt.Sprintf("[[domain]]\nname = \"example.org\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", sink.addr)
}

// notes are the X-Notes fields at the next hop, in order.
func notes(m arrived) string {
	var all []string
	for line := range strings.SplitSeq(m.Data, "\r\n") {
		if v, ok := strings.CutPrefix(line, "X-Notes: "); ok {
			all = append([]string{v}, all...) // each was added at the top
		}
	}
	return strings.Join(all, "\n")
}

// A gate is asked at each stage once policy has no objection, its refusal is the reply to
// that command and to nothing else, and what it notes reaches later gates and filters:
// of connect and HELO in the whole session, of MAIL and RCPT in the transaction.
func TestGates(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, strangers+exampleTo(sink)+puppet(t, "p", "", "tell = true"))
	c := dial(t, g.addr[0])
	if text := c.cmd(550, "HELO reject.example"); text != "5.7.1 Refused at HELO" {
		t.Errorf("reply %q", text)
	}
	c.cmd(450, "EHLO tempfail.example")
	c.cmd(250, "EHLO client.example")
	c.cmd(550, "MAIL FROM:<reject@a.test>")
	c.cmd(450, "MAIL FROM:<tempfail@a.test>")
	c.cmd(250, "MAIL FROM:<alice@a.test> SIZE=1000")
	if text := c.cmd(550, "RCPT TO:<reject@elsewhere.test>"); text != "5.7.1 Relaying denied" {
		t.Errorf("the gate was asked before policy: %q", text)
	}
	c.cmd(550, "RCPT TO:<reject@example.org>")
	c.cmd(450, "RCPT TO:<tempfail@example.org>")
	c.cmd(250, "RCPT TO:<bob@example.org>")
	c.cmd(250, "RCPT TO:<carol@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: x\r\n\r\nx\r\n.\r\n")
	c.expect(250)
	c.cmd(250, "EHLO again.example")
	c.message("dave@a.test", []string{"bob@example.org"}, "Subject: x\r\n\r\nx")
	got := sink.wait(t, "both", func(m []arrived) bool { return len(m) == 2 })
	if strings.Join(got[0].To, " ") != "bob@example.org carol@example.org" {
		t.Errorf("recipients %v", got[0].To)
	}
	for i, want := range []string{
		"p/HELO: client after 1 notes, incoming\np/MAIL: alice+1000 after 2 notes, incoming\np/RCPT: carol+1 after 4 notes, incoming\np/connect:  after 0 notes, incoming",
		"p/HELO: again after 1 notes, incoming\np/MAIL: dave+0 after 2 notes, incoming\np/RCPT: bob+0 after 3 notes, incoming\np/connect:  after 0 notes, incoming",
	} {
		if n := notes(got[i]); n != want {
			t.Errorf("message %d has the notes\n%s\nwant\n%s", i, n, want)
		}
	}
	g.log.wait(t, "refused by plugin", has("plugin", "p", "stage", "RCPT", "status", "550 5.7.1 Refused at RCPT"))
}

// At connect a refusal is what comes instead of the banner, and the session is over.
func TestGateAtConnect(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]int{"reject": 550, "tempfail": 450, "error": 421} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			g := start(t, strangers+puppet(t, "p", "", fmt.Sprintf("connect = %q", word)))
			c := connect(t, g.addr[0])
			c.expect(want)
			if _, err := c.r.ReadByte(); err == nil {
				t.Error("the session goes on")
			}
		})
	}
}

// TestG01 (gates): whatever goes wrong in a gate, the command gets what on_failure says,
// and the session goes on.
func TestG01GateFails(t *testing.T) {
	t.Parallel()
	for choice, want := range map[string]struct {
		code int
		text string
	}{
		"tempfail": {451, "4.3.0 Cannot be checked now, try again later"},
		"park":     {250, ""}, // it is a filter as well, and sees the message
		"reject":   {554, "5.3.0 Cannot be checked"},
		"accept":   {250, ""},
	} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			sink := newSink(t)
			g := start(t, strangers+exampleTo(sink)+puppet(t, "p", fmt.Sprintf("timeout = \"500ms\"\non_failure = {default = \"tempfail\", error = %[1]q, timeout = %[1]q, down = %[1]q}", choice), "tell = true"))
			c := dial(t, g.addr[0])
			c.cmd(250, "EHLO client.example")
			for i, word := range []string{"error", "panic", "unscanned", "hang", "exit"} {
				if text := c.cmd(want.code, "MAIL FROM:<%s@a.test>", word); want.text != "" && text != want.text {
					t.Errorf("%s: %q", word, text)
				}
				if word == "exit" {
					g.log.wait(t, "plugin restarted", nil)
				}
				if want.code != 250 {
					c.cmd(250, "MAIL FROM:<fine@a.test>")
				}
				c.cmd(250, "RCPT TO:<bob@example.org>")
				c.cmd(354, "DATA")
				c.send("Subject: x\r\n\r\nx\r\n.\r\n")
				c.expect(250)
				got := sink.wait(t, word, func(m []arrived) bool { return len(m) > i })[i]
				marked := strings.Contains(notes(got), "p/unscanned: "+map[string]string{"unscanned": "no answer from DNS", "hang": "timeout", "exit": "down"}[word])
				parked := strings.Contains(notes(got), "p/missed MAIL: "+cmp.Or(map[string]string{"hang": "timeout", "exit": "down"}[word], "error"))
				if marked != (choice == "accept") || parked != (choice == "park") {
					t.Errorf("%s: notes %s", word, notes(got))
				}
			}
			if n := pluginsOf(g)[0]; n.NoVerdict != (choices{}) ||
				n.NoAnswer != map[string]choices{"tempfail": {Deferred: 5}, "reject": {Rejected: 5}, "accept": {Unscanned: 5}, "park": {Parked: 5}}[choice] {
				t.Errorf("counted are %+v", n)
			}
			if out := g.must("check"); strings.Contains(out, "(where it is a gate, before there is a message to park: the session goes on)") != (choice == "park") {
				t.Errorf("check says\n%s", out)
			}
		})
	}
}

// TestG01GateDiesAtEachStage: at whatever stage a gate dies, that command gets what on_failure
// says, another session goes on, and the gate is there again.
func TestG01GateDiesAtEachStage(t *testing.T) {
	t.Parallel()
	for stage, lines := range map[string][]string{
		"connect": nil,
		"HELO":    {"EHLO exit.example"},
		"MAIL":    {"EHLO client.example", "MAIL FROM:<exit@a.test>"},
		"RCPT":    {"EHLO client.example", "MAIL FROM:<a@a.test>", "RCPT TO:<exit@example.org>"},
	} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			sink := newSink(t)
			settings := ""
			if stage == "connect" {
				settings = `connect = "exit"`
			}
			g := start(t, strangers+exampleTo(sink)+puppet(t, "p", "", settings))
			if stage == "connect" {
				connect(t, g.addr[0]).expect(421)
				g.log.wait(t, "plugin died", has("plugin", "p"))
				return
			}
			other := dial(t, g.addr[0])
			other.cmd(250, "EHLO client.example")
			other.cmd(250, "MAIL FROM:<a@a.test>")
			c := dial(t, g.addr[0])
			for i, line := range lines {
				if i < len(lines)-1 {
					c.cmd(250, "%s", line)
				} else if text := c.cmd(451, "%s", line); text != "4.3.0 Cannot be checked now, try again later" {
					t.Errorf("the reply is %q", text)
				}
			}
			g.log.wait(t, "plugin restarted", has("plugin", "p"))
			other.cmd(250, "RCPT TO:<b@example.org>")
			other.cmd(354, "DATA")
			other.send("Subject: x\r\n\r\nx\r\n.\r\n")
			other.expect(250)
			c.cmd(250, "EHLO client.example")
			c.message("a@a.test", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
			sink.wait(t, "both", func(m []arrived) bool { return len(m) == 2 })
		})
	}
}

// A plugin that is gate and filter and is away, with park: sessions go on at every stage, the
// message waits for it, and the trace says what it gave no answer to.
func TestGateIsAwayAndItsMailWaits(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	g := start(t, strangers+exampleTo(sink)+puppet(t, "p", `on_failure = "park"`, "tell = true"))
	g.must("plugin", "disable", "p")
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO reject.example") // nobody sees it
	c.message("alice@a.test", []string{"bob@example.org"}, "Subject: x\r\n\r\nx")
	queued := g.queue()
	if len(queued) != 1 || queued[0].State != "parked" || queued[0].Reason != "waits for plugin p (down)" {
		t.Fatalf("the queue has %+v", queued)
	}
	g.log.wait(t, "plugin", has("plugin", "p", "action", "failed: park",
		"reason", "down: plugin p: down: disabled by an admin; gave no answer at connect (down), HELO (down), MAIL (down), RCPT (down)"))
	g.must("plugin", "enable", "p")
	got := sink.wait(t, "it", func(m []arrived) bool { return len(m) == 1 })[0]
	if want := "p/missed HELO: down\np/missed MAIL: down\np/missed RCPT: down\np/missed connect: down"; notes(got) != want {
		t.Errorf("notes\n%s\nwant\n%s", notes(got), want)
	}
}

// Origins choose for gates too. A gate that a reload adds is asked in sessions that were
// there before, one that it removes is not.
func TestGateOriginsAndReload(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	base := strangers + exampleTo(sink)
	submitted := puppet(t, "p", `origins = ["submitted"]`, "")
	g := start(t, base+submitted)
	reload := func(config string) {
		t.Helper()
		n := g.log.len()
		write(t, g.dir, config)
		g.cmd.Process.Signal(syscall.SIGHUP)
		g.log.waitFrom(t, n, "configuration reloaded", nil)
	}
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO reject.example")
	c.cmd(250, "MAIL FROM:<reject@a.test>")
	c.cmd(250, "RCPT TO:<reject@example.org>")
	reload(base + puppet(t, "p", "", ""))
	c.cmd(550, "RCPT TO:<reject@example.org>")
	c.cmd(250, "RSET")
	c.cmd(550, "MAIL FROM:<reject@a.test>")
	reload(base)
	c.cmd(250, "MAIL FROM:<reject@a.test>")
	c.cmd(250, "RCPT TO:<reject@example.org>")
	reload(strings.Replace(base, "networks = []", `networks = ["127.0.0.0/8"]`, 1) + submitted)
	c = dial(t, g.addr[0])
	c.cmd(550, "EHLO reject.example")
}
