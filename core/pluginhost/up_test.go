package pluginhost

import (
	"syscall"
	"testing"
	"time"
)

// Who asked to know is told of each return of a plugin, and of nothing else.
func TestUp(t *testing.T) {
	t.Parallel()
	up := make(chan string, 10)
	opt := options(t, &logBuffer{}, fastTiming())
	opt.Up = func(plugin string) { up <- plugin }
	h, err := Start(t.Context(), opt, []Spec{greet("one"), use("box")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(t.Context()) })
	told := func(of string) {
		t.Helper()
		select {
		case name := <-up:
			if name != "f" {
				t.Errorf("%s: told of %s", of, name)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: not told", of)
		}
	}
	// It has answered, so that it does not count as broken when it dies.
	if _, err := filterOf(t, h, "f").Filter(t.Context(), msg("look")); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pidOf(t, h, "f"), syscall.SIGKILL)
	told("its death")
	if err := h.Restart(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	told("a restart")
	if err := h.Disable("f"); err != nil {
		t.Fatal(err)
	}
	if err := h.Enable(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	told("its being enabled")
	if err := h.Reload(t.Context(), []Spec{greet("two"), use("box")}); err != nil {
		t.Fatal(err)
	}
	if n := len(up); n > 0 {
		t.Errorf("told %d times more", n)
	}
}
