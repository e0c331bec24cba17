package main_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

// ammunition is the mail of a volley, and what may become of it.
type ammunition struct {
	// compose writes a message, without its Message-ID; nil: plain. Every third is harmful: it
	// has to be refused, unless mercy permits more.
	compose  func(n int, harmful bool) (from, text string)
	proxy    func(n int, harmful bool) string // client that a proxy names; nil: no proxy
	sessions int                              // at once; 0: 4
	pace     time.Duration                    // between a session's messages

	mercy    bool // harmful mail may be accepted
	withheld bool // harmful mail that was accepted is found out later, and never arrives
	waits    bool // no message may be accepted at its first try

	// seen says whether what arrives bears the marks of all that had to see it.
	seen func(h mail.Header, s *shot) bool
	// unscanned is the plugin that may be missed, as X-Postern-Unscanned says then.
	unscanned string
}

// shot is a message of a volley. What arrives of it is data.
type shot struct {
	n             int
	id            string
	harmful       bool
	text          string
	data          []byte
	accepted, got bool
}

// volley is mail over a few sessions at once, and what each message was told. What is deferred
// is tried again until it is accepted or refused.
type volley struct {
	ammunition
	t         testing.TB
	g         *gateway
	sink      *smtptest.Sink
	processes int // of the gateway

	stop                              chan struct{}
	ceased                            sync.Once
	wg                                sync.WaitGroup
	next, accepted, deferred, refused atomic.Int64
	unseen                            int // arrived, saying so

	mu    sync.Mutex
	shots map[string]*shot
}

// fire begins a volley at a gateway that relays to the sink.
func fire(t testing.TB, g *gateway, sink *smtptest.Sink, a ammunition) *volley {
	v := &volley{ammunition: a, t: t, g: g, sink: sink, stop: make(chan struct{}), shots: make(map[string]*shot), processes: tree(g)}
	if v.compose == nil {
		v.compose = harmless
	}
	t.Cleanup(v.cease) // where the test ends before
	for range cmp.Or(a.sessions, 4) {
		v.wg.Go(func() {
			for v.shoot() {
				v.pause(v.pace)
			}
		})
	}
	return v
}

func harmless(int, bool) (from, text string) {
	return "alice@example.net", "From: alice@example.net\r\nSubject: x\r\n\r\ntext\r\n"
}

// again is after how long a client tries again.
const again = 50 * time.Millisecond

