//go:build linux || openbsd || solaris || dragonfly

package maildir

import (
	"io/fs"
	"syscall"
	"time"
)

// arrived is when a file came into its folder: moving it there changed its inode. A change
// of its flags counts as well, so it may be later, and never earlier.
func arrived(fi fs.FileInfo) time.Time {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Now()
	}
	return time.Unix(st.Ctim.Unix())
}
