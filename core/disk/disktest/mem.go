// Package disktest has file systems for tests: [Mem], which forgets at a power cut what
// was not synced, and [Faults], which makes chosen operations of another one fail.
package disktest

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/postern-mail/postern/core/disk"
)

// Mem is a file system in memory that knows what is durable: the content of a file at its
// last Sync, the names in a directory at its last SyncDir. It makes no promise that POSIX
// does not make: after [Mem.Crash] each write and each change of a name since then is
// there, or not, or half of it, as the seed decides. It is safe for concurrent use.
type Mem struct {
	mu     sync.Mutex
	dirs   map[string]*dir
	locked map[string]bool
	space  disk.Space
	epoch  int // grows with every crash: files opened before are dead
}

type dir struct {
	names   map[string]*inode
	durable map[string]*inode
	changes []change // since the last SyncDir
}

type change struct {
	name string
	node *inode // nil: removed
}

type inode struct {
	data    []byte
	durable []byte
	writes  []write // since the last Sync
}

type write struct {
	off      int64
	data     []byte
	truncate bool
}

var _ disk.FS = (*Mem)(nil)

// NewMem returns an empty file system with much space.
func NewMem() *Mem {
	return &Mem{
		dirs: map[string]*dir{"/": newDir(), ".": newDir()}, locked: make(map[string]bool),
		space: disk.Space{Bytes: 1 << 40, FreeBytes: 1 << 39, Inodes: 1 << 20, FreeInodes: 1 << 19},
	}
}

func newDir() *dir { return &dir{names: make(map[string]*inode), durable: make(map[string]*inode)} }

// SetSpace says what Space tells from now on.
func (m *Mem) SetSpace(s disk.Space) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space = s
}

// Crash returns the file system as it is after a power cut. The old one must not be used
// any more. Directories themselves are durable once made.
func (m *Mem) Crash(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rnd := rand.New(rand.NewPCG(seed, 1))
	after := NewMem()
	after.space = m.space
	paths := make([]string, 0, len(m.dirs))
	for p := range m.dirs {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	seen := make(map[*inode]*inode)
	for _, p := range paths {
		d := newDir()
		after.dirs[p] = d
		for name, n := range m.dirs[p].survivors(rnd) {
			d.names[name] = n
		}
		names := make([]string, 0, len(d.names))
		for name := range d.names {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			old := d.names[name]
			if seen[old] == nil {
				seen[old] = old.survivor(rnd)
			}
			d.names[name], d.durable[name] = seen[old], seen[old]
		}
	}
	m.epoch++
	return after
}

// Kill returns the file system as it is after the process was killed: everything that was
// written is there, synced or not, and nobody has a lock. The old one goes on by itself.
func (m *Mem) Kill() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := NewMem()
	after.space = m.space
	seen := make(map[*inode]*inode)
	keep := func(n *inode) *inode {
		if n != nil && seen[n] == nil {
			seen[n] = &inode{append([]byte(nil), n.data...), append([]byte(nil), n.durable...), append([]write(nil), n.writes...)}
		}
		return seen[n]
	}
	for p, d := range m.dirs {
		c := newDir()
		after.dirs[p] = c
		for name, n := range d.names {
			c.names[name] = keep(n)
		}
		for name, n := range d.durable {
			c.durable[name] = keep(n)
		}
		for _, ch := range d.changes {
			c.changes = append(c.changes, change{ch.name, keep(ch.node)})
		}
	}
	return after
}

func (d *dir) survivors(rnd *rand.Rand) map[string]*inode {
	out := make(map[string]*inode, len(d.durable))
	for name, n := range d.durable {
		out[name] = n
	}
	for _, c := range d.changes {
		switch {
		case rnd.IntN(2) == 0:
		case c.node == nil:
			delete(out, c.name)
		default:
			out[c.name] = c.node
		}
	}
	return out
}

func (n *inode) survivor(rnd *rand.Rand) *inode {
	data := append([]byte(nil), n.durable...)
	for _, w := range n.writes {
		switch rnd.IntN(4) {
		case 0: // lost
		case 1: // the length is there, the data is not
			if !w.truncate {
				data = apply(data, write{off: w.off, data: make([]byte, len(w.data))})
			}
		case 2: // a part of it
			if !w.truncate {
				data = apply(data, write{off: w.off, data: w.data[:rnd.IntN(len(w.data)+1)]})
			}
		default:
			data = apply(data, w)
		}
	}
	return &inode{data: data, durable: append([]byte(nil), data...)}
}

func apply(data []byte, w write) []byte {
	end := w.off + int64(len(w.data))
	if w.truncate && int64(len(data)) > w.off {
		return data[:w.off]
	}
	if int64(len(data)) < end {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[w.off:], w.data)
	return data
}

func (m *Mem) dir(name string) (*dir, string, error) {
	d, ok := m.dirs[filepath.Dir(name)]
	if !ok {
		return nil, "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return d, filepath.Base(name), nil
}

func (d *dir) set(name string, n *inode) {
	if n == nil {
		delete(d.names, name)
	} else {
		d.names[name] = n
	}
	d.changes = append(d.changes, change{name, n})
}

// OpenFile implements disk.FS.
func (m *Mem) OpenFile(name string, flag int, _ fs.FileMode) (disk.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		return nil, err
	}
	n, ok := d.names[base]
	switch {
	case ok && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case !ok && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !ok:
		n = &inode{}
		d.set(base, n)
	case flag&os.O_TRUNC != 0:
		n.do(write{truncate: true})
	}
	return &file{m: m, n: n, epoch: m.epoch}, nil
}

// MkdirAll implements disk.FS.
func (m *Mem) MkdirAll(name string, _ fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := filepath.Clean(name); ; p = filepath.Dir(p) {
		if m.dirs[p] == nil {
			m.dirs[p] = newDir()
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// Rename implements disk.FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fd, fn, err := m.dir(from)
	if err != nil {
		return err
	}
	td, tn, err := m.dir(to)
	if err != nil {
		return err
	}
	n, ok := fd.names[fn]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	fd.set(fn, nil)
	td.set(tn, n)
	return nil
}

// Remove implements disk.FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir(name)
	if err != nil {
		return err
	}
	if _, ok := d.names[base]; !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	d.set(base, nil)
	return nil
}

// ReadDir implements disk.FS.
func (m *Mem) ReadDir(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.dirs[filepath.Clean(name)]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	var names []string
	for n := range d.names {
		names = append(names, n)
	}
	sort.Strings(names)
	return names, nil
}

// Size implements disk.FS.
func (m *Mem) Size(name string) (int64, error) {
	f, err := m.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	return f.Size()
}

// SyncDir implements disk.FS.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.dirs[filepath.Clean(name)]
	if !ok {
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	d.durable, d.changes = make(map[string]*inode, len(d.names)), nil
	for n, i := range d.names {
		d.durable[n] = i
	}
	return nil
}

// Space implements disk.FS.
func (m *Mem) Space(string) (disk.Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.space, nil
}

// Lock implements disk.FS.
func (m *Mem) Lock(dir string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[dir] {
		return nil, fmt.Errorf("%s: %w", dir, disk.ErrLocked)
	}
	m.locked[dir] = true
	return unlock{m, dir}, nil
}

type unlock struct {
	m   *Mem
	dir string
}

func (u unlock) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	delete(u.m.locked, u.dir)
	return nil
}
