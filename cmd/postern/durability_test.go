package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestD01KillOnAccept kills the gateway on reading a 250, again and again: what was
// promised is delivered.
func TestD01KillOnAccept(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	g := startIn(t, dir, relayTo(s))
	rounds := often(30, 200)
	for i := range rounds {
		m := l.write([]int{small, 200, large}[i%3], "rcpt@example.com")
		if code, err := l.post(g.addr[0], m, func(int) { g.kill() }); err != nil || code != 250 {
			t.Fatalf("round %d: %d %v", i, code, err)
		}
		s.restarted()
		g = startIn(t, dir, relayTo(s))
	}
	l.arrive(s)
	g.drained()
	l.check(nil, rounds+1, s)
	if n := len(g.contents()); n > 0 {
		t.Errorf("%d content files of delivered mail are left", n)
	}
	t.Logf("%d extra copies", len(s.mail())-rounds)
}

// TestD14RemoteAcceptNotRecorded kills the gateway between the next hop's 250 and its own
// record of it: one extra copy, recognisable as one.
func TestD14RemoteAcceptNotRecorded(t *testing.T) {
	for name, size := range map[string]int{"small": small, "large": large} {
		t.Run(name, func(t *testing.T) {
			s, l, dir := newSink(t), newLedger(t), t.TempDir()
			g := startIn(t, dir, relayTo(s))
			s.script(func(verb, _ string) string {
				if verb == "DOT" {
					g.freeze() // it will never read the reply
				}
				return ""
			})
			s.after(func(verb, _ string) {
				if verb == "DOT" {
					g.kill()
				}
			})
			// The reply to the client may be lost with the gateway: then nothing is promised.
			m := l.write(size, "rcpt@example.com")
			l.post(g.addr[0], m, nil)
			<-g.done
			s.after(nil)
			s.open()
			s.restarted()
			g = startIn(t, dir, relayTo(s))
			got := s.wait(t, "two copies", func(a []arrived) bool { return len(a) == 2 })
			g.drained()
			l.check(nil, 2, s)
			if got[0].Epoch == got[1].Epoch || traceID(t, got[0]) != traceID(t, got[1]) {
				t.Errorf("copies cannot be told from two messages:\n%.300s\n%.300s", got[0].Data, got[1].Data)
			}
			if n := len(s.mail()); n != 2 {
				t.Errorf("%d copies", n)
			}
		})
	}
}

// traceID is the queue id in our trace field.
func traceID(t testing.TB, a arrived) string {
	t.Helper()
	i := strings.Index(a.Data, "From: ")
	found := receivedField.FindStringSubmatch(a.Data[:max(i, 0)])
	if found == nil {
		t.Fatalf("no trace field in %.300q", a.Data)
	}
	return found[1]
}

// TestD15MultiRecipientProgress kills the gateway when some next hops have confirmed: they
// do not get the message again, the others get it.
func TestD15MultiRecipientProgress(t *testing.T) {
	const hops = 10
	ks := []int{1, 5, 9}
	if often(0, 1) == 1 {
		ks = []int{1, 2, 3, 4, 5, 6, 7, 8, 9}
	}
	for _, k := range ks {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			l, dir, config := newLedger(t), t.TempDir(), basics
			var sinks []*sink
			var to []string
			for i := range hops {
				s := newSink(t)
				if i >= k {
					s.tarpit()
				}
				sinks = append(sinks, s)
				to = append(to, fmt.Sprintf("user@d%d.example", i))
				config += fmt.Sprintf("[[domain]]\nname = \"d%d.example\"\ndeliver = \"smtp://%s\"\nrecipients = \"any\"\n", i, s.addr)
			}
			g := startIn(t, dir, config)
			m := l.write(small, to...)
			l.accepted(g, m)
			eventually(t, "the outcomes are recorded", func() bool { return len(g.queue()) == hops-k })
			g.kill()
			for _, s := range sinks {
				s.restarted()
				s.open()
			}
			g.hurry()
			g = startIn(t, dir, config)
			l.arrive(sinks...)
			g.drained()
			l.check(nil, 1, sinks...)
		})
	}
}

