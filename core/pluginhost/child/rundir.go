package child

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/postern-mail/postern/core/confine"
)

// A runDir is the directory of a running host.
type runDir struct {
	path    string
	sockets string // where socket directories are made; path itself if it is short enough
	shared  string // the same for plugins with a user of their own; "": not made yet
	mu      sync.Mutex
	lock    *os.File
	boot    string
}

const (
	socketDirPrefix = "plugin-dir" // the name go-plugin gives them
	tempPrefix      = "postern-"
	// A unix socket's path has at most 107 bytes. go-plugin appends "/plugin-dir" and
	// "/plugin" with up to ten digits each.
	maxSocketParent = 107 - len("/plugin-dir0123456789/plugin0123456789")
)

// openRunDir makes and locks the directory, and ends what a previous host left behind.
func openRunDir(path string) (*runDir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("plugin host: run directory %q is not an absolute path", path)
	}
	if err := privateDir(path); err != nil {
		return nil, fmt.Errorf("plugin host: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("plugin host: %w", err)
	}
	d := &runDir{path: path, sockets: path, lock: lock, boot: confine.BootID()}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("plugin host: %s is used by another gateway that runs", path)
	}
	d.reap()
	if len(path) > maxSocketParent {
		if err := d.shortSockets(); err != nil {
			lock.Close()
			return nil, err
		}
	}
	return d, nil
}

// privateDir makes a directory that only its owner can enter.
func privateDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of this user; remove it or choose another", path)
	}
	if fi.Mode().Perm() != 0o700 {
		return os.Chmod(path, 0o700)
	}
	return nil
}

// shortSockets puts the sockets elsewhere, because the path is too long for them.
func (d *runDir) shortSockets() error {
	tmp, err := os.MkdirTemp("", tempPrefix) // 0700
	if err != nil {
		return fmt.Errorf("plugin host: %w", err)
	}
	if len(tmp) > maxSocketParent {
		os.Remove(tmp)
		return fmt.Errorf("plugin host: neither %s nor %s is short enough for sockets (%d bytes); choose a shorter data_dir or TMPDIR", d.path, tmp, maxSocketParent)
	}
	d.sockets = tmp
	return os.WriteFile(filepath.Join(d.path, "sockets"), []byte(tmp), 0o600)
}

// openSockets is where the socket directories of plugins with a user of their own are made:
// they cannot enter ours. Others can go through it, but into none of those directories.
func (d *runDir) openSockets() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shared != "" {
		return d.shared, nil
	}
	tmp, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return "", fmt.Errorf("plugin host: %w", err)
	}
	err = os.WriteFile(filepath.Join(d.path, "sockets.shared"), []byte(tmp), 0o600)
	if err == nil {
		err = os.Chmod(tmp, 0o711)
	}
	if err == nil && len(tmp) > maxSocketParent {
		err = fmt.Errorf("%s is too long for sockets; choose a shorter TMPDIR", tmp)
	}
	if err != nil {
		os.Remove(tmp)
		return "", fmt.Errorf("plugin host: %w", err)
	}
	d.shared = tmp
	return tmp, nil
}

// recordGroups notes the control groups of a process.
func (d *runDir) recordGroups(pid int, dirs []string) {
	_ = os.WriteFile(d.groupsPath(pid), []byte(strings.Join(dirs, "\n")), 0o600)
}

func (d *runDir) groupsPath(pid int) string { return filepath.Join(d.path, "c"+strconv.Itoa(pid)) }

// reapGroups ends what is left in recorded control groups.
func reapGroups(file string) {
	b, _ := os.ReadFile(file)
	for dir := range strings.SplitSeq(string(b), "\n") {
		confine.RemoveGroup(dir)
	}
	os.Remove(file)
}

// record notes a process, so that a later host can end it.
func (d *runDir) record(pid int, start uint64, mark string) {
	line := fmt.Sprintf("%d %d %s %s\n", pid, start, d.boot, mark)
	// Without the note the guard and the pipe still hold; nothing is to be done about it.
	_ = os.WriteFile(d.recordPath(pid), []byte(line), 0o600)
}

func (d *runDir) forget(pid int) {
	os.Remove(d.recordPath(pid))
	os.Remove(d.groupsPath(pid))
}

func (d *runDir) recordPath(pid int) string { return filepath.Join(d.path, "p"+strconv.Itoa(pid)) }

// reap ends the plugins of a previous host and removes its files.
func (d *runDir) reap() {
	entries, _ := os.ReadDir(d.path)
	var pids []confine.Process
	for _, e := range entries {
		name := e.Name()
		file := filepath.Join(d.path, name)
		switch {
		case strings.HasPrefix(name, socketDirPrefix):
			os.RemoveAll(file)
		case name == "sockets" || name == "sockets.shared":
			removeTemp(file)
		case numbered(name, 'c'):
			reapGroups(file)
		case numbered(name, 'p'):
			if p, ok := d.reapRecorded(file); ok {
				pids = append(pids, p)
			}
			os.Remove(file)
		}
	}
	deadline := time.Now().Add(2 * time.Second)
	for _, p := range pids { // they may hold what their successors want
		for time.Now().Before(deadline) {
			if s, err := confine.Find(p.PID); err != nil || s.Start != p.Start || !s.Alive() {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// numbered reports whether a file is one of those with a pid in their names.
func numbered(name string, kind byte) bool {
	return len(name) > 1 && name[0] == kind && name[1] >= '0' && name[1] <= '9'
}

func (d *runDir) reapRecorded(file string) (confine.Process, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return confine.Process{}, false
	}
	var p confine.Process
	var boot, mark string
	if n, err := fmt.Sscanf(string(b), "%d %d %s %s", &p.PID, &p.Start, &boot, &mark); n != 4 || err != nil {
		return p, false
	}
	if boot != d.boot || p.PID <= 1 || len(mark) < 16 {
		return p, false
	}
	confine.KillMarked(markEnv(mark))
	// Its leader must be the very process; the mark has found everybody else.
	if s, err := confine.Find(p.PID); err == nil && s.Start == p.Start {
		confine.KillGroup(p.PID, p.Start)
		return p, true
	}
	return p, false
}

// removeTemp removes the directory that shortSockets made in an earlier life.
func removeTemp(file string) {
	b, err := os.ReadFile(file)
	dir := string(b)
	if err == nil && filepath.Dir(dir) == filepath.Clean(os.TempDir()) && strings.HasPrefix(filepath.Base(dir), tempPrefix) {
		if fi, err := os.Lstat(dir); err == nil && fi.IsDir() {
			os.RemoveAll(dir)
		}
	}
	os.Remove(file)
}

func (d *runDir) close() {
	if d.sockets != d.path {
		os.RemoveAll(d.sockets)
		os.Remove(filepath.Join(d.path, "sockets"))
	}
	if d.shared != "" {
		os.RemoveAll(d.shared)
		os.Remove(filepath.Join(d.path, "sockets.shared"))
	}
	d.lock.Close()
}
