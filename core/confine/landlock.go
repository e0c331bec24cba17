package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rules are what a process, with all that it starts, may open and reach, whoever it runs as.
// The kernel's Landlock sees to it: what is not allowed is refused. They are put on the thread
// that starts the process; see [Rules.Restrict].
//
// They say nothing of files that are handed over open, nor of what files there are and how
// large (stat(2)), and they do not keep anybody from connecting to a unix socket that has a
// path: only a user of its own does. Of the network they know TCP alone, and not Multipath TCP:
// that is against accidents, where there can be no network namespace.
type Rules struct {
	// ABI is the version of Landlock that they are written for.
	ABI int
	// Offline says that TCP is refused.
	Offline bool

	files access // what files need permission for; 0: they are free
	set   *os.File
}

// access is a set of LANDLOCK_ACCESS_FS rights.
type access uint64

const (
	readFile access = unix.LANDLOCK_ACCESS_FS_READ_FILE
	read            = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	run             = read | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// overwrite changes files that are there.
	overwrite access = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// write makes files too, but no devices: through them root could get at anything.
	write = read | overwrite | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER

	// first are the rights of the first version.
	first access = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	// ofFile are those that a file can have that is no directory.
	ofFile = readFile | overwrite | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	network = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
)

// Versions of Landlock that brought what is used here.
const (
	abiRefer    = 2 // moving files from one directory to another; refused before
	abiTruncate = 3
	abiNetwork  = 4
	abiDevices  = 5
	abiScope    = 6
)

// ErrNoLandlock says that there can be no rules about files.
var ErrNoLandlock = errors.New("its files cannot be restricted: this kernel has no Landlock (Linux 5.13 or later has it, unless lsm= at boot leaves it out); give it a user of its own, or remove the files key")

// Landlock returns the version of Landlock that the kernel has; 0: none, or it is not in use.
func Landlock() int {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// NewRules begins rules. With files nothing may be opened but what is allowed to be, else all
// may. With offline, TCP and abstract unix sockets are refused where the kernel can; the
// rules are nil if there is nothing that they could do. The caller closes them.
func NewRules(files, offline bool) (*Rules, error) {
	return newRules(Landlock(), files, offline)
}

func newRules(abi int, files, offline bool) (*Rules, error) {
	r := &Rules{ABI: abi, Offline: offline && abi >= abiNetwork}
	switch {
	case files && abi < 1:
		return nil, ErrNoLandlock
	case !files && !r.Offline:
		return nil, nil
	}
	if files {
		r.files = handled(abi)
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: uint64(r.files)}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= abiNetwork {
		size += unsafe.Sizeof(attr.Handled_access_net)
	}
	if abi >= abiScope {
		size += unsafe.Sizeof(attr.Scoped)
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
	}
	if r.Offline {
		attr.Handled_access_net = network
		if abi >= abiScope {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("Landlock rules cannot be made: %w", errno)
	}
	r.set = os.NewFile(fd, "landlock")
	return r, nil
}

// handled are the rights about files that a version knows.
func handled(abi int) access {
	a := first
	if abi >= abiRefer {
		a |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= abiTruncate {
		a |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= abiDevices {
		a |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return a
}

// Gaps says what rules about files cannot do on this kernel; "": nothing is missing.
func (r *Rules) Gaps() string {
	switch {
	case r.files == 0 || r.ABI >= abiTruncate:
		return ""
	case r.ABI >= abiRefer:
		return "it can empty files that it may not open: Linux 6.2 prevents that"
	}
	return "it can empty files that it may not open, and cannot move files between directories: Linux 6.2 has both"
}

// Close frees them; what was restricted stays so. nil is closed already.
func (r *Rules) Close() {
	if r != nil {
		r.set.Close()
	}
}

// allow permits something below path, or for path if that is a file.
func (r *Rules) allow(a access, path string) error {
	if r.files == 0 {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return r.allowFD(a, fd, path)
}

func (r *Rules) allowFD(a access, fd int, path string) error {
	if r.files == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		a &= ofFile
	}
	if a &= r.files; a == 0 {
		return nil
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: uint64(a), Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, r.set.Fd(), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return &fs.PathError{Op: "allow", Path: path, Err: errno}
	}
	return nil
}
