package child

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
)

// A child ends by the death signal of the thread that forked it.
func TestChildEndsWithTheForker(t *testing.T) {
	t.Parallel()
	f := newForker()
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	f.do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if gone(cmd.Process.Pid) {
		t.Fatal("the child is not there")
	}
	f.close()
	eventually(t, time.Minute, "end", func() bool { return gone(cmd.Process.Pid) })
}

// What ends plugins ends those with rules: the death signal of the thread that has them.
func TestG10FilesAndDeath(t *testing.T) {
	t.Parallel()
	withLandlock(t, 1)
	rules, err := confine.NewRules(true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer rules.Close()
	if err := errors.Join(rules.AllowSystem(), rules.AllowProgram([]string{"/proc/self/exe"}, nil)); err != nil {
		t.Fatal(err)
	}
	f := newForker()
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f.do(func() { err = errors.Join(rules.Restrict(), cmd.Start()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if gone(cmd.Process.Pid) {
		t.Fatal("the process is not there")
	}
	f.close()
	eventually(t, time.Minute, "end", func() bool { return gone(cmd.Process.Pid) })
}

// The guard is replaced when it dies, and the new one knows the groups.
func TestGuardIsReplaced(t *testing.T) {
	t.Parallel()
	g := open(t).guard
	leader := sleeper(t)
	s, err := confine.Find(leader.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	g.add(s.PID, s.Start)
	pid := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.in == nil {
			return 0
		}
		return g.cmd.Process.Pid
	}
	first := pid()
	syscall.Kill(first, syscall.SIGKILL)
	eventually(t, time.Minute, "another guard", func() bool { p := pid(); return p != 0 && p != first })
	if gone(s.PID) {
		t.Fatal("the end of the guard ended the group")
	}
	g.mu.Lock()
	g.in.Close() // as when the host dies
	g.mu.Unlock()
	eventually(t, time.Minute, "the group is ended", func() bool { return gone(s.PID) })
}

// The same when the host is killed: the guard ends what is in the groups.
func TestG09G10GuardEndsGroups(t *testing.T) {
	t.Parallel()
	withGroups(t, confine.Limits{Processes: 60})
	p := open(t)
	c, err := confine.NewCage(confine.Limits{Processes: 20}, p.mark+".0")
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
	p.guard.addCage(c.Groups)
	p.guard.mu.Lock()
	p.guard.in.Close() // as when the host dies
	p.guard.mu.Unlock()
	eventually(t, time.Minute, "the child is dead", func() bool { return gone(child.Process.Pid) })
	child.Wait()
	eventually(t, time.Minute, "the group is gone", func() bool { _, err := os.Stat(c.Groups[0]); return err != nil })
	p.guard.removeCage(c.Groups)
}

// TestPrepareFailsBeforeAnybodyWaits: after an error nobody may wait for a process that was
// never started.
func TestPrepareFailsBeforeAnybodyWaits(t *testing.T) {
	p := &Process{who: &syscall.Credential{Uid: 1, Gid: 1}}
	if err := p.Prepare(nil, filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Fatal("a directory that is not there was given away")
	}
	if p.Exited() != nil || p.Dead() != nil {
		t.Error("whoever waits for its end waits for ever")
	}
}
