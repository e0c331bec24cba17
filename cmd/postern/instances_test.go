package main_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestD20StaleTemporaries starts among what crashes left: contents that nothing refers to,
// half-made segments, files of nobody. The start is not delayed, nothing of it is mail.
func TestD20StaleTemporaries(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	s.busy()
	g := startIn(t, dir, relayTo(s))
	waiting := l.write(large, "rcpt@example.com")
	l.accepted(g, waiting)
	g.kill()
	var stale []string
	for range 1000 {
		stale = append(stale, filepath.Join(dir, "data", "content", rand.Text()))
	}
	foreign := []string{
		filepath.Join(dir, "data", "content", "half.tmp"),
		filepath.Join(dir, "data", "queue", "00000009.log.tmp"),
		filepath.Join(dir, "data", "queue", "core"),
	}
	unborn := filepath.Join(dir, "data", "queue", "0000ffff.log") // being made when the power went
	for _, name := range slices.Concat(stale, foreign, []string{unborn}) {
		text := "From: <stale@example.com>\r\nMessage-ID: <stale@client.example>\r\n\r\nstale\r\n"
		if name == unborn {
			text = ""
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.open()
	s.restarted()
	g = startIn(t, dir, relayTo(s))
	l.accepted(g, l.write(small, "rcpt@example.com"))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if left := g.contents(); len(left) > 0 {
		t.Errorf("%d stale contents are left", len(left))
	}
	for _, name := range foreign {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("a file of somebody else was touched: %v", err)
		}
	}
}

// TestD21TwoInstances starts a second gateway on the same data: it says why it does not
// run, and the first does not notice.
func TestD21TwoInstances(t *testing.T) {
	s, l := newSink(t), newLedger(t)
	g := start(t, relayTo(s))
	l.accepted(g, l.write(small, "rcpt@example.com"))
	for range 3 {
		out, code := g.run("serve")
		if code != 1 || !strings.Contains(out, "in use by another postern") || !strings.Contains(out, filepath.Join(g.dir, "data")) {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
	l.accepted(g, l.write(large, "rcpt@example.com"))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestD24StopAndContinue stops the process in a message and in a delivery: when it goes on,
// both end well, once.
func TestD24StopAndContinue(t *testing.T) {
	s, l := newSink(t), newLedger(t)
	reached, release := make(chan struct{}), make(chan struct{})
	s.script(func(verb, _ string) string {
		if verb == "DOT" {
			close(reached)
			<-release
		}
		return ""
	})
	g := start(t, relayTo(s))
	l.accepted(g, l.write(small, "rcpt@example.com"))
	<-reached
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example")
	c.cmd(250, "MAIL FROM:<%s>", sender)
	c.cmd(250, "RCPT TO:<rcpt@example.com>")
	c.cmd(354, "DATA")
	m := l.write(large, "rcpt@example.com")
	c.send(m.text[:100])
	g.freeze()
	s.open()
	close(release) // the reply waits in the kernel
	sent := make(chan struct{})
	go func() { c.send(stuff(m.text[100:]) + ".\r\n"); close(sent) }()
	g.cmd.Process.Signal(unix.SIGCONT)
	<-sent
	l.told(m, 250, c.expect(250))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
}

// TestD31MovedData stops a gateway and starts another with a copy of its data.
func TestD31MovedData(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crashed %t", crashed), func(t *testing.T) {
			s, l, old, dir := newSink(t), newLedger(t), t.TempDir(), t.TempDir()
			s.busy()
			g := startIn(t, old, relayTo(s))
			for i := range 6 {
				l.accepted(g, l.write([]int{small, large}[i%2], "rcpt@example.com", "other@example.com"))
			}
			if crashed {
				g.kill()
			} else {
				g.stop()
			}
			copyData(t, old, dir)
			if err := os.RemoveAll(filepath.Join(old, "data")); err != nil {
				t.Fatal(err)
			}
			s.open()
			s.restarted()
			g = startIn(t, dir, relayTo(s))
			l.arrive(s)
			g.drained()
			l.check(nil, 1, s)
		})
	}
}

// TestD30UnsafeSpool: a data directory in memory is refused in clear words, and taken with
// a warning at each start by those who say that they mean it.
func TestD30UnsafeSpool(t *testing.T) {
	if os.Getuid() != 0 {
		require(t, "only root can mount")
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o710); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=64m"); err != nil {
		require(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { unix.Unmount(data, unix.MNT_DETACH) })
	s, l := newSink(t), newLedger(t)
	out, code := postern(t, "", "serve", "--config", write(t, dir, relayTo(s)))
	if code != 1 || !strings.Contains(out, data) || !strings.Contains(out, "unsafe_spool = true") || !strings.Contains(out, "memory") {
		t.Errorf("exit code %d: %s", code, out)
	}
	for range 2 {
		g := startIn(t, dir, "unsafe_spool = true\n"+relayTo(s))
		g.log.wait(t, "unsafe_spool: queued mail does not survive a power cut", has("level", "WARN", "data_dir", data))
		m := l.write(large, "rcpt@example.com")
		l.accepted(g, m)
		l.at(m, "rcpt@example.com", s)
		g.drained()
		g.stop()
		s.restarted()
	}
	l.check(nil, 1, s)
}

// TestQueueOffline steers the queue of a stopped gateway, and of one that was killed.
func TestQueueOffline(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crashed %t", crashed), func(t *testing.T) { queueOffline(t, crashed) })
	}
}

