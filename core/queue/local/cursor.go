package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cursor is how far a follower has come: the next frame to tell.
type cursor struct {
	name string
	seg  uint32
	off  int64
	news chan struct{} // something was committed; nil while nobody follows
	lost bool          // it was moved on, because it lay too far behind
}

const (
	cursorDir  = "cursors"
	cursorSize = 16
)

// openCursors reads the cursors, so that segments wait for followers that come later.
func (s *Store) openCursors() error {
	dir := filepath.Join(s.o.Dir, cursorDir)
	names, err := s.o.FS.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, ".new") {
			s.o.FS.Remove(path)
			continue
		}
		c, err := s.readCursor(path, name)
		if err != nil {
			s.o.Log.Warn("queue: cursor is damaged and begins anew", "cursor", name, "error", err)
			s.o.FS.Remove(path)
			continue
		}
		s.cursors = append(s.cursors, c)
	}
	return nil
}

func (s *Store) readCursor(path, name string) (*cursor, error) {
	f, err := s.o.FS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, cursorSize)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("cut off: %w", err)
	}
	if checksum(b[:12]) != binary.LittleEndian.Uint32(b[12:]) {
		return nil, errors.New("wrong checksum")
	}
	return &cursor{name: name, seg: binary.LittleEndian.Uint32(b), off: int64(binary.LittleEndian.Uint64(b[4:]))}, nil
}

// writeCursor makes a cursor durable, in place of the one before.
func (s *Store) writeCursor(name string, seg uint32, off int64) error {
	dir := filepath.Join(s.o.Dir, cursorDir)
	if err := s.o.FS.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint32(nil, seg)
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	path := filepath.Join(dir, name)
	f, err := s.o.FS.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.o.FS.Rename(path+".new", path); err != nil {
		return err
	}
	return errors.Join(s.o.FS.SyncDir(dir), s.o.FS.SyncDir(s.o.Dir))
}

// Keep implements queue.Feed.
func (s *Store) Keep(names []string) error {
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "/.\x00") {
			return fmt.Errorf("queue: %q is no name for a cursor", name)
		}
	}
	var gone, begun []*cursor
	s.mu.Lock()
	s.cursors = slices.DeleteFunc(s.cursors, func(c *cursor) bool {
		if slices.Contains(names, c.name) || c.news != nil {
			return false
		}
		gone = append(gone, c)
		return true
	})
	for _, name := range names {
		if s.cursor(name) == nil {
			c := &cursor{name: name, seg: s.lastSegment(), off: firstFrame}
			if seg := s.x.segs[c.seg]; seg != nil {
				c.off = seg.size
			}
			s.cursors = append(s.cursors, c)
			begun = append(begun, &cursor{name: name, seg: c.seg, off: c.off})
		}
	}
	s.mu.Unlock()
	var err error
	for _, c := range gone {
		err = errors.Join(err, s.o.FS.Remove(filepath.Join(s.o.Dir, cursorDir, c.name)))
	}
	for _, c := range begun {
		err = errors.Join(err, s.writeCursor(c.name, c.seg, c.off))
	}
	if len(gone) > 0 {
		s.wakeJanitor()
	}
	return err
}

// cursor is the one of that name, or nil. The caller holds mu.
func (s *Store) cursor(name string) *cursor {
	for _, c := range s.cursors {
		if c.name == name {
			return c
		}
	}
	return nil
}

// waited reports whether a follower has yet to read a segment. Of those that lie too far
// behind, the cursor is moved on: a follower that never comes must not fill the disk. The
// caller holds mu.
func (s *Store) waited(seg *segment) bool {
	waited := false
	for _, c := range s.cursors {
		if c.seg > seg.number {
			continue
		}
		if int64(len(s.x.segs))*s.o.SegmentSize > s.o.FeedLimit {
			if !c.lost {
				s.o.Log.Error("queue: a follower lies too far behind and misses changes", "cursor", c.name, "limit", s.o.FeedLimit)
			}
			c.lost, c.seg, c.off = true, seg.number+1, firstFrame
			continue
		}
		waited = true
	}
	return waited
}
