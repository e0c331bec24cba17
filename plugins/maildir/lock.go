package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Files that other programs change as well are guarded by lock files beside them, as those
// programs do it: who makes the file has the lock. It says whose it is, PID:HOST; a lock
// whose owner has died on this machine, or that is too old, is nobody's.
const (
	lockWait = 5 * time.Second // at most
	lockPoll = 20 * time.Millisecond
)

var errLocked = mail.Temporary(451, 3, 0, "Mailbox is locked, try again later")

// lock makes a lock file, and waits for one that is there, for a while.
func (p *Plugin) lock(ctx context.Context, path string, stale time.Duration) (unlock func(), err error) {
	f, err := p.lockFile(ctx, path, stale)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(f, "%d:%s", os.Getpid(), p.machine); err != nil {
		f.Close()
		p.disk.Remove(path)
		return nil, err
	}
	f.Close()
	return func() { p.disk.Remove(path) }, nil
}

// lockFile is lock where the lock's content is the caller's.
func (p *Plugin) lockFile(ctx context.Context, path string, stale time.Duration) (file, error) {
	deadline := time.NewTimer(p.patience)
	defer deadline.Stop()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		f, err := p.disk.Create(path)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
		if p.isStale(path, stale) {
			p.disk.Remove(path)
			continue
		}
		select {
		case <-poll.C: // other programs do not tell
		case <-deadline.C:
			return nil, errLocked
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *Plugin) isStale(path string, stale time.Duration) bool {
	fi, err := os.Lstat(path)
	if err != nil {
		return false // it has gone
	}
	if p.now().Sub(fi.ModTime()) > stale {
		return true
	}
	text, err := readAll(path, 512)
	if err != nil {
		return false
	}
	pid, host, ok := strings.Cut(string(text), ":")
	n, err := strconv.Atoi(pid)
	return ok && err == nil && n > 0 && host == p.machine && errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
}

// replace makes a file have another content, durably, in one step. The caller has its lock.
func (p *Plugin) replace(path string, content []byte) error {
	tmp := fmt.Sprintf("%s.%s.%d", path, p.hostname, os.Getpid())
	f, err := p.disk.Create(tmp)
	if errors.Is(err, fs.ErrExist) { // cut off earlier
		p.disk.Remove(tmp)
		f, err = p.disk.Create(tmp)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if fi, serr := os.Stat(path); serr == nil && err == nil {
		// Others look at the time, in seconds, to see that a file is another one.
		if next := fi.ModTime().Add(time.Second); next.After(p.now()) {
			err = os.Chtimes(tmp, time.Time{}, next)
		}
	}
	if err == nil {
		err = p.disk.Rename(tmp, path)
	}
	if err != nil {
		p.disk.Remove(tmp)
		return err
	}
	return p.disk.SyncDir(filepath.Dir(path))
}
