package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// disk is what the plugin does to the file system to store messages, so that a test can see
// the order and cut the power anywhere.
type disk interface {
	Mkdir(path string) error                // mode 0700
	Create(path string) (file, error)       // new, mode 0600
	Append(path string) (file, error)       // one that is there
	Rename(from, to string) error           // atomic
	Remove(path string) error               //
	SyncDir(path string) error              // makes names in it durable
	Names(path string) ([]string, error)    // in no order
	ModTime(path string) (time.Time, error) // of a directory
}

type file interface {
	io.WriteCloser
	Sync() error
}

type osDisk struct{}

func (osDisk) Mkdir(path string) error { return os.Mkdir(path, 0o700) }

func (osDisk) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (osDisk) Append(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) Remove(path string) error { return os.Remove(path) }

func (osDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osDisk) Names(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (osDisk) ModTime(path string) (time.Time, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	if !fi.IsDir() {
		return time.Time{}, fs.ErrInvalid
	}
	return fi.ModTime(), nil
}
