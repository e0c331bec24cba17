package confine

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Process is a process as it was when it was looked at.
type Process struct {
	PID, Group int
	// Start is in clock ticks since boot: with the pid, the name of a process.
	Start uint64

	state byte
}

// Alive is false for what has ended but was not waited for: in a container PID 1 may never
// do that.
func (p Process) Alive() bool { return p.state != 'Z' && p.state != 'X' }

// Find looks at a process.
func Find(pid int) (Process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, err
	}
	// The name of the program is in parentheses and may contain anything.
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return Process{}, errors.New("malformed stat file")
	}
	pgrp, err := strconv.Atoi(f[2])
	if err != nil {
		return Process{}, err
	}
	start, err := strconv.ParseUint(f[19], 10, 64) // field 22
	return Process{PID: pid, Group: pgrp, Start: start, state: f[0][0]}, err
}

// Processes lists what runs, best effort: processes come and go.
func Processes() []Process {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var ps []Process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := Find(pid); err == nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// Marked reports whether the environment of a process has a variable that begins so.
func Marked(pid int, prefix string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if strings.HasPrefix(string(v), prefix) {
			return true
		}
	}
	return false
}

// KillMarked kills every process with the mark in its environment, and returns how many
// there were. It finds children that left the process group of their plugin.
func KillMarked(mark string) int {
	n := 0
	for _, p := range Processes() {
		if p.PID != os.Getpid() && p.Alive() && Marked(p.PID, mark) {
			syscall.Kill(p.PID, syscall.SIGKILL)
			n++
		}
	}
	return n
}

// KillGroup kills the process group of a leader that was started at that time, unless the
// pid belongs to somebody else by now.
func KillGroup(leader int, start uint64) {
	if p, err := Find(leader); err == nil && p.Start != start {
		return
	}
	syscall.Kill(-leader, syscall.SIGKILL)
}

// BootID is the name of the time since the machine was started: a pid and a start time of
// another mean nothing.
func BootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
