package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// A process that dies fails the calls in it, and only them; the next one serves again.
func TestG01CrashPerCall(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "kill", "crash"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h, _ := start(t, fastTiming(), use("filter"), use("box"))
			f := filterOf(t, h, "filter")
			if _, err := f.Filter(t.Context(), msg("look")); err != nil {
				t.Fatal(err)
			}
			_, err := f.Filter(t.Context(), msg(how)) // ended by the deaths, or the reason would be the timeout
			// Twice the same message: it is to blame. See suspects_test.go.
			if fl := wantReason(t, err, Convicted); how == "crash" && !strings.Contains(fl.Stack, "in the background") {
				t.Errorf("the stack is not known: %q", fl.Stack)
			}
			if pidOf(t, h, "box") == 0 {
				t.Error("the other plugin is down")
			}
			eventually(t, time.Minute, "restart", func() bool {
				_, err := f.Filter(t.Context(), msg("look"))
				return err == nil
			})
			if s := h.Status()[0]; s.Restarts != 1 || s.State != "running" {
				t.Errorf("status is %+v", s)
			}
		})
	}
}

func TestG01PanicFailsOneCall(t *testing.T) {
	t.Parallel()
	h, log := start(t, fastTiming(), use("filter"))
	f := filterOf(t, h, "filter")
	pid := pidOf(t, h, "filter")
	_, err := f.Filter(t.Context(), msg("panic lock"))
	fl := wantReason(t, err, Error)
	if !strings.Contains(fl.Error(), "panic: the lock broke") || !strings.Contains(fl.Stack, "main_test.go") {
		t.Errorf("failure is %v, stack %q", fl, fl.Stack)
	}
	if _, err := f.Filter(t.Context(), msg("look")); err != nil || pidOf(t, h, "filter") != pid {
		t.Errorf("the process did not go on: %v", err)
	}
	eventually(t, time.Minute, "stack in the log", func() bool { return strings.Contains(log.String(), "panic in a call") })
}

func TestWhileDownCallsFailAtOnce(t *testing.T) {
	t.Parallel()
	tm := fastTiming()
	tm.last = time.Hour
	h, _ := start(t, tm, Spec{Name: "filter", Use: "filter", Timeout: time.Hour})
	f := filterOf(t, h, "filter")
	_, err := f.Filter(t.Context(), msg("exit")) // its first call: waits for the longest delay
	wantReason(t, err, Down)
	eventually(t, time.Minute, "down", func() bool { return pidOf(t, h, "filter") == 0 })
	_, err = f.Filter(t.Context(), msg("look")) // who waits does so for an hour
	wantReason(t, err, Down)
	if s := h.Status()[0]; s.State != "down" || !strings.Contains(s.Reason, "exit status 3") {
		t.Errorf("status is %+v", s)
	}
}

// A plugin that does not answer costs the caller its deadline and nothing else.
func TestG02HangEndsByDeadline(t *testing.T) {
	h, _ := start(t, fastTiming(), Spec{Name: "f", Use: "filter", Timeout: 500 * time.Millisecond})
	f := filterOf(t, h, "f")
	pid := pidOf(t, h, "f")
	for _, how := range []string{"hang", "deaf"} {
		_, err := f.Filter(t.Context(), msg(how))
		wantReason(t, err, Timeout)
	}
	eventually(t, time.Minute, "an answer", func() bool { _, err := f.Filter(t.Context(), msg("look")); return err == nil })
	if pidOf(t, h, "f") != pid {
		t.Error("a slow plugin that answers health checks was replaced")
	}
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { f.Filter(t.Context(), msg("hang")) })
	}
	wg.Wait()
	eventually(t, time.Minute, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), use("filter"))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := filterOf(t, h, "filter").Filter(ctx, msg("hang"))
	var f *Failure
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("error is %v", err)
	}
}

// A stopped process is found by the health check, killed and replaced.
func TestG02StoppedPluginIsReplaced(t *testing.T) {
	t.Parallel()
	h, log := start(t, fastTiming(), use("filter"))
	f := filterOf(t, h, "filter")
	if _, err := f.Filter(t.Context(), msg("look")); err != nil {
		t.Fatal(err)
	}
	pid := pidOf(t, h, "filter")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "replaced", func() bool {
		_, err := f.Filter(t.Context(), msg("look"))
		return err == nil && pidOf(t, h, "filter") != pid
	})
	if !gone(pid) || !strings.Contains(log.String(), "hangs and is killed") {
		t.Error("the stopped process lives")
	}
}