func queueOffline(t *testing.T, crashed bool) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	s.script(func(verb, _ string) string {
		if verb == "RCPT" {
			return "450 4.2.0 later"
		}
		return ""
	})
	config := strings.Replace(relayTo(s), `retry_first = "1s"`, `retry_first = "1h"`, 1)
	config = strings.Replace(config, `retry_max = "5s"`, `retry_max = "2h"`, 1)
	g := startIn(t, dir, config)
	byName := make(map[string]*letter)
	for _, name := range []string{"retried", "held", "released", "deleted", "left"} {
		m := l.write(large, name+"@example.com")
		l.accepted(g, m)
		byName[name] = m
	}
	eventually(t, "all were attempted", func() bool {
		return !slices.ContainsFunc(g.queue(), func(q queued) bool { return q.Active || q.Reason == "" })
	})
	if crashed {
		g.kill()
	} else if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	state := func() map[string]string {
		states := make(map[string]string)
		for _, q := range g.queue() {
			name, _, _ := strings.Cut(q.Recipient, "@")
			if q.ID != byName[name].queue || q.From != sender || q.Attempts != 1 {
				t.Errorf("%+v", q)
			}
			states[name] = q.State
		}
		return states
	}
	want := func(states string) {
		t.Helper()
		b, _ := json.Marshal(state())
		if string(b) != states {
			t.Errorf("got %s, want %s", b, states)
		}
	}
	want(`{"deleted":"pending","held":"pending","left":"pending","released":"pending","retried":"pending"}`)
	if out := g.must("queue", "show", byName["left"].queue); !strings.Contains(out, byName["left"].id) || !strings.Contains(out, "left@example.com") {
		t.Errorf("show: %s", out)
	}
	if out := g.must("queue", "show", "--raw", byName["left"].queue); !strings.Contains(out, "left@example.com") {
		t.Errorf("show --raw: %s", out)
	}
	g.must("queue", "hold", "--reason", "for a look", byName["held"].queue)
	g.must("queue", "hold", byName["released"].queue)
	want(`{"deleted":"pending","held":"held","left":"pending","released":"held","retried":"pending"}`)
	g.must("queue", "release", byName["released"].queue)
	g.must("queue", "delete", byName["deleted"].queue)
	g.must("queue", "retry", byName["retried"].queue)
	want(`{"held":"held","left":"pending","released":"pending","retried":"pending"}`)
	if _, code := g.run("queue", "show", byName["deleted"].queue); code != 1 {
		t.Errorf("show of deleted mail: exit code %d", code)
	}
	if n := len(g.contents()); n != 4 {
		t.Errorf("%d content files, want 4", n)
	}
	s.open()
	s.restarted()
	g = startIn(t, dir, config)
	l.at(byName["retried"], "retried@example.com", s)
	l.at(byName["released"], "released@example.com", s)
	eventually(t, "the outcomes are recorded", func() bool { return len(g.queue()) == 2 })
	want(`{"held":"held","left":"pending"}`)
	byName["deleted"].code = 0 // nobody promises it any more
	l.check(g.queue(), 1, s)
	if n := len(s.mail()); n != 2 {
		t.Errorf("%d messages were delivered, want 2", n)
	}
}

// TestRetryWhileDelivering asks for a retry of everything, again and again, while
// everything is being delivered: no message is delivered twice for that.
func TestRetryWhileDelivering(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	s.busy()
	g := startIn(t, dir, relayTo(s))
	for i := range 60 {
		l.accepted(g, l.write([]int{small, large}[i%2], "rcpt@example.com"))
	}
	g.stop()
	s.open()
	s.restarted()
	g = startIn(t, dir, relayTo(s))
	for len(g.queue()) > 0 {
		g.must("queue", "retry", "--all")
	}
	l.arrive(s)
	l.check(nil, 1, s)
}
