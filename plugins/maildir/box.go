package maildir

import (
	"context"
	"errors"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	keepTmp   = 36 * time.Hour // as Maildir's author says
	maxBoxes  = 10_000         // that are remembered
	maxStored = 10_000         // deliveries that are remembered
)

// boxes are the mailboxes and folders that were used lately.
type boxes struct {
	seed maphash.Seed
	mu   sync.Mutex
	m    map[string]*box
	// stored are the deliveries of late, so that one that is repeated because its answer got
	// lost is known even if a reader has moved the message meanwhile; order is for forgetting.
	stored map[uint64]struct{}
	order  []uint64
	oldest int
}

func newBoxes() boxes {
	return boxes{seed: maphash.MakeSeed(), m: make(map[string]*box), stored: make(map[uint64]struct{})}
}

// delivery stands for a key in a mailbox.
func (bs *boxes) delivery(root, key string) uint64 { return maphash.String(bs.seed, root+"\x00"+key) }

func (bs *boxes) remember(root, key string) {
	h := bs.delivery(root, key)
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if len(bs.order) < maxStored {
		bs.order = append(bs.order, h)
	} else {
		delete(bs.stored, bs.order[bs.oldest])
		bs.order[bs.oldest] = h
		bs.oldest = (bs.oldest + 1) % maxStored
	}
	bs.stored[h] = struct{}{}
}

func (bs *boxes) remembered(root, key string) bool {
	h := bs.delivery(root, key)
	bs.mu.Lock()
	defer bs.mu.Unlock()
	_, ok := bs.stored[h]
	return ok
}

func (bs *boxes) get(dir string) *box {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b := bs.m[dir]; b != nil {
		return b
	}
	if len(bs.m) >= maxBoxes {
		for old, b := range bs.m {
			if b.idle() {
				delete(bs.m, old) // any: its directories are looked at when it is used again
				break
			}
		}
	}
	b := &box{dir: dir, busy: make(map[string]chan struct{})}
	bs.m[dir] = b
	return b
}

// A box is one mailbox or folder.
type box struct {
	dir string

	mu   sync.Mutex
	busy map[string]chan struct{} // keys being delivered; closed when that is over
	open bool                     // its directories are there, durably
}

func (b *box) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.busy) == 0
}

// claim waits until nobody else delivers the key.
func (b *box) claim(ctx context.Context, key string) (release func(), err error) {
	for {
		b.mu.Lock()
		other, taken := b.busy[key]
		if !taken {
			mine := make(chan struct{})
			b.busy[key] = mine
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.busy, key)
				close(mine)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b *box) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *box) setOpen(open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = open
}

// open makes sure that the directories are there. With create a folder that does not exist is
// made; without it is errNoFolder.
func (p *Plugin) open(b *box, root string, create bool) error {
	if b.isOpen() {
		return nil
	}
	if err := p.makeDir(root); err != nil {
		return err
	}
	if err := p.makeBox(root); err != nil {
		return err
	}
	if b.dir != root {
		if err := p.openFolder(b.dir, root, create); err != nil {
			return err
		}
	}
	p.sweep(b)
	b.setOpen(true)
	return nil
}

// openFolder makes a folder, or completes one that is there.
func (p *Plugin) openFolder(dir, root string, create bool) error {
	_, err := p.disk.ModTime(filepath.Join(dir, "cur"))
	if isNew := errors.Is(err, fs.ErrNotExist); isNew {
		if !create {
			return errNoFolder
		}
		// Subscribed first: a folder that is there is not looked at again.
		p.subscribe(root, strings.TrimPrefix(filepath.Base(dir), "."))
	} else if err != nil {
		return err
	}
	return p.makeFolder(dir)
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
func (p *Plugin) sweep(b *box) {
	tmp := filepath.Join(b.dir, "tmp")
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