// TestD15SameHopProgress is D-15 for recipients of one transaction: those that the next hop
// took are not in the next one.
func TestD15SameHopProgress(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	s.script(func(verb, line string) string {
		if verb == "RCPT" && strings.Contains(line, "later") {
			return "450 4.2.0 later"
		}
		return ""
	})
	g := startIn(t, dir, relayTo(s))
	m := l.write(large, "a@example.com", "later1@example.com", "b@example.com", "later2@example.com", "c@example.com")
	l.accepted(g, m)
	eventually(t, "the outcomes are recorded", func() bool {
		q := g.queue()
		return len(q) == 2 && q[0].Attempts > 0 && strings.Contains(q[0].Reason, "later") && strings.Contains(q[1].Reason, "later")
	})
	g.kill()
	s.restarted()
	s.open()
	g.hurry()
	g = startIn(t, dir, relayTo(s))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
}

// TestD17ReportIsAtomic kills the gateway between the next hop's 550 and its own record of
// it: the sender is told, and not of two failures by one life.
func TestD17ReportIsAtomic(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	g := startIn(t, dir, relayTo(s))
	refuse := func(verb, line string) string {
		if verb == "RCPT" && strings.Contains(line, "nobody") {
			return "550 5.1.1 no such user"
		}
		return ""
	}
	s.script(func(verb, line string) string {
		if r := refuse(verb, line); r != "" {
			g.freeze()
			return r
		}
		return ""
	})
	s.after(func(_, reply string) {
		if strings.HasPrefix(reply, "550") {
			g.kill()
		}
	})
	m := l.write(small, "nobody@example.com")
	l.post(g.addr[0], m, nil)
	<-g.done
	s.after(nil)
	s.script(refuse)
	s.restarted()
	g = startIn(t, dir, relayTo(s))
	s.wait(t, "a report", func(a []arrived) bool {
		return len(a) == 1 && a[0].From == "" && slices.Equal(a[0].To, []string{sender})
	})
	g.drained()
	f := l.fates(s)[m.id+" nobody@example.com"]
	if f == nil || f.reports != 1 || len(f.epochs) != 0 {
		t.Errorf("%+v", f)
	}
	l.check(nil, 0, s)
}

// TestD27GracefulStop ends a gateway with sessions in all states and deliveries under way.
func TestD27GracefulStop(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	held, release := make(chan struct{}, 10), make(chan struct{})
	s.script(func(verb, _ string) string {
		if verb == "DOT" {
			held <- struct{}{}
			<-release
		}
		return ""
	})
	g := startIn(t, dir, relayTo(s))
	for range 3 {
		l.accepted(g, l.write(small, "rcpt@example.com"))
	}
	for range 3 {
		<-held // deliveries wait for the reply of the next hop
	}
	var idle []*client
	for range 6 {
		idle = append(idle, dial(t, g.addr[0]))
	}
	for _, c := range idle[3:] {
		c.cmd(250, "EHLO client.example")
	}
	var busy []*client // in the middle of a message
	var late []*letter
	for i := range 6 {
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example")
		c.cmd(250, "MAIL FROM:<%s>", sender)
		c.cmd(250, "RCPT TO:<rcpt@example.com>")
		m := l.write([]int{small, large}[i%2], "rcpt@example.com")
		if i < 4 {
			c.cmd(354, "DATA")
			c.send(m.text[:100])
		}
		busy, late = append(busy, c), append(late, m)
	}
	g.cmd.Process.Signal(unixTerm)
	for _, c := range idle {
		c.expect(421)
		c.conn.Close()
	}
	if c, err := netDial(g.addr[0]); err == nil {
		c.Close()
		t.Error("a stopping gateway accepts connections")
	}
	for i, c := range busy {
		m := late[i]
		rest := m.text[100:]
		if i >= 4 {
			c.cmd(354, "DATA")
			rest = m.text
		}
		c.send(stuff(rest) + ".\r\n")
		reply := c.expect(250)
		l.told(m, 250, reply)
		c.expect(421)
		c.conn.Close()
	}
	close(release)
	<-g.done
	if code := g.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if last := g.log.count("stopped", nil); last != 1 {
		t.Error("the log does not end with stopped")
	}
	first := len(s.mail())
	if first < 3 {
		t.Errorf("only %d of the deliveries under way were finished", first)
	}
	s.restarted()
	s.open()
	g.hurry()
	g = startIn(t, dir, relayTo(s))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s) // an orderly stop repeats nothing
}
