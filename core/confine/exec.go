package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Wrap returns the arguments with which the gateway's binary, self, puts rules on itself and
// becomes another program; fd is the descriptor of [Rules.File] there. That command line is
// for [Exec] to read.
func Wrap(self string, fd int, path string, argv []string) []string {
	return append([]string{self, "plugin", "confine", strconv.Itoa(fd), "--", path}, argv...)
}

// Exec is the main of the command that [Wrap] makes; args come after "confine". It stays the
// same process, and returns only with an error. What root could do to get around rules about
// files (load kernel modules, say) the program cannot, even as root.
func Exec(args []string) error {
	if len(args) < 4 || args[1] != "--" {
		return errors.New("usage: postern plugin confine FD -- PATH ARGV...; the gateway does this")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil || fd < 3 {
		return fmt.Errorf("%q is not a file descriptor", args[0])
	}
	path, argv := args[2], args[3:]
	// All of it is about one thread, which is the one that becomes the program.
	runtime.LockOSThread()
	unix.CloseOnExec(fd)
	// The death signal that the host asked for belongs to the first thread, and this may be another.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("death signal: %w", err)
	}
	if os.Geteuid() == 0 {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), 0, 0); errno != 0 {
		return fmt.Errorf("Landlock rules cannot be applied: %w", errno)
	}
	return &fs.PathError{Op: "execute", Path: path, Err: syscall.Exec(path, argv, os.Environ())}
}

// dropCapabilities leaves root with power over files and users, which the rules bound, and
// takes that over the kernel. The program gets what is left: root's own capabilities are
// those of the bounding set (capabilities(7)).
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		switch c {
		case unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID,
			unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_NET_BIND_SERVICE:
			continue
		}
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); {
		case errors.Is(err, unix.EINVAL): // the kernel knows no more
			return nil
		case errors.Is(err, unix.EPERM): // a container's root: what it has was chosen by others
			return nil
		case err != nil:
			return fmt.Errorf("capability %d: %w", c, err)
		}
	}
	return nil
}
