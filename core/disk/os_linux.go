package disk

import (
	"os"
	"syscall"
)

func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

func space(name string) (Space, error) {
	var s syscall.Statfs_t
	if err := statfs(name, &s); err != nil {
		return Space{}, err
	}
	unit := uint64(s.Frsize)
	return Space{Bytes: s.Blocks * unit, FreeBytes: s.Bavail * unit, Inodes: s.Files, FreeInodes: s.Ffree}, nil
}

func statfs(name string, s *syscall.Statfs_t) error {
	for {
		err := syscall.Statfs(name, s)
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return &os.PathError{Op: "statfs", Path: name, Err: err}
		}
	}
}
