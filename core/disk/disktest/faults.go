package disktest

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/postern-mail/postern/core/disk"
)

// Op is one operation that changes something, or makes a change durable.
type Op struct {
	N    int    // the how manieth, from 1
	Kind string // open (with O_CREATE), write, sync, truncate, close, mkdir, rename, remove, syncdir
	Path string // as given to the FS; the file's path for file operations
}

// ErrCut is the error of all operations after the power was cut.
var ErrCut = errors.New("disktest: the power is off")

// Faults passes operations on to another file system, except those that the tests want to
// see fail. It is safe for concurrent use.
type Faults struct {
	disk.FS
	mu   sync.Mutex
	n    int
	fail func(Op) error
	cut  bool
}

var _ disk.FS = (*Faults)(nil)

// NewFaults wraps fs. fail is asked before each operation, one at a time, and may be nil.
// An error is returned in the place of the operation, which does not happen, except that
// an error of a write that wraps [ErrShort] writes half, and one of a sync that wraps
// [ErrLate] syncs.
func NewFaults(fs disk.FS, fail func(Op) error) *Faults { return &Faults{FS: fs, fail: fail} }

// ErrShort and ErrLate are nasty ways to fail; see NewFaults.
var (
	ErrShort = errors.New("disktest: half of it was written")
	ErrLate  = errors.New("disktest: it was done all the same")
)

// At is a fail function that fails operation n with err.
func At(n int, err error) func(Op) error {
	return func(op Op) error {
		if op.N == n {
			return err
		}
		return nil
	}
}

// From is a fail function that fails operation n and all after it with err.
func From(n int, err error) func(Op) error {
	return func(op Op) error {
		if op.N >= n {
			return err
		}
		return nil
	}
}

// CutAt is a fail function that cuts the power instead of operation n.
func CutAt(n int) func(Op) error { return At(n, ErrCut) }

// Short is a full disk that took half of a write.
func Short() error { return errors.Join(ErrShort, syscall.ENOSPC) }

// Ops is how many operations there were.
func (f *Faults) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// SetFail replaces the fail function. Operations are counted from 1 again.
func (f *Faults) SetFail(fail func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.n = fail, 0
}

// IsCut reports whether the power is off.
func (f *Faults) IsCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

func (f *Faults) before(kind, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		return ErrCut
	}
	f.n++
	if f.fail == nil {
		return nil
	}
	err := f.fail(Op{f.n, kind, path})
	if errors.Is(err, ErrCut) {
		f.cut = true
	}
	return err
}

// OpenFile implements disk.FS.
func (f *Faults) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	if flag&syscall.O_CREAT != 0 {
		if err := f.before("open", name); err != nil {
			return nil, err
		}
	} else if f.IsCut() {
		return nil, ErrCut
	}
	in, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{in, f, name}, nil
}

// MkdirAll implements disk.FS.
func (f *Faults) MkdirAll(name string, perm fs.FileMode) error {
	if err := f.before("mkdir", name); err != nil {
		return err
	}
	return f.FS.MkdirAll(name, perm)
}

// Rename implements disk.FS.
func (f *Faults) Rename(from, to string) error {
	if err := f.before("rename", from); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// Remove implements disk.FS.
func (f *Faults) Remove(name string) error {
	if err := f.before("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// SyncDir implements disk.FS.
func (f *Faults) SyncDir(name string) error {
	if err := f.before("syncdir", name); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

// Lock implements disk.FS.
func (f *Faults) Lock(dir string) (io.Closer, error) { return f.FS.Lock(dir) }

type faultFile struct {
	disk.File
	f    *Faults
	name string
}

func (f *faultFile) write(p []byte, do func([]byte) (int, error)) (int, error) {
	err := f.f.before("write", f.name)
	if err == nil {
		return do(p)
	}
	if !errors.Is(err, ErrShort) {
		return 0, err
	}
	n, _ := do(p[:len(p)/2])
	return n, err
}

func (f *faultFile) Write(p []byte) (int, error) { return f.write(p, f.File.Write) }

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.File.WriteAt(p, off) })
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if f.f.IsCut() {
		return 0, ErrCut
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) Sync() error {
	err := f.f.before("sync", f.name)
	if err == nil || errors.Is(err, ErrLate) {
		return errors.Join(err, f.File.Sync())
	}
	return err
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.f.before("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultFile) Close() error {
	if err := f.f.before("close", f.name); err != nil {
		f.File.Close()
		return err
	}
	return f.File.Close()
}
