package pluginhost

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func greet(word string) Spec {
	return Spec{Name: "f", Use: "filter", Timeout: 5 * time.Second, Settings: []byte("greeting = '" + word + "'\n")}
}

// G-18: a change of settings under load loses no call and mixes nothing.
func TestG18Reload(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), greet("one"), use("box"))
	f := filterOf(t, h, "f")
	box, old := pidOf(t, h, "box"), pidOf(t, h, "f")
	var calls, changed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			seen := false
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, err := f.Filter(t.Context(), msg("sleep 2ms"))
				if err != nil {
					t.Error(err)
					return
				}
				calls.Add(1)
				switch v.Notes["greeting"] {
				case "one":
					if seen {
						t.Error("the old process answered after the new one")
						return
					}
				case "two":
					if !seen {
						changed.Add(1)
					}
					seen = true
				}
			}
		})
	}
	eventually(t, time.Minute, "calls", func() bool { return calls.Load() > 50 })
	if err := h.Reload(t.Context(), []Spec{greet("two"), use("box")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "all see the new one", func() bool { return changed.Load() == 8 })
	close(stop)
	wg.Wait()
	if pidOf(t, h, "box") != box {
		t.Error("a plugin that did not change was restarted")
	}
	eventually(t, time.Minute, "old process gone", func() bool { return gone(old) })
	if s := h.Status()[0]; s.Restarts != 0 {
		t.Errorf("status is %+v", s)
	}
}

func TestReloadFailureKeepsTheOld(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), greet("one"))
	f := filterOf(t, h, "f")
	pid := pidOf(t, h, "f")
	bad := greet("x")
	bad.Settings = []byte("nonsense = 1\n")
	err := h.Reload(t.Context(), []Spec{bad, use("box")})
	if err == nil || !strings.Contains(err.Error(), `unknown key "nonsense"`) {
		t.Fatalf("error is %v", err)
	}
	v, err := f.Filter(t.Context(), msg("look"))
	if err != nil || v.Notes["greeting"] != "one" || pidOf(t, h, "f") != pid {
		t.Errorf("%v, %v", v, err)
	}
	if len(h.Status()) != 1 {
		t.Errorf("status is %+v", h.Status())
	}
}

// A plugin that is removed finishes the call it has; later calls fail at once.
func TestReloadRemoves(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), use("filter"), use("box"))
	f := filterOf(t, h, "filter")
	pid := pidOf(t, h, "filter")
	removed, done := filepath.Join(t.TempDir(), "removed"), make(chan error)
	go func() {
		_, err := f.Filter(t.Context(), msg("until "+removed))
		done <- err
	}()
	inFlight(t, h, "filter", 1)
	if err := h.Reload(t.Context(), []Spec{use("box")}); err != nil {
		t.Fatal(err)
	}
	_, err := f.Filter(t.Context(), msg("look"))
	wantReason(t, err, Down)
	if err := os.WriteFile(removed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the call in flight failed: %v", err)
	}
	eventually(t, time.Minute, "gone", func() bool { return gone(pid) })
	if err := h.Reload(t.Context(), []Spec{use("filter"), use("box")}); err != nil {
		t.Fatal(err)
	}
	if s := h.Status(); len(s) != 2 || s[0].Name != "filter" {
		t.Errorf("status is %+v", s)
	}
}

// A drain ends by its deadline, even when a call never does.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	tm := fastTiming()
	tm.drain = 300 * time.Millisecond
	h, _ := start(t, tm, Spec{Name: "filter", Use: "filter", Timeout: time.Hour})
	f := filterOf(t, h, "filter")
	done := make(chan error)
	go func() {
		_, err := f.Filter(t.Context(), msg("deaf"))
		done <- err
	}()
	p := h.supervisor("filter").cur.Load()
	eventually(t, time.Minute, "in flight", func() bool {
		p.calls.mu.Lock()
		defer p.calls.mu.Unlock()
		return p.calls.n == 1
	})
	if err := h.Reload(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wantReason(t, <-done, Down) // by its own deadline it would be the timeout, in an hour
}

// What is replaced or dies leaves nothing behind in the host.
func TestNoLeaks(t *testing.T) {
	h, _ := start(t, fastTiming(), greet("0"))
	f := filterOf(t, h, "f")
	look := func() {
		t.Helper()
		eventually(t, time.Minute, "answer", func() bool {
			_, err := f.Filter(t.Context(), msg("look"))
			return err == nil
		})
	}
	look()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	for i := range 4 {
		if err := h.Reload(t.Context(), []Spec{greet(itoa(i + 1))}); err != nil {
			t.Fatal(err)
		}
		look()
		if _, err := f.Filter(t.Context(), msg("exit")); err == nil {
			t.Fatal("no failure")
		}
		look()
	}
	h.retire.Wait()
	eventually(t, time.Minute, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, time.Minute, "files are closed", func() bool { return openFiles(t) <= fds })
	names, err := os.ReadDir(h.opt.RunDir)
	if err != nil || len(names) != 3 { // lock, one process, one socket directory
		t.Errorf("run directory has %v, %v", names, err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// A program that was replaced is started again by a reload; one that was not keeps its process.
func TestReloadOfANewProgram(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "filter")
	install := func(comment string) {
		text := "#!/bin/sh\n# " + comment + "\nexec '" + self + "' plugin serve filter\n"
		if err := os.WriteFile(program+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	install("one")
	spec := Spec{Name: "f", Command: []string{program}, Timeout: 5 * time.Second}
	h, _ := start(t, fastTiming(), spec)
	old := pidOf(t, h, "f")
	if err := h.Reload(t.Context(), []Spec{spec}); err != nil || pidOf(t, h, "f") != old {
		t.Errorf("error %v; a plugin that did not change was restarted", err)
	}
	install("another")
	if err := h.Reload(t.Context(), []Spec{spec}); err != nil || pidOf(t, h, "f") == old {
		t.Errorf("error %v; the old program still runs", err)
	}
	eventually(t, time.Minute, "old process gone", func() bool { return gone(old) })
}
