package main

import (
	"fmt"
	"os"
	"syscall"
)

// becomeOwner makes a command that root runs act as the owner of the data directory. What root
// would leave there, the gateway, which runs as that user, could not open.
func becomeOwner(dataDir string) error {
	info, err := os.Stat(dataDir)
	if os.Geteuid() != 0 || err != nil {
		return nil // what is wrong with the directory, its user finds out
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	if err := syscall.Setgroups([]int{int(st.Gid)}); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dataDir, err)
	}
	if err := syscall.Setgid(int(st.Gid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dataDir, err)
	}
	if err := syscall.Setuid(int(st.Uid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dataDir, err)
	}
	return nil
}
