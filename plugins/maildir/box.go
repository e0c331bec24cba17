package maildir

import (
	"context"
	"errors"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"sync"
	"time"
)

const (
	// keepKeys is how long a stored key is looked for. A delivery is repeated when its
	// result was lost, which is found out soon; this is longer than queues try.
	keepKeys = 7 * 24 * time.Hour
	keepTmp  = 36 * time.Hour // as Maildir's author says
	maxBoxes = 1000           // that are remembered
	maxKeys  = 20000          // that are remembered of one, before it is searched again
)

// boxes are the mailboxes and folders that were used lately.
type boxes struct {
	seed maphash.Seed
	mu   sync.Mutex
	m    map[string]*box
}

// hash stands for a key part in memory.
func (bs *boxes) hash(part string) uint64 { return maphash.String(bs.seed, part) }

func (bs *boxes) get(dir string) *box {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b := bs.m[dir]; b != nil {
		return b
	}
	if len(bs.m) >= maxBoxes {
		for old, b := range bs.m {
			if b.idle() {
				delete(bs.m, old) // any: it costs a search when it is used again
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

	mu      sync.Mutex
	busy    map[string]chan struct{} // keys being delivered; closed when that is over
	keys    map[uint64]struct{}      // hashes of the key parts that are stored; nil: not known
	changed time.Time                // modification of new when keys was right
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

func (b *box) known() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys != nil
}

func (b *box) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = nil
}

// stored remembers a key, and that new changed because of it.
func (b *box) stored(hash uint64, changed time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.keys == nil:
	case len(b.keys) >= maxKeys:
		b.keys = nil
	default:
		b.keys[hash] = struct{}{}
		b.changed = changed
	}
}

// open makes sure that the directories are there and the keys in them known.
func (p *Plugin) open(b *box, root string) error {
	if b.known() {
		return nil
	}
	if err := p.makeDir(root); err != nil {
		return err
	}
	if err := p.makeBox(root); err != nil {
		return err
	}
	if b.dir != root {
		if err := p.makeFolder(b.dir); err != nil {
			return err
		}
	}
	p.sweep(b)
	keys := make(map[uint64]struct{})
	changed := p.mtime(b)
	for _, sub := range []string{"new", "cur"} {
		if err := p.collect(b, sub, keys); err != nil {
			return err
		}
		// Who put there what was found may have been cut off before this.
		if err := p.disk.SyncDir(filepath.Join(b.dir, sub)); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys, b.changed = keys, changed
	return nil
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
// who made them may have been cut off before that.
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

// collect adds the keys of what is in a directory and not too old.
func (p *Plugin) collect(b *box, sub string, keys map[uint64]struct{}) error {
	dir := filepath.Join(b.dir, sub)
	names, err := p.disk.Names(dir)
	if err != nil {
		return orGone(err)
	}
	for _, name := range names {
		if part := partOf(name); part != "" {
			if t, ok := seconds(name); ok && p.now().Sub(t) < keepKeys {
				keys[p.boxes.hash(part)] = struct{}{}
			}
		}
	}
	return nil
}

func (p *Plugin) mtime(b *box) time.Time {
	t, _ := p.disk.ModTime(filepath.Join(b.dir, "new"))
	return t
}

// has reports whether a key is stored. When somebody else changed new, what is there is
// looked at again: another process may have stored the key after we gave up on it.
func (p *Plugin) has(b *box, hash uint64) (bool, error) {
	now, err := p.disk.ModTime(filepath.Join(b.dir, "new"))
	if err != nil {
		return false, orGone(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keys == nil { // forgotten meanwhile by another delivery
		return false, errBoxGone
	}
	if _, ok := b.keys[hash]; ok {
		return true, nil
	}
	if !now.Equal(b.changed) {
		if err := p.collect(b, "new", b.keys); err != nil {
			return false, err
		}
		b.changed = now
	}
	if _, ok := b.keys[hash]; !ok {
		return false, nil
	}
	return true, p.disk.SyncDir(filepath.Join(b.dir, "new"))
}
