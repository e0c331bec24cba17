package pluginhost

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// calm is fastTiming without hasty health checks: a busy machine is no hanging plugin.
func calm() timing {
	t := fastTiming()
	t.health = defaultTiming().health
	return t
}

// Of many messages at once one kills the plugin: that one is convicted, with the reason, and
// every other gets its answer, those in the same process and those that come meanwhile.
func TestG01OneOfManyIsConvicted(t *testing.T) {
	t.Parallel()
	for how, stack := range map[string]string{"exit": "exit status 3", "kill": "signal: killed", "crash": "goroutine"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h, log := start(t, calm(), use("filter"), use("box"))
			f := filterOf(t, h, "filter")
			if _, err := f.Filter(t.Context(), msg("look")); err != nil {
				t.Fatal(err)
			}
			box := pidOf(t, h, "box")
			var next, convicted atomic.Int64
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					for {
						n := next.Add(1)
						switch {
						case n > 300:
							return
						case n == 150:
							_, err := f.Filter(t.Context(), msg(how))
							fl := wantReason(t, err, Convicted)
							if !strings.Contains(fl.Stack, stack) || len(fl.Stack) > maxStack {
								t.Errorf("the stack is %q", fl.Stack)
							}
							convicted.Add(1)
						default:
							if _, err := f.Filter(t.Context(), msg("sleep 2ms")); err != nil {
								t.Errorf("message %d, which is innocent: %v", n, err)
							}
						}
					}
				})
			}
			wg.Wait()
			if convicted.Load() != 1 || pidOf(t, h, "box") != box {
				t.Errorf("%d convicted, or the other plugin was restarted", convicted.Load())
			}
			s := h.Status()[0]
			if s.Restarts != 1 || s.Failures != 1 || s.Calls != 301 || s.State != "running" {
				t.Errorf("status is %+v", s)
			}
			if !strings.Contains(log.String(), "convicted") {
				t.Error("the log says nothing")
			}
		})
	}
}

// Deliveries are tried alone as well, and those in the same process with one that kills it
// succeed, once each.
func TestG01MailboxConvicts(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("box"))
	box, _ := h.Mailbox("box")
	deliver := func(folder string) error {
		return box.Deliver(t.Context(), &sdk.Delivery{Key: "k-" + folder, Recipient: mail.MustPath("b@example.org"), Folder: folder, Fresh: true, Message: msg("x")})
	}
	if err := deliver("a"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := deliver(fmt.Sprint("slow ", i)); err != nil {
				t.Errorf("an innocent delivery: %v", err)
			}
		})
	}
	inFlight(t, h, "box", 10)
	if fl := wantReason(t, deliver("exit"), Convicted); !strings.Contains(fl.Stack, "exit status 3") {
		t.Errorf("the stack is %q", fl.Stack)
	}
	wg.Wait()
	if err := deliver("a"); err != nil {
		t.Error(err)
	}
}

// A plugin that dies of something else costs nobody his answer.
func TestG01NobodyIsGuilty(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("filter"))
	f := filterOf(t, h, "filter")
	pid, mark := pidOf(t, h, "filter"), markOf(t, h, "filter")
	dead := filepath.Join(t.TempDir(), "dead")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v, err := f.Filter(t.Context(), msg("until "+dead))
			if err != nil {
				t.Errorf("an innocent call failed: %v", err)
			} else if v.Notes["pid"] == itoa(pid) {
				t.Error("the answer is that of a dead process")
			}
		})
	}
	inFlight(t, h, "filter", 8)
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, time.Minute, "it is dead", func() bool { return gone(pid) })
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if s := h.Status()[0]; s.Failures != 0 || s.Calls != 8 {
		t.Errorf("status is %+v", s)
	}
	// The processes of the trials are gone.
	eventually(t, time.Minute, "one process is left", func() bool {
		n := 0
		for _, p := range confine.Processes() {
			if p.Alive() && confine.Marked(p.PID, proto.EnvRun+"="+mark) {
				n++
			}
		}
		return n == 1
	})
}

// inFlight waits until so many calls are in the plugin.
func inFlight(t *testing.T, h *Host, name string, n int) {
	t.Helper()
	eventually(t, time.Minute, fmt.Sprint(n, " calls in flight"), func() bool {
		p := h.supervisor(name).cur.Load()
		if p == nil {
			return false // it is being replaced
		}
		p.calls.mu.Lock()
		defer p.calls.mu.Unlock()
		return p.calls.n == n
	})
}

