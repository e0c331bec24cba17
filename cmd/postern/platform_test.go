package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// These tests have the plugin puppet, a process of its own, do everything that a verdict
// can say, and look at the bytes at the next hop.

// platform is a gateway with an MX and an LMTP listener and one puppet, p.
func platform(t testing.TB, keys, settings string) (*gateway, *sink) {
	t.Helper()
	sink := newSink(t)
	g := start(t, strangers+"[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"lmtp\"\n"+exampleTo(sink)+puppet(t, "p", keys, settings))
	return g, sink
}

// puppeteer makes a message with a field X-Do for each command.
func puppeteer(body string, commands ...string) string {
	var b strings.Builder
	for _, c := range commands {
		b.WriteString("X-Do: " + c + "\r\n")
	}
	return b.String() + "From: a@a.test\r\nSubject: subject\r\n\r\n" + body
}

// whole is a message at the next hop without our Received field.
func whole(t testing.TB, m arrived) string {
	t.Helper()
	rest, ok := strings.CutPrefix(m.Data, "Received: from ")
	if !ok {
		t.Fatalf("no Received field at the top of\n%s", m.Data)
	}
	for {
		i := strings.Index(rest, "\r\n")
		rest = rest[i+2:]
		if rest == "" || rest[0] != '\t' {
			return rest
		}
	}
}

// transaction begins a message to five recipients and returns once DATA has been said.
func transaction(t testing.TB, addr, hello string) *client {
	t.Helper()
	c := dial(t, addr)
	c.cmd(250, "%s client.example.net", hello)
	c.cmd(250, "MAIL FROM:<from@a.test>")
	for _, to := range strings.Fields("r0 r1 r2 r3 r4") {
		c.cmd(250, "RCPT TO:<%s@example.org>", to)
	}
	c.cmd(354, "DATA")
	return c
}

// One DATA with five recipients has five outcomes. An SMTP client gets the one answer that
// is true of all, for the message was accepted; an LMTP client gets five.
func TestFiveRecipientsFiveOutcomes(t *testing.T) {
	t.Parallel()
	text := puppeteer("x\r\n.\r\n", "@1 verdict reject", "@2 verdict tempfail", "@3 verdict quarantine", "@4 verdict discard")
	states := func(g *gateway) string {
		var out []string
		for _, q := range g.queue() {
			out = append(out, q.Recipient+" "+q.State)
		}
		return strings.Join(out, "\n")
	}
	t.Run("smtp", func(t *testing.T) {
		t.Parallel()
		g, sink := platform(t, "", "")
		c := transaction(t, g.addr[0], "EHLO")
		c.send(text)
		queuedAs(t, c.expect(250))
		c.cmd(250, "NOOP") // there is no second answer
		got := sink.wait(t, "one", func(m []arrived) bool { return len(m) > 0 })
		g.log.wait(t, "delivered", nil)
		if len(got) != 1 || fmt.Sprint(got[0].To) != "[r0@example.org]" {
			t.Errorf("arrived: %v", got)
		}
		if s := states(g); s != "r1@example.org held\nr2@example.org parked\nr3@example.org held" {
			t.Error(s)
		}
		g.log.wait(t, "discarded", has("to", "r4@example.org"))
	})
	t.Run("lmtp", func(t *testing.T) {
		t.Parallel()
		g, sink := platform(t, "", "")
		c := transaction(t, g.addr[1], "LHLO")
		c.send(text)
		c.expect(250)
		if s := c.expect(550); s != "5.7.1 Refused by puppet" {
			t.Error(s)
		}
		if s := c.expect(450); s != "4.7.1 Not now by puppet" {
			t.Error(s)
		}
		c.expect(250)
		c.expect(250)
		c.cmd(250, "NOOP")
		sink.wait(t, "one", func(m []arrived) bool { return len(m) > 0 })
		g.log.wait(t, "delivered", nil)
		if s := states(g); s != "r3@example.org held" {
			t.Error(s)
		}
	})
	for name, tc := range map[string]struct {
		commands []string
		code     int
	}{
		"all refused":             {[]string{"verdict reject"}, 550},
		"refused or put off":      {[]string{"verdict reject", "@3 verdict tempfail"}, 450},
		"one discarded":           {[]string{"verdict reject", "@3 verdict discard"}, 250},
		"all but one quarantined": {[]string{"verdict quarantine", "@3 verdict tempfail"}, 250},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := platform(t, "", "")
			c := transaction(t, g.addr[0], "EHLO")
			c.send(puppeteer("x\r\n.\r\n", tc.commands...))
			c.expect(tc.code)
			if q := g.queue(); (len(q) > 0) != (tc.code == 250 && !strings.Contains(name, "discarded")) && name != "one discarded" {
				t.Errorf("queue %v", q)
			}
		})
	}
}