// What breaks the contract never comes out of the host.
func TestG05Garbage(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("raw"), use("filter"))
	f := filterOf(t, h, "raw")
	if v, err := f.Filter(t.Context(), msg("fine")); err != nil || v == nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]string{
		"code 999":     "reply code 999",
		"code 250":     "reply code 250",
		"no status":    "reply code 0",
		"crlf":         "not a line",
		"action":       "action 77",
		"action 257":   "action 257",
		"kind":         "kind 99",
		"recipient":    "no recipient 7",
		"recipient -1": "no recipient -1",
		"injection":    "not folding",
		"address":      "control character",
		"draft":        "right",
		"huge":         "too large", // G-06
	} {
		v, err := f.Filter(t.Context(), msg(subject))
		if v != nil {
			t.Errorf("%s: a verdict came through", subject)
		}
		if fl := wantReason(t, err, Error); !strings.Contains(fl.Error(), want) || fl.Plugin != "raw" {
			t.Errorf("%s: failure is %v", subject, fl)
		}
	}
	_, err := filterOf(t, h, "filter").Filter(t.Context(), msg("edit"))
	if fl := wantReason(t, err, Error); !strings.Contains(fl.Error(), "does not declare the right") {
		t.Errorf("undeclared edit: %v", fl)
	}
	_, err = filterOf(t, h, "filter").Filter(t.Context(), msg("nothing"))
	wantReason(t, err, Error)
	if s := h.Status()[0]; s.Failures != 13 || s.Calls != 14 {
		t.Errorf("counted %d failures of %d calls", s.Failures, s.Calls)
	}
}

func TestG06GiantRequestIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("filter"))
	f := filterOf(t, h, "filter")
	header := func(n int) mail.Header {
		b := []byte("Subject: look\r\nX: ")
		b = append(b, bytes.Repeat([]byte("x"), n-len(b)-4)...)
		return mail.NewHeader(append(b, "\r\n\r\n"...))
	}
	m := msg("look")
	m.Body = mail.InlineBody(bytes.Repeat([]byte("y"), proto.MaxInline))
	m.Header = header(proto.MaxHeader)
	if _, err := f.Filter(t.Context(), m); err != nil {
		t.Errorf("the largest message: %v", err)
	}
	m.Header = header(proto.MaxHeader + 1)
	_, err := f.Filter(t.Context(), m)
	wantReason(t, err, Error)
	m.Header = header(1000)
	m.Body = mail.InlineBody(bytes.Repeat([]byte("y"), proto.MaxInline+1))
	_, err = f.Filter(t.Context(), m)
	wantReason(t, err, Error)
}

// Much output, of which a third is one line and a third no text (a gigabyte with POSTERN_FULL=1):
// the plugin does not wait for long, the log stays small, no line is longer than its limit, and
// nothing unprintable gets in.
func TestG07OutputFlood(t *testing.T) {
	t.Parallel()
	h, log := start(t, calm(), Spec{Name: "filter", Use: "filter", Timeout: time.Minute})
	f := filterOf(t, h, "filter")
	size := "60000000"
	if os.Getenv("POSTERN_FULL") == "1" {
		size = "1000000000"
	}
	if _, err := f.Filter(t.Context(), msg("stderr "+size)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Filter(t.Context(), msg("stdout")); err != nil {
		t.Fatal(err)
	}
	pid := pidOf(t, h, "filter")
	if _, err := f.Filter(t.Context(), msg("look")); err != nil || pid != pidOf(t, h, "filter") {
		t.Errorf("afterwards: %v", err)
	}
	h.Close(t.Context())
	text := log.String()
	if len(text) > 2<<20 {
		t.Errorf("log has %d bytes", len(text))
	}
	if !strings.Contains(text, "plugin log lines dropped") {
		t.Error("the log does not say that lines were dropped")
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("log line %.200q: %v", line, err)
		}
		if s, _ := entry["text"].(string); len(s) > 4*(4<<10) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' }) {
			t.Fatalf("log line %.200q", line)
		}
	}
}

func TestPluginLogLines(t *testing.T) {
	t.Parallel()
	h, log := start(t, fastTiming(), use("filter"))
	f := filterOf(t, h, "filter")
	f.Filter(t.Context(), msg("log entry"))
	f.Filter(t.Context(), msg("stdout"))
	eventually(t, time.Minute, "lines", func() bool {
		s := log.String()
		return strings.Contains(s, `"level":"WARN","msg":"plugin log","plugin":"filter","text":"something odd","fields":{"what":"entry"}`) &&
			strings.Contains(s, "stray print") && strings.Contains(s, "raw stray")
	})
}

