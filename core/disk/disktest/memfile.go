package disktest

import (
	"io"
	"io/fs"
	"syscall"
)

func (n *inode) do(w write) {
	w.data = append([]byte(nil), w.data...)
	n.data = apply(n.data, w)
	n.writes = append(n.writes, w)
}

type file struct {
	m      *Mem
	n      *inode
	pos    int64
	epoch  int
	closed bool
}

func (f *file) check() error {
	if f.closed {
		return fs.ErrClosed
	}
	if f.epoch != f.m.epoch {
		return syscall.EIO
	}
	return nil
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(); err != nil {
		return 0, err
	}
	f.n.do(write{off: off, data: p})
	return len(p), nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	if len(f.n.writes) > 0 {
		for _, w := range f.n.writes { // the durable copy catches up
			f.n.durable = apply(f.n.durable, w)
		}
		f.n.writes = nil
	}
	return nil
}

func (f *file) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	f.n.do(write{off: size, truncate: true})
	return nil
}

func (f *file) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), f.check()
}

func (f *file) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}
