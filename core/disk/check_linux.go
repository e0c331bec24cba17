package disk

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Magic numbers of statfs(2).
const (
	magicTmpfs   = 0x01021994
	magicRamfs   = 0x858458f6
	magicOverlay = 0x794c7630
)

func check(dir string) (Kind, error) {
	var s syscall.Statfs_t
	if err := statfs(dir, &s); err != nil {
		return Durable, err
	}
	switch uint32(s.Type) {
	case magicTmpfs, magicRamfs:
		return Memory, nil
	case magicOverlay:
		return checkOverlay(dir)
	}
	return Durable, nil
}

// checkOverlay looks for the mount's options: statfs does not tell them.
func checkOverlay(dir string) (Kind, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return Overlay, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Overlay, err
	}
	defer f.Close()
	major, minor := device(uint64(st.Dev))
	if mountOption(f, fmt.Sprintf("%d:%d", major, minor), "volatile") {
		return Volatile, nil
	}
	return Overlay, nil
}

// mountOption reports whether the mount of a device ("major:minor") has an option of its
// file system. The format is that of proc_pid_mountinfo(5).
func mountOption(r io.Reader, dev, option string) bool {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // the lower directories of an overlay make long lines
	for lines.Scan() {
		mount, super, ok := strings.Cut(lines.Text(), " - ")
		m, s := strings.Fields(mount), strings.Fields(super)
		if !ok || len(m) < 3 || m[2] != dev || len(s) < 3 {
			continue
		}
		if slices.Contains(strings.Split(s[2], ","), option) {
			return true
		}
	}
	return false
}

// device splits a device number as glibc's major() and minor() do.
func device(dev uint64) (major, minor uint64) {
	return dev>>8&0xfff | dev>>32&^0xfff, dev&0xff | dev>>12&0xffffff00
}
