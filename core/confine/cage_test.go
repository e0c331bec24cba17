package confine

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

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

// sleeper is a process that does nothing until the test ends it.
func sleeper(t *testing.T, a *syscall.SysProcAttr, env ...string) int {
	t.Helper()
	child := exec.Command("sleep", "600")
	child.Env, child.SysProcAttr = env, a
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	return child.Process.Pid
}

// killed waits until a child has been killed, and leaves waiting for it to others.
func killed(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

// A cage has the limits it was asked for, and what is in it ends with it.
func TestCage(t *testing.T) {
	t.Parallel()
	require(t, os.Geteuid() == 0, "not root")
	c, err := NewCage(Limits{Memory: 64 << 20, Processes: 20}, "test"+rand.Text())
	if err != nil {
		require(t, false, err.Error())
	}
	require(t, len(c.rlimits) == 0, "no control groups: "+c.MemoryBy+", "+c.ProcessesBy)
	pid := sleeper(t, nil)
	if err := c.Add(pid); err != nil {
		t.Fatal(err)
	}
	for _, dir := range c.Groups {
		if b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")); strings.TrimSpace(string(b)) != strconv.Itoa(pid) {
			t.Errorf("in %s is %q", dir, b)
		}
	}
	if c.Empty() || c.Exhausted() {
		t.Error("it is said to limit nothing, or to be used up")
	}
	c.Remove()
	killed(t, pid)
	for _, dir := range c.Groups {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	if c, err := NewCage(Limits{}, "none"); err != nil || !c.Empty() {
		t.Errorf("without limits: %+v, %v", c, err)
	}
}

// Where there are no control groups, resource limits hold.
func TestResourceLimits(t *testing.T) {
	t.Parallel()
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	c := &Cage{rlimits: []rlimit{{unix.RLIMIT_DATA, 64 << 20}, {unix.RLIMIT_NPROC, 77}}}
	if err := c.Add(child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	limits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", child.Process.Pid))
	for _, want := range []string{"Max data size             67108864             67108864", "Max processes             77                   77"} {
		if !strings.Contains(string(limits), want) {
			t.Errorf("limits are\n%s", limits)
		}
	}
}