// One DATA with five recipients, each with edits of his own: five envelopes and headers.
func TestFiveRecipientsFiveVersions(t *testing.T) {
	t.Parallel()
	g, sink := platform(t, "", "")
	c := transaction(t, g.addr[0], "EHLO")
	c.send(puppeteer("text\r\n.\r\n", "@0 insert 0 X-For zero", "@1 change 0 Subject one", "@2 from two@b.test", "@3 body upper", "@4 remove 0 From",
		"insert -1 X-All yes", "@2,4 insert -1 X-Even yes"))
	c.expect(250)
	got := sink.wait(t, "five", func(m []arrived) bool { return len(m) == 5 })
	slices.SortFunc(got, func(a, b arrived) int { return strings.Compare(a.To[0], b.To[0]) })
	for i, want := range []arrived{
		{From: "from@a.test", Data: "From: a@a.test\r\nSubject: subject\r\nX-All: yes\r\n\r\ntext\r\n"},
		{From: "from@a.test", Data: "From: a@a.test\r\nSubject: one\r\nX-All: yes\r\n\r\ntext\r\n"},
		{From: "two@b.test", Data: "From: a@a.test\r\nSubject: subject\r\nX-All: yes\r\nX-Even: yes\r\n\r\ntext\r\n"},
		{From: "from@a.test", Data: "From: a@a.test\r\nSubject: subject\r\nX-All: yes\r\n\r\nTEXT\r\n"},
		{From: "from@a.test", Data: "Subject: subject\r\nX-All: yes\r\nX-Even: yes\r\n\r\ntext\r\n"},
	} {
		m := got[i]
		if i == 0 { // above Received
			field, rest, _ := strings.Cut(m.Data, "\r\n")
			if field != "X-For: zero" {
				t.Errorf("first field %q", field)
			}
			m.Data = rest
		}
		if to := fmt.Sprintf("[r%d@example.org]", i); m.From != want.From || fmt.Sprint(m.To) != to || whole(t, m) != want.Data {
			t.Errorf("version %d: from %s to %v\n%s", i, m.From, m.To, m.Data)
		}
	}
}

// Every edit of a header, to the byte: what is not edited stays as it is.
func TestHeaderEditsOnTheWire(t *testing.T) {
	t.Parallel()
	g, sink := platform(t, "", "")
	const before = "A: 1\r\nodd:  x  \r\n\ty\r\nA: 2\r\na: 3\r\nB: \xe4\r\n"
	for i, tc := range []struct {
		commands []string
		after    string
	}{
		{nil, before},
		{[]string{"insert 1 X new"}, "X: new\r\n" + before}, // 0 is above Received
		{[]string{"insert 2 X new"}, "A: 1\r\nX: new\r\nodd:  x  \r\n\ty\r\nA: 2\r\na: 3\r\nB: \xe4\r\n"},
		{[]string{"insert -1 X new"}, before + "X: new\r\n"},
		{[]string{"insert 99 X new"}, before + "X: new\r\n"},
		{[]string{"change 1 A two"}, "A: 1\r\nodd:  x  \r\n\ty\r\nA: two\r\na: 3\r\nB: \xe4\r\n"},
		{[]string{"change 2 A three"}, "A: 1\r\nodd:  x  \r\n\ty\r\nA: 2\r\nA: three\r\nB: \xe4\r\n"},
		{[]string{"change 0 A"}, "odd:  x  \r\n\ty\r\nA: 2\r\na: 3\r\nB: \xe4\r\n"},
		{[]string{"change 7 A new"}, before + "A: new\r\n"}, // as the milter protocol does
		{[]string{"change 0 Odd"}, "A: 1\r\nA: 2\r\na: 3\r\nB: \xe4\r\n"},
		{[]string{"remove 1 A"}, "A: 1\r\nodd:  x  \r\n\ty\r\na: 3\r\nB: \xe4\r\n"},
		{[]string{"remove -1 A"}, "odd:  x  \r\n\ty\r\nB: \xe4\r\n"},
		{[]string{"remove 3 A", "remove 0 Nothing"}, before},
		{[]string{"insert 1 X one", "change 0 X two", "insert 1 X three", "remove 1 X"}, "X: three\r\n" + before},
	} {
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		var do strings.Builder
		for _, command := range tc.commands {
			do.WriteString("X-Do: " + command + "\r\n")
		}
		c.message("from@a.test", []string{"r@example.org"}, before+do.String()+"\r\nbody\r\n..dot")
		got := sink.wait(t, "the next", func(m []arrived) bool { return len(m) == i+1 })[i]
		if text := whole(t, got); text != tc.after+"\r\nbody\r\n.dot\r\n" {
			t.Errorf("%q:\n%q\nwant\n%q", tc.commands, text, tc.after)
		}
	}
}

