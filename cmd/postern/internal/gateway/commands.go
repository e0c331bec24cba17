package gateway

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/queue"
)

// BecomeOwner makes a command that root runs act as the owner of the data directory. What root
// would leave there, the gateway, which runs as that user, could not open.
func BecomeOwner(dataDir string) error {
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

// OpenDirectory opens the directory for a command, beside a gateway that runs or without one.
func OpenDirectory(c *config.Config) (*directory.Directory, error) {
	if err := BecomeOwner(c.DataDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.DataDir, 0o710); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	d, err := directory.Open(directory.Options{Path: directoryFile(c), Hostname: c.Hostname, Postmaster: c.Postmaster})
	if err != nil {
		return nil, err
	}
	d.Declare(Declared(c), c.Postmaster)
	return d, nil
}

// OpenQueue opens the queue for a command. No gateway runs meanwhile.
func OpenQueue(c *config.Config) (*admin.Queue, func(), error) {
	if err := BecomeOwner(c.DataDir); err != nil {
		return nil, nil, err
	}
	k, err := openKeeping(c, QuietLog(c))
	if err != nil {
		return nil, nil, err
	}
	q := &admin.Queue{Store: k.store, Trace: k.trace, Clock: k.clock, Lifetime: lifetimes(c)}
	return q, func() { k.Close() }, nil
}

// lifetimes is how long mail is tried, by its class.
func lifetimes(c *config.Config) func(queue.Class) time.Duration {
	return func(class queue.Class) time.Duration {
		if class == queue.Journal {
			return time.Duration(c.Queue.JournalLifetime)
		}
		return time.Duration(c.Queue.Lifetime)
	}
}
