package confine

import (
	"crypto/rand"
	"os"
	"slices"
	"syscall"
	"testing"
)

func TestFind(t *testing.T) {
	t.Parallel()
	pid := sleeper(t, &syscall.SysProcAttr{Setpgid: true})
	p, err := Find(pid)
	if err != nil || p.PID != pid || p.Group != pid || p.Start == 0 || !p.Alive() {
		t.Errorf("it is %+v, %v", p, err)
	}
	if !slices.ContainsFunc(Processes(), func(q Process) bool { return q.PID == pid && q.Start == p.Start }) {
		t.Error("it is not listed")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	killed(t, pid)
	if p, err := Find(pid); err != nil || p.Alive() {
		t.Errorf("when it has ended and nobody waited for it: %+v, %v", p, err)
	}
	if _, err := Find(1 << 30); err == nil {
		t.Error("there is a process that cannot be")
	}
	if BootID() == "" {
		t.Error("no boot id")
	}
}

// A group is killed if its leader is the one that is meant.
func TestKillGroup(t *testing.T) {
	t.Parallel()
	leader := sleeper(t, &syscall.SysProcAttr{Setpgid: true})
	member := sleeper(t, &syscall.SysProcAttr{Setpgid: true, Pgid: leader})
	p, err := Find(leader)
	if err != nil {
		t.Fatal(err)
	}
	KillGroup(leader, p.Start+1) // somebody else with its pid
	if p, err := Find(member); err != nil || !p.Alive() {
		t.Fatalf("killed for another: %+v, %v", p, err)
	}
	KillGroup(leader, p.Start)
	killed(t, leader)
	killed(t, member)
}

// A mark finds a process wherever it went, and nobody without it.
func TestKillMarked(t *testing.T) {
	t.Parallel()
	mark := "POSTERN_TEST=" + rand.Text()
	away := sleeper(t, &syscall.SysProcAttr{Setsid: true}, mark+".1.")
	other := sleeper(t, nil, "OTHER="+mark)
	if !Marked(away, mark) || Marked(other, mark) || Marked(os.Getpid(), mark) {
		t.Error("the mark is not seen, or seen where it is not")
	}
	if n := KillMarked(mark); n != 1 {
		t.Errorf("%d killed", n)
	}
	killed(t, away)
	if p, err := Find(other); err != nil || !p.Alive() {
		t.Errorf("another was killed: %+v, %v", p, err)
	}
}
