package gateway

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/local"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/trace"
)

// keeping is what a data directory holds: the queue, its content, and the lock that makes
// this process its only user.
type keeping struct {
	lock  io.Closer
	spool *spool.Spool
	store *local.Store
	trace *trace.Log
	clock func() time.Time
}

// QueueDir is where the queue of a configuration is.
func QueueDir(c *config.Config) string { return filepath.Join(c.DataDir, "queue") }

// The other places in a data directory.
func contentDir(c *config.Config) string { return filepath.Join(c.DataDir, "content") }
func runDir(c *config.Config) string     { return filepath.Join(c.DataDir, "run") }
func draftDir(c *config.Config) string   { return filepath.Join(c.DataDir, "drafts") }
func directoryFile(c *config.Config) string {
	return filepath.Join(c.DataDir, "directory.db")
}

// ControlSocket is where the gateway of a configuration can be reached.
func ControlSocket(c *config.Config) string { return filepath.Join(c.DataDir, "run", "control.sock") }

// leaseTime is how long a delivery may be silent before its message is due again.
const leaseTime = 10 * time.Minute

// steadyClock is the wall clock of the start plus the time that passed since. It does not
// jump when somebody sets the clock, so that neither retries nor lifetimes do (D-22).
func steadyClock() func() time.Time {
	start := time.Now()
	wall := start.Round(0)
	return func() time.Time { return wall.Add(time.Since(start)) }
}

// openKeeping opens the data directory, and makes it if it is missing.
func openKeeping(c *config.Config, log *slog.Logger) (*keeping, error) {
	if err := os.MkdirAll(c.DataDir, 0o710); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := os.MkdirAll(runDir(c), 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := checkDisk(c, log); err != nil {
		return nil, err
	}
	lock, err := disk.OS{}.Lock(c.DataDir)
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("data_dir %s is in use by another postern: stop it first, or give this one a directory of its own", c.DataDir)
	} else if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	k := &keeping{lock: lock, clock: steadyClock()}
	k.trace = trace.NewLog(log, 20_000, time.Now)
	if k.spool, err = spool.Open(spool.Options{Dir: contentDir(c), Log: log}); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	k.store, err = local.Open(local.Options{Dir: QueueDir(c), Content: k.spool, Clock: k.clock, Backoff: backoff(c), Lease: leaseTime, Log: log})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return k, nil
}

func backoff(c *config.Config) queue.Backoff {
	b := queue.DefaultBackoff()
	b.First, b.Max = time.Duration(c.Queue.RetryFirst), time.Duration(c.Queue.RetryMax)
	return b
}

// checkDisk refuses a data directory on a disk that forgets.
func checkDisk(c *config.Config, log *slog.Logger) error {
	kind, err := disk.Check(c.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	switch {
	case kind == disk.Durable:
	case kind == disk.Overlay:
		log.Warn("data_dir is in a container's own layer: the queue dies with the container; mount a volume there", "data_dir", c.DataDir)
	case c.UnsafeSpool:
		log.Warn("unsafe_spool: queued mail does not survive a power cut", "data_dir", c.DataDir, "file_system", kind.String())
	default:
		return fmt.Errorf("data_dir %s is on %s: put it on a disk, or set unsafe_spool = true if losing mail is fine", c.DataDir, kind)
	}
	return nil
}

// Close closes the queue and gives the directory free.
func (k *keeping) Close() error { return errors.Join(k.store.Close(), k.lock.Close()) }
