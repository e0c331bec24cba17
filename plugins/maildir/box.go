package maildir

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk"
)

const (
	keepTmp   = 36 * time.Hour // as Maildir's author says
	maxBoxes  = 10_000         // that are remembered
	maxStored = 10_000         // deliveries that are remembered
)

// boxes are the mailboxes and folders whose directories are there, durably.
type boxes struct {
	mu sync.Mutex
	m  map[string]struct{}
}

func newBoxes() boxes { return boxes{m: make(map[string]struct{})} }

func (bs *boxes) has(dir string) bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	_, ok := bs.m[dir]
	return ok
}

func (bs *boxes) add(dir string) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if len(bs.m) >= maxBoxes {
		for old := range bs.m {
			delete(bs.m, old) // any: it is looked at when it is used again
			break
		}
	}
	bs.m[dir] = struct{}{}
}

func (bs *boxes) forget(dirs ...string) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, dir := range dirs {
		delete(bs.m, dir)
	}
}

// open makes sure that the directories are there. With create a folder that does not exist is
// made; without it is errNoFolder.
func (p *Plugin) open(dir, root string, create bool) error {
	if p.boxes.has(dir) {
		return nil
	}
	if err := p.makeDir(root); err != nil {
		return err
	}
	if err := p.makeBox(root); err != nil {
		return err
	}
	if dir != root {
		if err := p.openFolder(dir, root, create); err != nil {
			return err
		}
	}
	p.sweep(dir)
	p.boxes.add(dir)
	return nil
}

// openFolder makes a folder, or completes one that is there.
func (p *Plugin) openFolder(dir, root string, create bool) error {
	_, err := p.disk.ModTime(filepath.Join(dir, "cur"))
	if isNew := errors.Is(err, fs.ErrNotExist); isNew {
		if !create {
			return errNoFolder
		}
		if full, err := p.full(root); err != nil {
			return err
		} else if full {
			return errNoFolder
		}
		// Subscribed first: a folder that is there is not looked at again.
		p.subscribe(root, strings.TrimPrefix(filepath.Base(dir), "."))
	} else if err != nil {
		return err
	}
	return p.makeFolder(dir)
}

// full reports whether a mailbox has as many folders as it may: a script makes them by the message,
// and no quota counts them.
func (p *Plugin) full(root string) (bool, error) {
	names, err := p.disk.Names(root)
	if err != nil {
		return false, orGone(err)
	}
	n := 0
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			n++
		}
	}
	if n >= sdk.MaxFolders {
		slog.Warn("mailbox has too many folders: no other is made", "dir", root, "folders", n)
	}
	return n >= sdk.MaxFolders, nil
}

// makeDir makes a directory and what is missing above it. A name is durable when the
// directory that holds it is synced.
func (p *Plugin) makeDir(dir string) error {
	err := p.disk.Mkdir(dir)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := p.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = p.disk.Mkdir(dir)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.disk.SyncDir(filepath.Dir(dir))
}

// makeBox makes the three directories of a mailbox. They are synced even if they are there:
// who made them may have been cut off before that. cur comes last: readers take it for the
// sign of a whole mailbox.
func (p *Plugin) makeBox(dir string) error {
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := p.disk.Mkdir(filepath.Join(dir, sub)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errors.Join(p.disk.SyncDir(dir), p.disk.SyncDir(filepath.Dir(dir)))
}

func (p *Plugin) makeFolder(dir string) error {
	if err := p.makeDir(dir); err != nil {
		return err
	}
	f, err := p.disk.Create(filepath.Join(dir, "maildirfolder"))
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return p.makeBox(dir)
}

// sweep removes what crashes left in tmp, best effort.
func (p *Plugin) sweep(dir string) {
	tmp := filepath.Join(dir, "tmp")
	names, _ := p.disk.Names(tmp)
	for _, name := range names {
		if t, ok := seconds(name); ok && partOf(name) != "" && p.now().Sub(t) > keepTmp {
			p.disk.Remove(filepath.Join(tmp, name))
		}
	}
}

// has looks for a key among the messages of a directory. What is found is made durable: who
// put it there may have been cut off before that.
func (p *Plugin) has(dir, part string) (bool, error) {
	for _, sub := range []string{"new", "cur"} {
		sub = filepath.Join(dir, sub)
		names, err := p.disk.Names(sub)
		if err != nil {
			return false, orGone(err)
		}
		for _, name := range names {
			if partOf(name) == part {
				return true, p.disk.SyncDir(sub)
			}
		}
	}
	return false, nil
}
