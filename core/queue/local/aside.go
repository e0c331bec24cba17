package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// setAside keeps a damaged piece of a segment for people to look at. Its name says where
// it was, so that finding it again at the next start changes nothing.
func (s *Store) setAside(seg uint32, off int64, b []byte, reason string) {
	name := fmt.Sprintf("%08x-%08x", seg, off)
	s.o.Log.Error("queue: damage found and set aside", "segment", segmentName(seg), "offset", off, "bytes", len(b), "reason", reason, "file", filepath.Join("corrupt", name))
	if err := s.keepCorrupt(name, b, reason); err != nil {
		s.o.Log.Error("queue: damaged piece was not set aside", "file", name, "error", err)
	}
}

func (s *Store) keepCorrupt(name string, b []byte, reason string) error {
	dir, err := s.corruptDir()
	if err != nil {
		return err
	}
	return errors.Join(
		s.writeFile(filepath.Join(dir, name), b),
		s.writeFile(filepath.Join(dir, name+".reason"), []byte(reason+"\n")),
		s.o.FS.SyncDir(dir))
}

func (s *Store) corruptDir() (string, error) {
	dir := filepath.Join(s.o.Dir, "corrupt")
	if err := s.o.FS.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, s.o.FS.SyncDir(s.o.Dir)
}

func (s *Store) writeFile(name string, b []byte) error {
	f, err := s.o.FS.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// setFileAside moves a segment of which nothing can be read.
func (s *Store) setFileAside(name, reason string) error {
	s.o.Log.Error("queue: segment is unreadable and was set aside", "segment", name, "reason", reason)
	dir, err := s.corruptDir()
	if err != nil {
		return err
	}
	return errors.Join(
		s.o.FS.Rename(filepath.Join(s.o.Dir, name), filepath.Join(dir, name)),
		s.writeFile(filepath.Join(dir, name+".reason"), []byte(reason+"\n")),
		s.o.FS.SyncDir(dir), s.o.FS.SyncDir(s.o.Dir))
}
