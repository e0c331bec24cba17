package child

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
)

// The test binary is the guard, and a program that runs for long.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin" {
		switch os.Args[2] {
		case "guard":
			if err := Guard(os.Stdin, os.Stdout); err != nil {
				os.Exit(1)
			}
			os.Exit(0)
		case "child":
			signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
			time.Sleep(time.Hour)
		}
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func open(t *testing.T) *Parent {
	t.Helper()
	p, err := Open(Options{RunDir: filepath.Join(t.TempDir(), "run"), SelfExe: "/proc/self/exe", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// require skips loudly, or fails where everything has to run.
func require(t *testing.T, ok bool, lack string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("POSTERN_REQUIRE_PEERS") == "1":
		t.Fatal(lack)
	default:
		t.Skip("SKIP: " + lack)
	}
}

func asRoot(t *testing.T) { require(t, os.Geteuid() == 0, "not root") }

// withGroups wants control groups with a controller.
func withGroups(t *testing.T, l confine.Limits) {
	t.Helper()
	asRoot(t)
	c, err := confine.NewCage(l, "test"+rand.Text())
	if err != nil {
		require(t, false, err.Error())
	}
	defer c.Remove()
	for _, by := range []string{c.MemoryBy, c.ProcessesBy} {
		require(t, by == "" || strings.HasPrefix(by, "cgroup"), by)
	}
}

func withLandlock(t *testing.T, abi int) {
	t.Helper()
	require(t, confine.Landlock() >= abi, fmt.Sprintf("the kernel has Landlock %d, not %d", confine.Landlock(), abi))
}

// eventually waits for what another process does.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func gone(pid int) bool {
	s, err := confine.Find(pid)
	return err != nil || !s.Alive()
}

func itoa(n int) string { return strconv.Itoa(n) }
