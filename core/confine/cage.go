package confine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are what a process and all that it starts may take together.
type Limits struct {
	// Memory is in bytes; 0: no limit. What takes more is killed.
	Memory int64
	// Processes is how many processes and threads there may be; 0: no limit.
	Processes int
	// OwnUser says that nobody else runs as its user: then the kernel can count its processes
	// by that where there are no control groups.
	OwnUser bool
}

// A Cage is what limits one process and what it starts. They are set by a control group for
// each process, version 1 or 2, whichever has the controller and can be written to. Otherwise
// a resource limit has to do: it counts per process, not for all together. The zero value
// limits nothing.
type Cage struct {
	// Groups are the directories of its control groups.
	Groups []string
	// MemoryBy and ProcessesBy say how each limit is enforced, for the log; "": not at all.
	MemoryBy, ProcessesBy string

	memory  string // the group with the memory controller
	rlimits []rlimit
}

type rlimit struct {
	what int
	max  uint64
}

// NewCage makes the control groups for a process; the name must be one that nobody else uses.
// What cannot be limited is an error, and leaves nothing.
func NewCage(l Limits, name string) (*Cage, error) {
	c := &Cage{}
	c.limitMemory(l, groupPrefix+name)
	if err := c.limitProcesses(l, groupPrefix+name); err != nil {
		c.Remove()
		return nil, err
	}
	return c, nil
}

// group makes a control group with a controller, and writes the limits, which are those of
// version 1 and of version 2: a file and what goes into it.
func (c *Cage) group(controller, name string, files [2][][2]string) (by string, err error) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	own, _ := os.ReadFile("/proc/self/cgroup")
	h, ok := findHierarchy(controller, string(mounts), string(own))
	if !ok {
		return "", errors.New("no control group has the controller " + controller)
	}
	dir, err := h.make(name, controller)
	if err != nil {
		return "", err
	}
	if !slices.Contains(c.Groups, dir) {
		c.Groups = append(c.Groups, dir)
	}
	for i, f := range files[h.version-1] {
		// Those after the first make it better, where they exist.
		if err := writeFile(filepath.Join(dir, f[0]), f[1]); err != nil && i == 0 {
			return "", err
		}
	}
	return fmt.Sprintf("cgroup v%d", h.version), nil
}

func (c *Cage) limitMemory(l Limits, name string) {
	if l.Memory <= 0 {
		return
	}
	n := strconv.FormatInt(l.Memory, 10)
	by, err := c.group("memory", name, [2][][2]string{
		{{"memory.limit_in_bytes", n}, {"memory.memsw.limit_in_bytes", n}},
		{{"memory.max", n}, {"memory.swap.max", "0"}, {"memory.oom.group", "1"}}})
	if err == nil {
		c.memory = c.Groups[len(c.Groups)-1]
	} else {
		// Not RLIMIT_AS: programs reserve far more addresses than they ever use.
		c.rlimits = append(c.rlimits, rlimit{unix.RLIMIT_DATA, uint64(l.Memory)})
		by = "RLIMIT_DATA, for each process (" + err.Error() + ")"
	}
	c.MemoryBy = by
}

func (c *Cage) limitProcesses(l Limits, name string) error {
	if l.Processes <= 0 {
		return nil
	}
	n := strconv.Itoa(l.Processes)
	by, err := c.group("pids", name, [2][][2]string{{{"pids.max", n}}, {{"pids.max", n}}})
	switch {
	case err == nil:
	case l.OwnUser: // counts all of that user
		c.rlimits = append(c.rlimits, rlimit{unix.RLIMIT_NPROC, uint64(l.Processes)})
		by = "RLIMIT_NPROC, for its user (" + err.Error() + ")"
	default:
		return fmt.Errorf("its processes cannot be limited here: %w; give it a user of its own, or remove the processes key", err)
	}
	c.ProcessesBy = by
	return nil
}

// Empty reports whether it limits nothing.
func (c *Cage) Empty() bool { return len(c.Groups) == 0 && len(c.rlimits) == 0 }

// Hold puts a process into the cage that was started with [syscall.SysProcAttr.Ptrace]: it
// stands before its first instruction until [Release].
func (c *Cage) Hold(pid int) error {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || !ws.Stopped() {
			return fmt.Errorf("it does not stop before it begins: %w", errors.Join(err, unix.EPERM))
		}
		break
	}
	return c.Add(pid)
}

// Release lets a held process go. Only the thread that forked it can do that.
func Release(pid int) error { return unix.PtraceDetach(pid) }

// Add puts a process into the cage.
func (c *Cage) Add(pid int) error {
	for _, dir := range c.Groups {
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
	}
	for _, l := range c.rlimits {
		if err := unix.Prlimit(pid, l.what, &unix.Rlimit{Cur: l.max, Max: l.max}, nil); err != nil {
			return fmt.Errorf("resource limit: %w", err)
		}
	}
	return nil
}

// Exhausted reports whether the kernel killed something in the cage for its memory.
func (c *Cage) Exhausted() bool {
	if c.memory == "" {
		return false
	}
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		b, _ := os.ReadFile(filepath.Join(c.memory, name))
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			if n, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok && n != "0" {
				return true
			}
		}
	}
	return false
}

// Remove kills what is in the cage and removes its groups.
func (c *Cage) Remove() {
	for _, dir := range c.Groups {
		RemoveGroup(dir)
	}
}