// Recipients and the reverse-path, as the next hop is told them.
func TestEnvelopeEditsOnTheWire(t *testing.T) {
	t.Parallel()
	g, sink := platform(t, "", "")
	for i, tc := range []struct {
		commands []string
		from, to string
	}{
		{[]string{"rcpt+ new@example.org"}, "from@a.test", "r0@example.org r1@example.org new@example.org"},
		{[]string{"rcpt+ r1@example.org"}, "from@a.test", "r0@example.org r1@example.org"},
		{[]string{"rcpt- r0@example.org"}, "from@a.test", "r1@example.org"},
		{[]string{"rcpt- r0@example.org", "rcpt- r1@example.org", "rcpt+ only@example.org"}, "from@a.test", "only@example.org"},
		{[]string{"rcpt- nobody@example.org"}, "from@a.test", "r0@example.org r1@example.org"},
		{[]string{"from other@b.test"}, "other@b.test", "r0@example.org r1@example.org"},
		{[]string{"from"}, "", "r0@example.org r1@example.org"},
	} {
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		c.message("from@a.test", []string{"r0@example.org", "r1@example.org"}, puppeteer("x", tc.commands...))
		got := sink.wait(t, "the next", func(m []arrived) bool { return len(m) == i+1 })[i]
		if got.From != tc.from || strings.Join(got.To, " ") != tc.to {
			t.Errorf("%q: from <%s> to %v", tc.commands, got.From, got.To)
		}
	}
	// An edit limited to one recipient, with a copy: three versions.
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.message("from@a.test", []string{"r0@example.org", "r1@example.org"}, puppeteer("x", "@1 from vip@b.test", "copy archive@example.org post@b.test"))
	var lines []string
	for _, m := range sink.wait(t, "three more", func(m []arrived) bool { return len(m) == 10 })[7:] {
		lines = append(lines, m.From+" "+strings.Join(m.To, " "))
	}
	slices.Sort(lines)
	if s := strings.Join(lines, "; "); s != "from@a.test r0@example.org; post@b.test archive@example.org; vip@b.test r1@example.org" {
		t.Error(s)
	}
}

// left is what is in a directory of the gateway's data.
func (g *gateway) left(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(g.dir, "data", dir, "*"))
	return slices.DeleteFunc(names, func(n string) bool { return filepath.Base(n) == "corrupt" })
}

// A body that a plugin wrote arrives to the byte, whatever its size; nothing is left behind.
func TestReplacedBodyOnTheWire(t *testing.T) {
	t.Parallel()
	g, sink := platform(t, "", "")
	for i, size := range []int{1, 4 << 10, 100 << 10, 3 << 20} {
		body := strings.Repeat("abc..de\r\n", size/9) + strings.Repeat("x", size%9) + "\r\n.\r\n\r\n"
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		c.message("from@a.test", []string{"r@example.org"}, puppeteer(strings.ReplaceAll(body, "\r\n.", "\r\n.."), "body upper"))
		got := sink.wait(t, "the next", func(m []arrived) bool { return len(m) == i+1 })[i]
		if want := "From: a@a.test\r\nSubject: subject\r\n\r\n" + strings.ToUpper(body) + "\r\n"; whole(t, got) != want {
			t.Errorf("size %d: %d bytes arrived, want %d", size, len(whole(t, got)), len(want))
		}
	}
	g.stop()
	if l := g.left("drafts"); len(l) != 0 {
		t.Errorf("drafts left: %v", l)
	}
}

