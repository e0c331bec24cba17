package pluginhost

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSteering(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "die")
	spec := greet("one")
	spec.Settings = []byte("greeting = 'one'\ndie_if = '" + flag + "'\n")
	h, _ := start(t, calm(), spec, use("box"))
	f := filterOf(t, h, "f")
	pid := pidOf(t, h, "f")
	if err := h.Restart(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the old one is gone", func() bool { return gone(pid) })
	if now := pidOf(t, h, "f"); now == 0 || now == pid {
		t.Error("not restarted")
	}

	if err := h.Disable("f"); err != nil {
		t.Fatal(err)
	}
	_, err := f.Filter(t.Context(), msg("look"))
	if fl := wantReason(t, err, Down); !strings.Contains(fl.Error(), "disabled by an admin") {
		t.Error(fl)
	}
	if _, ok := h.Filter("f"); !ok {
		t.Error("it is not known as a filter any more, so nobody would ask it")
	}
	if s := h.Status()[0]; s.State != "disabled" || s.Reason != "disabled by an admin" {
		t.Errorf("status is %+v", s)
	}
	if err := h.Restart(t.Context(), "f"); err == nil || !strings.Contains(err.Error(), "enable it") {
		t.Errorf("restart: %v", err)
	}
	// A reload leaves it disabled, and says what is wrong with new settings.
	if err := h.Reload(t.Context(), []Spec{greet("two"), use("box")}); err != nil {
		t.Fatal(err)
	}
	bad := greet("x")
	bad.Settings = []byte("nonsense = 1\n")
	if err := h.Reload(t.Context(), []Spec{bad, use("box")}); err == nil {
		t.Error("bad settings were taken")
	}
	_, err = f.Filter(t.Context(), msg("look"))
	wantReason(t, err, Down)
	eventually(t, time.Minute, "no process is left", func() bool {
		s := h.supervisor("f")
		return s.cur.Load() == nil
	})

	if err := h.Enable(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	if v, err := f.Filter(t.Context(), msg("look")); err != nil || v.Notes["greeting"] != "two" {
		t.Errorf("enabled: %v, %v", v, err)
	}
	if err := h.Enable(t.Context(), "f"); err == nil {
		t.Error("enabled twice")
	}
	for _, err := range []error{h.Restart(t.Context(), "nobody"), h.Disable("nobody"), h.Enable(t.Context(), "nobody")} {
		if err == nil || !strings.Contains(err.Error(), `no plugin "nobody"`) {
			t.Errorf("error is %v", err)
		}
	}
}

// G-18: a hundred swaps under load, of settings and of the process alone, and nobody sees one.
func TestG18HundredSwaps(t *testing.T) {
	t.Parallel()
	h, _ := start(t, calm(), greet("0"))
	f := filterOf(t, h, "f")
	var calls atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if v, err := f.Filter(t.Context(), msg("sleep 1ms")); err != nil || v.Notes["greeting"] == "" {
					t.Errorf("%v, %v", v, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for i := range 100 {
		before := calls.Load()
		var err error
		if i%2 == 0 {
			err = h.Reload(t.Context(), []Spec{greet(itoa(i))})
		} else {
			err = h.Restart(t.Context(), "f")
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "calls", func() bool { return calls.Load() > before || t.Failed() })
	}
	close(stop)
	wg.Wait()
	h.retire.Wait()
	if names, _ := os.ReadDir(h.opt.RunDir); len(names) != 3 {
		t.Errorf("left in the run directory: %v", names)
	}
}