// pause is the pace of a client, and not a wait for anything.
func (v *volley) pause(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// shoot sends one message until there is an answer to it. It reports whether to go on.
func (v *volley) shoot() bool {
	select {
	case <-v.stop:
		return false
	default:
	}
	n := int(v.next.Add(1))
	s := &shot{n: n, id: fmt.Sprintf("<%d@volley>", n), harmful: n%3 == 0}
	from, text := v.compose(n, s.harmful)
	s.text = "Message-ID: " + s.id + "\r\n" + text
	v.mu.Lock()
	v.shots[s.id] = s
	v.mu.Unlock()
	for try, begun := 1, time.Now(); ; try++ {
		code, reply := v.offer(s, from)
		switch {
		case code == 250 && (!s.harmful || v.mercy) && (try > 1 || !v.waits):
			v.mu.Lock()
			s.accepted = true
			v.mu.Unlock()
			v.accepted.Add(1)
			return true
		case (code == 451 || code == 421) && time.Since(begun) < patience && !v.t.Failed():
			v.deferred.Add(1)
			v.pause(again)
			continue
		case code/10 == 55 && s.harmful:
			v.refused.Add(1)
			return true
		}
		v.t.Errorf("%s (harmful: %v), try %d: %d %s", s.id, s.harmful, try, code, reply)
		return false
	}
}

// offer sends a message in a session of its own and returns the reply to it, or to the first
// command that is not accepted.
func (v *volley) offer(s *shot, from string) (int, string) {
	c := connect(v.t, v.g.addr[0])
	defer c.conn.Close()
	if v.proxy != nil {
		c.send("PROXY TCP4 " + v.proxy(s.n, s.harmful) + " 127.0.0.1 1234 25\r\n")
	}
	for i, want := range []int{220, 250, 250, 250, 354, 250} {
		code, reply, err := c.reply()
		if err != nil {
			return 0, err.Error()
		}
		if code != want {
			return code, reply
		}
		switch i {
		case 0:
			c.send(fmt.Sprintf("EHLO client.example.net\r\nMAIL FROM:<%s>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n", from))
		case 4:
			c.send(stuff(s.text) + ".\r\n")
		}
	}
	return 250, ""
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

// strike sends a signal to the processes of plugins, in the middle of mail, and waits until
// others have taken their places.
func (v *volley) strike(signal syscall.Signal, names ...string) {
	v.t.Helper()
	n := v.g.log.len()
	for _, p := range pluginsOf(v.g) {
		if slices.Contains(names, p.Name) {
			if err := syscall.Kill(p.Pid, signal); err != nil {
				v.t.Fatal(err)
			}
		}
	}
	for _, name := range names {
		v.g.log.waitFrom(v.t, n, "plugin restarted", has("plugin", name))
	}
}

// cease ends the sessions, each when its message has been answered.
func (v *volley) cease() {
	v.ceased.Do(func() { close(v.stop) })
	v.wg.Wait()
}

// end ends the sessions, holds what arrived against what was promised, and ends the gateway,
// which has to have done with all of it and to take all its processes along.
func (v *volley) end() {
	v.t.Helper()
	v.cease()
	total := 0
	for _, s := range v.shots {
		if s.accepted && !(s.harmful && v.withheld) {
			total++
		}
	}
	got := v.sink.Wait(v.t, total, patience)
	v.g.drained()
	for _, m := range got {
		v.arrived(m)
	}
	if n := len(v.sink.Messages()); n != total {
		v.t.Errorf("%d accepted, %d arrived", total, n)
	}
	if n := v.g.log.count("plugin", has("action", "convicted")); n != 0 {
		v.t.Errorf("%d messages were blamed", n)
	}
	v.t.Logf("%d accepted, %d refused, %d times deferred, %d unscanned", v.accepted.Load(), v.refused.Load(), v.deferred.Load(), v.unseen)
	v.buried()
}

// arrived checks a message at the next hop.
func (v *volley) arrived(m smtptest.Message) {
	v.t.Helper()
	h, _ := mail.SplitMessage(m.Data)
	s := v.shots[h.Get("Message-ID")]
	if s == nil || !s.accepted || s.got || s.harmful && v.withheld || !slices.Equal(m.To, []string{"bob@example.org"}) {
		v.t.Errorf("arrived twice, or was refused, or is for %s:\n%.1500s", m.To, m.Data)
		return
	}
	s.got, s.data = true, m.Data
	switch missed := h.Values("X-Postern-Unscanned"); {
	case len(missed) > 0 && v.unscanned != "" && strings.HasPrefix(missed[0], v.unscanned+" ("):
		v.unseen++
	case len(missed) > 0 || v.seen != nil && !v.seen(h, s):
		v.t.Errorf("what arrived was not seen (harmful: %v):\n%.1500s", s.harmful, m.Data)
	}
}

// buried ends the gateway, which has run all the time, and wants its plugins to be gone.
func (v *volley) buried() {
	v.t.Helper()
	eventually(v.t, fmt.Sprintf("the gateway has %d processes again", v.processes), func() bool { return tree(v.g) == v.processes })
	plugins := pluginsOf(v.g)
	if code := v.g.stop(); code != 0 {
		v.t.Errorf("exit code %d", code)
	}
	for _, p := range plugins {
		eventually(v.t, p.Name+" is gone", func() bool { return !alive(p.Pid) })
	}
}
