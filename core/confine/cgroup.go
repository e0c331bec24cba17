package confine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

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

// writeFile writes into a file that is there already.
func writeFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// RemoveGroup kills what is in a control group, however it got away from its parent, and
// removes the group. A directory that [NewCage] did not make is left alone. It is bounded.
func RemoveGroup(dir string) {
	if !isGroup(dir) {
		return
	}
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

// isGroup guards against removing anything but what NewCage made.
func isGroup(dir string) bool {
	return filepath.IsAbs(dir) && strings.HasPrefix(filepath.Base(dir), groupPrefix)
}

const groupPrefix = "postern-"