// Who takes too long, at first or in its trial, is not convicted.
func TestG02SlownessIsNoCrime(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), Spec{Name: "filter", Use: "filter", Timeout: 3 * time.Second})
	f := filterOf(t, h, "filter")
	eventually(t, time.Minute, "the first answer", func() bool { _, err := f.Filter(t.Context(), msg("look")); return err == nil })
	done := make(chan error)
	go func() {
		_, err := f.Filter(t.Context(), msg("deaf"))
		done <- err
	}()
	inFlight(t, h, "filter", 1)
	syscall.Kill(pidOf(t, h, "filter"), syscall.SIGKILL)
	wantReason(t, <-done, Timeout) // nothing else ends a trial that hangs
	// A process that the host kills because it hangs makes no suspects.
	h, _ = start(t, fastTiming(), Spec{Name: "filter", Use: "filter", Timeout: time.Hour})
	f = filterOf(t, h, "filter")
	go func() {
		_, err := f.Filter(t.Context(), msg("deaf"))
		done <- err
	}()
	inFlight(t, h, "filter", 1)
	syscall.Kill(pidOf(t, h, "filter"), syscall.SIGSTOP)
	wantReason(t, <-done, Down)
}

// Poison costs the plugin nothing but its process: no breaker, no waiting.
func TestG14PoisonDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	tm := calm()
	tm.first, tm.last = time.Hour, time.Hour // who waits, waits for ever
	h, log := start(t, tm, use("filter"))
	f := filterOf(t, h, "filter")
	for i := range 8 {
		if _, err := f.Filter(t.Context(), msg("look")); err != nil {
			t.Fatalf("after %d convictions: %v", i, err)
		}
		_, err := f.Filter(t.Context(), msg("exit"))
		wantReason(t, err, Convicted)
		// The next one is the first call of its process.
		_, err = f.Filter(t.Context(), msg("exit"))
		wantReason(t, err, Convicted)
	}
	if _, err := f.Filter(t.Context(), msg("look")); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "breaker opened") {
		t.Error("the breaker opened")
	}
}

// What one client sends does not make the plugin look broken, however much it is: the next
// message finds it running. Clients in the same IPv6 network are one.
func TestG14OneClientDoesNotStopThePlugin(t *testing.T) {
	t.Parallel()
	tm := calm()
	tm.first, tm.last = time.Hour, time.Hour // who waits, waits for ever
	h, log := start(t, tm, use("filter"))
	f := filterOf(t, h, "filter")
	from := func(addr, subject string) error {
		m := msg(subject)
		m.Envelope.Client.Addr = netip.MustParseAddr(addr)
		_, err := f.Filter(t.Context(), m)
		return err
	}
	if err := from("192.0.2.1", "look"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxConvictions {
		wantReason(t, from(fmt.Sprintf("2001:db8::%d", i), "exit"), Convicted)
	}
	if err := from("192.0.2.1", "look"); err != nil || strings.Contains(log.String(), "breaker opened") {
		t.Fatalf("an innocent message after poison: %v", err)
	}
	for i := range maxConvictions { // of several clients: it may be broken
		wantReason(t, from(fmt.Sprintf("192.0.2.%d", i), "exit"), Convicted)
	}
	wantReason(t, from("192.0.2.0", "exit"), Convicted)
	wantReason(t, from("192.0.2.99", "exit"), Down)
}

// A plugin that dies of everything is itself to blame: nobody is convicted before it has
// answered once, nor for ever without an answer.
func TestG14BrokenPluginConvictsNobody(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("filter"), Spec{Name: "other", Use: "filter"})
	f := filterOf(t, h, "filter")
	_, err := f.Filter(t.Context(), msg("exit"))
	wantReason(t, err, Down)
	f = filterOf(t, h, "other")
	if _, err := f.Filter(t.Context(), msg("look")); err != nil {
		t.Fatal(err)
	}
	for range maxConvictions {
		_, err := f.Filter(t.Context(), msg("exit"))
		wantReason(t, err, Convicted)
	}
	_, err = f.Filter(t.Context(), msg("exit"))
	wantReason(t, err, Down)
	eventually(t, time.Minute, "it is back", func() bool {
		_, err := f.Filter(t.Context(), msg("look"))
		return err == nil
	})
	_, err = f.Filter(t.Context(), msg("exit"))
	wantReason(t, err, Convicted)
}

// G-05: garbage in a row is a reason for another process.
func TestG05GarbageInARow(t *testing.T) {
	t.Parallel()
	h, log := start(t, fastTiming(), use("raw"))
	f := filterOf(t, h, "raw")
	pid := pidOf(t, h, "raw")
	for range maxGarbage - 1 {
		_, err := f.Filter(t.Context(), msg("code 999"))
		wantReason(t, err, Error)
	}
	if _, err := f.Filter(t.Context(), msg("fine")); err != nil { // not in a row
		t.Fatal(err)
	}
	for range maxGarbage - 1 {
		f.Filter(t.Context(), msg("crlf"))
	}
	if pidOf(t, h, "raw") != pid {
		t.Fatal("restarted too early")
	}
	f.Filter(t.Context(), msg("kind"))
	eventually(t, time.Minute, "another process", func() bool {
		now := pidOf(t, h, "raw")
		return now != 0 && now != pid
	})
	if _, err := f.Filter(t.Context(), msg("fine")); err != nil {
		t.Error(err)
	}
	if !gone(pid) || !strings.Contains(log.String(), "answers garbage") {
		t.Error("the old process lives, or the log says nothing")
	}
}
