package child

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
)

// What outlived everything else is ended by the next host, by pid and start time; a
// process that merely has the pid is left alone.
func TestG12StalePlugin(t *testing.T) {
	t.Parallel()
	runDir := filepath.Join(t.TempDir(), "run")
	d, err := openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	stale := sleeper(t)
	other := sleeper(t)
	ours, err := confine.Find(stale.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := confine.Find(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	d.record(ours.PID, ours.Start, "0123456789abcdef.1.")
	d.record(theirs.PID, theirs.Start-1, "0123456789abcdef.2.")
	d.close()
	d, err = openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if !gone(ours.PID) {
		t.Error("the stale plugin lives")
	}
	if gone(theirs.PID) {
		t.Error("a process that is not ours was killed")
	}
}

// A child that outlived its plugin and left its group is found by its mark.
func TestG12StaleChild(t *testing.T) {
	t.Parallel()
	runDir := filepath.Join(t.TempDir(), "run")
	d, err := openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	mark := rand.Text() + ".1."
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.Env = []string{markEnv(mark)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	// The environment is to be seen only when the program runs.
	eventually(t, time.Minute, "program", func() bool { return confine.Marked(cmd.Process.Pid, markEnv(mark)) })
	d.record(1<<22+1, 1, mark) // a plugin that is no more
	d.close()
	if d, err = openRunDir(runDir); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	eventually(t, time.Minute, "end", func() bool { return gone(cmd.Process.Pid) })
}

// G-12: what a previous host left in control groups is ended by the next, and nothing else
// is taken for a group.
func TestG12StaleGroups(t *testing.T) {
	t.Parallel()
	withGroups(t, confine.Limits{Processes: 60})
	runDir := filepath.Join(t.TempDir(), "run")
	d, err := openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := confine.NewCage(confine.Limits{Processes: 20}, "stale"+itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()
	if err := c.Add(child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	d.recordGroups(child.Process.Pid, append(c.Groups, other, "postern-relative", "/"))
	d.close()
	if d, err = openRunDir(runDir); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if !gone(child.Process.Pid) {
		t.Error("the process lives")
	}
	child.Wait()
	if _, err := os.Stat(c.Groups[0]); err == nil {
		t.Error("the group is left")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("a directory that is no group was removed")
	}
	if names, _ := os.ReadDir(runDir); len(names) != 1 {
		t.Errorf("left in the run directory: %v", names)
	}
}