func TestG10KillTakesTheTree(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), use("filter"))
	f := filterOf(t, h, "filter")
	var pids []int
	for _, how := range []string{"child", "child escape"} {
		v, err := f.Filter(t.Context(), msg(how))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, atoi(t, v.Notes["child"]))
	}
	pids = append(pids, pidOf(t, h, "filter"))
	for _, pid := range pids {
		if gone(pid) {
			t.Fatalf("process %d is not there", pid)
		}
	}
	if err := h.Reload(t.Context(), nil); err != nil { // and not Close, which ends the guard too
		t.Fatal(err)
	}
	for _, pid := range pids {
		eventually(t, time.Minute, "gone", func() bool { return gone(pid) })
	}
}

// A plugin that dies at once for ever costs little and opens the breaker.
func TestG14RestartStorm(t *testing.T) {
	t.Parallel()
	flag := t.TempDir() + "/die"
	h, log := start(t, fastTiming(), Spec{Name: "f", Use: "filter", Settings: []byte("die_if = '" + flag + "'\n")})
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pidOf(t, h, "f"), syscall.SIGKILL)
	eventually(t, time.Minute, "breaker", func() bool { return strings.Contains(log.String(), "plugin breaker opened") })
	os.Remove(flag)
	eventually(t, time.Minute, "recovery", func() bool {
		_, err := filterOf(t, h, "f").Filter(t.Context(), msg("look"))
		return err == nil
	})
}

func TestBackoff(t *testing.T) {
	tm := defaultTiming()
	b := backoff{timing: tm}
	if d := b.died(10*time.Millisecond, 0); d != tm.last {
		t.Errorf("death before the first answer: %v", d)
	}
	b = backoff{timing: tm}
	var got []time.Duration
	for range 6 {
		got = append(got, b.died(10*time.Second, 100))
	}
	want := []time.Duration{0, tm.first, 2 * tm.first, 4 * tm.first, tm.last, tm.last}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("death %d: %v, want %v", i+1, got[i], want[i])
		}
	}
	if !b.open {
		t.Error("the breaker is closed")
	}
	if d := b.died(tm.stable, 1); d != 0 || b.open {
		t.Errorf("after a long life: %v, open %v", d, b.open)
	}
	b = backoff{timing: tm}
	for i := range 100 {
		if d := b.failed(); d < tm.first || d > tm.last {
			t.Errorf("failure %d: %v", i, d)
		}
	}
	// G-14: whatever kills it, with a fifth of a second of CPU for each start an hour of that
	// costs less than 5 %.
	for what, next := range map[string]func(b *backoff) time.Duration{
		"cannot start":              (*backoff).failed,
		"dies of its first":         func(b *backoff) time.Duration { return b.died(0, 0) },
		"dies after an answer":      func(b *backoff) time.Duration { return b.died(0, 1) },
		"dies when no longer young": func(b *backoff) time.Duration { return b.died(tm.young, 0) },
	} {
		b, starts := backoff{timing: tm}, 0
		for gone := time.Duration(0); gone < time.Hour; gone += next(&b) {
			starts++
		}
		if used := time.Duration(starts) * 200 * time.Millisecond; used > time.Hour/20 {
			t.Errorf("%s: %d starts in an hour", what, starts)
		}
	}
}

// G-15: nothing of the gateway's environment, and no descriptor but its own.
func TestG15NoSecrets(t *testing.T) {
	t.Setenv("POSTERN_DATABASE_PASSWORD", "hunter2")
	t.Setenv("HOME", "/root/secret")
	h, _ := start(t, fastTiming(), use("filter"))
	v, err := filterOf(t, h, "filter").Filter(t.Context(), msg("env"))
	if err != nil {
		t.Fatal(err)
	}
	if env := v.Notes["env"]; strings.Contains(env, "hunter2") || strings.Contains(env, "/root/secret") {
		t.Errorf("environment is %s", env)
	}
	allowed := []string{"PATH", "LANG", "TZ", "PLUGIN_", "POSTERN_PLUGIN", "POSTERN_PARENT", "POSTERN_RUN", "POSTERN_HOST_ADDRESS"}
	for v := range strings.FieldsSeq(v.Notes["env"]) {
		ok := false
		for _, a := range allowed {
			ok = ok || strings.HasPrefix(v, a)
		}
		if !ok {
			t.Errorf("environment has %s", v)
		}
	}
	if target, _ := os.Readlink("/proc/" + itoa(pidOf(t, h, "filter")) + "/fd/0"); target != "/dev/null" {
		t.Errorf("standard input is %s", target)
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), use("filter"))
	f := filterOf(t, h, "filter")
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 20 {
				if _, err := f.Filter(t.Context(), msg("look")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
