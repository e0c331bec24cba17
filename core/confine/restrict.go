package confine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Restrict puts the rules on the calling thread and on every process that it starts from then
// on, and nobody takes them off again: the caller has locked the thread with
// [runtime.LockOSThread] and lets it end. After an error the thread is as useless.
//
// What root could do to get around rules about files (load kernel modules, say), processes
// started there cannot, even as root; and no program gives them rights that they do not have.
func (r *Rules) Restrict() error {
	if os.Geteuid() == 0 {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, r.set.Fd(), 0, 0); errno != 0 {
		return fmt.Errorf("Landlock rules cannot be applied: %w", errno)
	}
	return nil
}

// dropCapabilities leaves root with power over files and users, which the rules bound, and
// takes that over the kernel. A program gets what is left: root's own capabilities are those
// of the bounding set (capabilities(7)). The thread keeps what it has itself.
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
