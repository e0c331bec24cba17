package main_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The scanner of these tests marks what it has seen, and mail waits for it when it is away.
func scanner(t testing.TB, out *sink) string {
	return basics + exampleTo(out) + fmt.Sprintf("[[plugin]]\nname = \"av\"\ncommand = %q\non_failure = \"park\"\ntimeout = \"2s\"\n", program(t, "scanner"))
}

// stream is mail over a few sessions at once, until it is told to end. Every message has to
// be accepted.
type stream struct {
	l    *ledger
	stop chan struct{}
	wg   sync.WaitGroup
	sent atomic.Int64
}

func postTo(t testing.TB, g *gateway, sessions int) *stream {
	p := &stream{l: newLedger(t), stop: make(chan struct{})}
	for range sessions {
		p.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-p.stop:
					return
				default:
				}
				size := small
				if n%10 == 9 {
					size = large
				}
				if code, err := p.l.post(g.addr[0], p.l.write(size, "b@example.org"), nil); code != 250 {
					t.Errorf("got %d, %v; want 250", code, err)
					return
				}
				p.sent.Add(1)
			}
		})
	}
	return p
}

// more waits until n more messages have been accepted.
func (p *stream) more(t testing.TB, n int64) {
	t.Helper()
	n += p.sent.Load()
	eventually(t, fmt.Sprintf("%d messages are accepted", n), func() bool { return p.sent.Load() >= n || t.Failed() })
}

// end ends the sessions and returns how many messages were accepted.
func (p *stream) end() int {
	close(p.stop)
	p.wg.Wait()
	return int(p.sent.Load())
}

// arrives waits for the mail; nothing may be lost, come twice or unseen.
func (p *stream) arrives(t testing.TB, g *gateway, out *sink) {
	t.Helper()
	total := int(p.sent.Load())
	out.wait(t, fmt.Sprint(total), func(got []arrived) bool { return len(got) >= total })
	g.drained()
	got := out.mail()
	if len(got) != total || total < 200 {
		t.Errorf("%d messages were accepted, %d arrived", total, len(got))
	}
	texts := make(map[string]string)
	for _, m := range got {
		id := messageID.FindStringSubmatch(m.Data)[1]
		if _, twice := texts[id]; twice {
			t.Errorf("%s arrived twice", id)
		}
		texts[id] = m.Data
		if n := strings.Count(m.Data, "X-Scanned: yes\r\n"); n != 1 {
			t.Errorf("%s has been scanned %d times", id, n)
		}
	}
	for _, m := range p.l.promised() {
		if text, ok := texts[m.id]; !ok || !strings.HasSuffix(text, m.text) {
			t.Errorf("%s was accepted as %s, and %d bytes arrived for %d", m.id, m.queue, len(text), len(m.text))
		}
	}
	t.Logf("%d messages", total)
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

// soonAfter is what the backlog may take once the plugin is back, much less than the minute
// after which parked mail is looked at anyway.
const soonAfter = 20 * time.Second

// A scanner that an admin takes away under load: mail is accepted and waits; when the scanner
// is back, all of it goes on by itself.
func TestParkedUnderLoadPluginDisabled(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, scanner(t, out))
	load := postTo(t, g, 6)
	load.more(t, 100)
	g.must("plugin", "disable", "av") // in the middle
	load.more(t, 100)
	total := load.end()
	// What did not meet the scanner in time is parked, all else has passed.
	eventually(t, "what is left waits for the scanner", func() bool {
		return parkedIn(g)+len(out.mail()) == total
	})
	if n := parkedIn(g); n < 100 {
		t.Errorf("%d messages are parked, want all that came when the scanner was away", n)
	}
	begun := time.Now()
	g.must("plugin", "enable", "av")
	load.arrives(t, g, out)
	if d := time.Since(begun); d > soonAfter {
		t.Errorf("the backlog took %v", d)
	}
}

// A scanner that hangs under load: it is killed and restarted, and what waited for it goes on.
func TestParkedUnderLoadPluginHangs(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, scanner(t, out))
	load := postTo(t, g, 20)
	load.more(t, 100)
	n := g.log.len()
	if err := syscall.Kill(pidOf(g.log.wait(t, "plugin started", nil)), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Calls end by their deadline, and the messages in them wait.
	g.log.waitFrom(t, n, "plugin", has("plugin", "av", "action", "failed: park"))
	g.log.waitFrom(t, n, "plugin restarted", has("plugin", "av"))
	begun := time.Now()
	load.more(t, 100)
	load.end()
	load.arrives(t, g, out)
	if d := time.Since(begun); d > soonAfter {
		t.Errorf("the backlog took %v", d)
	}
}

// A scanner that is killed again and again under load: nothing passes it.
func TestParkedUnderLoadPluginKilled(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, scanner(t, out))
	load := postTo(t, g, 6)
	line := g.log.wait(t, "plugin started", nil)
	for range 3 {
		load.more(t, 50)
		n := g.log.len()
		if err := syscall.Kill(pidOf(line), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		line = g.log.waitFrom(t, n, "plugin restarted", has("plugin", "av"))
	}
	load.more(t, 50)
	load.end()
	load.arrives(t, g, out)
}

func pidOf(line map[string]any) int { return int(line["pid"].(float64)) }

// Mail that was parked when the gateway ended goes on at the next start.
func TestParkedMailGoesOnAtTheStart(t *testing.T) {
	t.Parallel()
	out := newSink(t)
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
	begun := time.Now()
	g = startIn(t, g.dir, config)
	out.wait(t, "all", func(got []arrived) bool { return len(got) == 5 })
	if d := time.Since(begun); d > soonAfter {
		t.Errorf("it took %v", d)
	}
	g.drained()
}
