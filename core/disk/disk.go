// Package disk is the little that Postern needs of a file system, behind an interface, so
// that tests can make every single operation fail or cut the power after it.
//
// [OS] is the real thing. What the interface promises is what POSIX promises and no more:
// content is durable after File.Sync, names (created, renamed, removed) after FS.SyncDir,
// and after a failed Sync nothing is known of what was written since the last good one.
// The package also tells unsafe file systems apart ([Check]) and keeps a second instance
// out of a directory ([FS.Lock]). All of it is safe for concurrent use.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// FS is a file system. Errors are those of package os.
type FS interface {
	// OpenFile opens a file with the flags and permissions of [os.OpenFile]. It never
	// follows a symbolic link in the last element of name.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// MkdirAll makes a directory and its parents; the new names are not durable yet.
	MkdirAll(name string, perm fs.FileMode) error
	Rename(from, to string) error
	Remove(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// Size returns the length of a regular file, in bytes.
	Size(name string) (int64, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Space tells what is left on the file system that holds name.
	Space(name string) (Space, error)
	// Lock takes the lock of a directory until the result is closed. It returns an error
	// that wraps [ErrLocked] at once when somebody else has it.
	Lock(dir string) (io.Closer, error)
}

// File is an open file.
type File interface {
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the content, and the length, durable.
	Sync() error
	Truncate(size int64) error
	// Size is the length now, in bytes.
	Size() (int64, error)
}

// Space is what a file system has and has left, for users who are not root. Inodes is 0
// where the file system does not count them.
type Space struct {
	Bytes, FreeBytes   uint64
	Inodes, FreeInodes uint64
}

// ErrLocked says that another process, or another part of this one, has the directory.
var ErrLocked = errors.New("directory is in use by another process")

// IsFull reports whether err says that something has run out: space, inodes, a quota or a
// limit on the size of files.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
