package pluginhost

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// procStat is what is of interest in /proc/PID/stat.
type procStat struct {
	pid, pgrp int
	state     byte
	start     uint64 // in clock ticks since boot: with the pid, the name of a process
}

// alive is false for what has ended but was not waited for: in a container PID 1 may never
// do that.
func (s procStat) alive() bool { return s.state != 'Z' && s.state != 'X' }

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// The name of the program is in parentheses and may contain anything.
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return procStat{}, errors.New("malformed stat file")
	}
	pgrp, err := strconv.Atoi(f[2])
	if err != nil {
		return procStat{}, err
	}
	start, err := strconv.ParseUint(f[19], 10, 64) // field 22
	return procStat{pid: pid, pgrp: pgrp, state: f[0][0], start: start}, err
}

// processes lists what runs, best effort: processes come and go.
func processes() []procStat {
	names, err := readNames("/proc")
	if err != nil {
		return nil
	}
	var ps []procStat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			ps = append(ps, s)
		}
	}
	return ps
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// hasMark reports whether the environment of a process has a variable that begins so.
func hasMark(pid int, prefix string) bool {
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

// killMarked kills every process with the mark in its environment, and returns how many
// there were. It finds children that left the process group of their plugin.
func killMarked(mark string) int {
	n := 0
	for _, p := range processes() {
		if p.pid != os.Getpid() && p.alive() && hasMark(p.pid, mark) {
			syscall.Kill(p.pid, syscall.SIGKILL)
			n++
		}
	}
	return n
}

// killGroup kills the process group of a leader that was started at that time, unless the
// pid belongs to somebody else by now.
func killGroup(leader int, start uint64) {
	if s, err := readStat(leader); err == nil && s.start != start {
		return
	}
	syscall.Kill(-leader, syscall.SIGKILL)
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