// TestG04: half a body, or one that could smuggle (S-15), never gets anywhere, and with
// on_failure = accept the original does not go on without saying so.
func TestG04BodiesThatAreNone(t *testing.T) {
	t.Parallel()
	old := strings.Repeat("the original\r\n", 10_000)
	for _, choice := range []string{"tempfail", "accept"} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			g, sink := platform(t, fmt.Sprintf("timeout = \"500ms\"\non_failure = %q", choice), "")
			c := dial(t, g.addr[0])
			c.cmd(250, "EHLO client.example.net")
			for i, how := range []string{"stall", "lf", "cr", "nul"} {
				c.cmd(250, "MAIL FROM:<from@a.test>")
				c.cmd(250, "RCPT TO:<r@example.org>")
				c.cmd(354, "DATA")
				c.send(puppeteer(old+".\r\n", "body "+how))
				if choice == "tempfail" {
					c.expect(451)
				} else {
					c.expect(250)
					got := sink.wait(t, "the next", func(m []arrived) bool { return len(m) == i+1 })[i]
					why := "error"
					if how == "stall" {
						why = "timeout"
					}
					if !strings.HasPrefix(got.Data, "X-Postern-Unscanned: p ("+why+")\r\n") || !strings.HasSuffix(got.Data, "\r\n\r\n"+old) {
						t.Errorf("%s: %d bytes arrived:\n%.200s", how, len(got.Data), got.Data)
					}
				}
			}
			if l := g.left("content"); choice == "tempfail" && len(l) != 0 {
				t.Errorf("content left: %v", l)
			}
			before := len(sink.mail())
			// The plugin dies of this one, and again when it has it alone: it is held.
			id := c.message("from@a.test", []string{"r@example.org"}, puppeteer(old, "body half"))
			if q := g.queue(); len(q) != 1 || q[0].ID != id || q[0].State != "held" {
				t.Errorf("queue %v", q)
			}
			if got := sink.mail(); len(got) != before || choice == "tempfail" && before != 0 {
				t.Errorf("%d messages arrived", len(got))
			}
			if l := g.left("drafts"); len(l) != 0 {
				t.Errorf("drafts left: %v", l)
			}
			if l := g.left("content"); choice == "tempfail" && len(l) != 1 {
				t.Errorf("content: %v, want that of the message that is held", l)
			}
		})
	}
}

// A body is replaced as well when parked mail goes on, and after a restart nothing is left
// of what a killed gateway's plugin was writing.
func TestReplacedBodyOfParkedMail(t *testing.T) {
	t.Parallel()
	g, sink := platform(t, `on_failure = "park"`, "fail = true")
	body := strings.Repeat("parked\r\n", 10_000)
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.message("from@a.test", []string{"r@example.org"}, puppeteer(body, "body upper"))
	if q := g.queue(); len(q) != 1 || q[0].State != "parked" {
		t.Fatal(q)
	}
	g.kill()
	if err := os.Mkdir(filepath.Join(g.dir, "data", "drafts"), 0o710); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "data", "drafts", "LEFT"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	g = startIn(t, g.dir, string(config))
	if l := g.left("drafts"); len(l) != 0 {
		t.Errorf("drafts left: %v", l)
	}
	write(t, g.dir, strings.Replace(string(config), "fail = true", "", 1))
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.log.wait(t, "configuration reloaded", nil)
	g.must("queue", "retry", "--all")
	got := sink.wait(t, "it", func(m []arrived) bool { return len(m) == 1 })[0]
	if want := strings.ToUpper(body) + "\r\n"; !strings.HasSuffix(whole(t, got), "\r\n\r\n"+want) {
		t.Errorf("%d bytes arrived", len(got.Data))
	}
	g.stop()
	if l := append(g.left("content"), g.left("drafts")...); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}
