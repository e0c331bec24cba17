package pluginhost

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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of memory and processes are set by a control group for each process, version 1 or
// 2, whichever has the controller and can be written to. Otherwise a resource limit has to
// do: it counts per process, not for all together.

// A hierarchy is where control groups with one controller can be made.
type hierarchy struct {
	version int
	parents []string // candidates, the best first
}

// findHierarchy looks for a controller ("memory", "pids"). The texts are those of
// /proc/self/mountinfo and /proc/self/cgroup.
func findHierarchy(controller, mountinfo, own string) (h hierarchy, ok bool) {
	for line := range strings.Lines(mountinfo) {
		left, right, _ := strings.Cut(strings.TrimSpace(line), " - ")
		at, fs := strings.Fields(left), strings.Fields(right)
		if len(at) < 5 || len(fs) < 3 {
			continue
		}
		root, point := at[3], at[4]
		var mine string
		switch {
		case fs[0] == "cgroup" && slices.Contains(strings.Split(fs[2], ","), controller):
			mine = ownGroup(own, controller)
			h = hierarchy{version: 1, parents: []string{point}}
		case fs[0] == "cgroup2" && hasWord(filepath.Join(point, "cgroup.controllers"), controller):
			mine = ownGroup(own, "")
			h = hierarchy{version: 2}
		default:
			continue
		}
		if rel, err := filepath.Rel(root, mine); err == nil && !strings.HasPrefix(rel, "..") {
			dir := filepath.Join(point, rel)
			// In version 2 a group with processes of its own gives no controllers to others:
			// the service manager may have put us one below what it delegated.
			h.parents = append([]string{dir}, h.parents...)
			if h.version == 2 && dir != point {
				h.parents = append(h.parents, filepath.Dir(dir))
			}
		}
		return h, len(h.parents) > 0
	}
	return hierarchy{}, false
}

// ownGroup is the group of this process in the hierarchy with that controller.
func ownGroup(text, controller string) string {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			return f[2]
		}
	}
	return ""
}

func hasWord(file, word string) bool {
	b, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(b)), word)
}

// make makes a group with the controller.
func (h hierarchy) make(name, controller string) (dir string, err error) {
	err = errors.New("there is no place for control groups")
	for _, parent := range h.parents {
		if h.version == 2 && !hasWord(filepath.Join(parent, "cgroup.subtree_control"), controller) {
			if err = writeFile(filepath.Join(parent, "cgroup.subtree_control"), "+"+controller); err != nil {
				continue
			}
		}
		dir = filepath.Join(parent, name)
		if err = os.Mkdir(dir, 0o755); err == nil || errors.Is(err, os.ErrExist) {
			return dir, nil
		}
	}
	return "", err
}

// A cage is what limits one process and what it starts. The zero value limits nothing.
type cage struct {
	spec    Spec
	dirs    []string // of control groups
	memory  string   // the one with the memory controller
	rlimits []rlimit
	// How each limit is enforced, for the log.
	memoryBy, processesBy string
}

type rlimit struct {
	what int
	max  uint64
}

// newCage makes the control groups for a process. What cannot be limited is an error.
func newCage(spec Spec, name string) (*cage, error) {
	c := &cage{spec: spec}
	if spec.Memory == 0 && spec.Processes == 0 {
		return c, nil
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	own, _ := os.ReadFile("/proc/self/cgroup")
	// files and what goes into them, for version 1 and version 2
	group := func(controller string, files [2][][2]string) (string, error) {
		h, ok := findHierarchy(controller, string(mounts), string(own))
		if !ok {
			return "", errors.New("no control group has the controller " + controller)
		}
		dir, err := h.make(name, controller)
		if err != nil {
			return "", err
		}
		if !slices.Contains(c.dirs, dir) {
			c.dirs = append(c.dirs, dir)
		}
		for i, f := range files[h.version-1] {
			// Those after the first make it better, where they exist.
			if err := writeFile(filepath.Join(dir, f[0]), f[1]); err != nil && i == 0 {
				return "", err
			}
		}
		return fmt.Sprintf("cgroup v%d", h.version), nil
	}
	if spec.Memory > 0 {
		n := strconv.FormatInt(spec.Memory, 10)
		by, err := group("memory", [2][][2]string{
			{{"memory.limit_in_bytes", n}, {"memory.memsw.limit_in_bytes", n}},
			{{"memory.max", n}, {"memory.swap.max", "0"}, {"memory.oom.group", "1"}}})
		if err == nil {
			c.memory = c.dirs[len(c.dirs)-1]
		} else {
			// Not RLIMIT_AS: programs reserve far more addresses than they ever use.
			c.rlimits = append(c.rlimits, rlimit{unix.RLIMIT_DATA, uint64(spec.Memory)})
			by = "RLIMIT_DATA, for each process (" + err.Error() + ")"
		}
		c.memoryBy = by
	}
	if spec.Processes > 0 {
		n := strconv.Itoa(spec.Processes)
		by, err := group("pids", [2][][2]string{{{"pids.max", n}}, {{"pids.max", n}}})
		switch {
		case err == nil:
		case spec.User != nil: // counts all of that user
			c.rlimits = append(c.rlimits, rlimit{unix.RLIMIT_NPROC, uint64(spec.Processes)})
			by = "RLIMIT_NPROC, for its user (" + err.Error() + ")"
		default:
			c.remove()
			return nil, fmt.Errorf("its processes cannot be limited here: %w; give it a user of its own, or remove the processes key", err)
		}
		c.processesBy = by
	}
	return c, nil
}

// writeFile writes into a file that is there already.
func writeFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (c *cage) empty() bool { return len(c.dirs) == 0 && len(c.rlimits) == 0 }

// confine puts a process in, which has not run yet.
func (c *cage) confine(pid int) error {
	for _, dir := range c.dirs {
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

// exhausted reports whether the kernel killed something in the cage for its memory.
func (c *cage) exhausted() bool {
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

// remove kills what is in the cage and removes its groups.
func (c *cage) remove() {
	for _, dir := range c.dirs {
		removeGroup(dir)
	}
}

// removeGroup kills what is in a control group, however it got away from its parent, and
// removes the group. It is bounded.
func removeGroup(dir string) {
	writeFile(filepath.Join(dir, "cgroup.kill"), "1") // version 2 only
	for range 400 {
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, p := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(p); err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// isGroup guards against removing anything but what newCage made.
func isGroup(dir string) bool {
	return filepath.IsAbs(dir) && strings.HasPrefix(filepath.Base(dir), groupPrefix)
}

const groupPrefix = "postern-"
