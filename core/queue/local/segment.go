package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/disk"
)

// segment is one file of the log.
type segment struct {
	number  uint32
	file    disk.File
	marker  marker
	size    int64               // what may be read, in bytes
	items   int                 // entries and records that live here ...
	bytes   int64               // ... and their size
	marks   int                 // marks that live here
	deps    map[uint32]struct{} // segments that must be gone before this one goes
	damaged bool                // replay found gaps
	pins    int                 // readers at work
}

func (s *segment) live(n int64) { s.items++; s.bytes += n }
func (s *segment) dead(n int64) { s.items--; s.bytes -= n }

// dependOn notes that s says something of what is in another segment.
func (s *segment) dependOn(number uint32) {
	if number == s.number || number == 0 {
		return
	}
	if _, ok := s.deps[number]; ok {
		return
	}
	if s.deps == nil {
		s.deps = make(map[uint32]struct{})
	}
	s.deps[number] = struct{}{}
}

func segmentName(number uint32) string { return fmt.Sprintf("%08x.log", number) }

func parseSegmentName(name string) (uint32, bool) {
	hex, ok := strings.CutSuffix(name, ".log")
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), ok && err == nil && n > 0 && segmentName(uint32(n)) == name
}

// createSegment makes a segment durable, empty.
func createSegment(fs disk.FS, dir string, h segHeader) (*segment, error) {
	rand.Read(h.marker[:])
	name := filepath.Join(dir, segmentName(h.number))
	f, err := fs.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	n, err := f.WriteAt(h.encode(), 0)
	if err == nil && n < firstFrame {
		err = errors.New("short write")
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		f.Close()
		fs.Remove(name) // if it stays it is empty and says nothing that is not so
		return nil, err
	}
	s := &segment{number: h.number, file: f, marker: h.marker, size: firstFrame}
	if !h.clean {
		s.dependOn(h.prev) // it alone knows where that one ends
	}
	return s, nil
}

// startSegment makes the next segment the one to write to.
func (s *Store) startSegment(now time.Time) error {
	s.lastNumber++
	seg, err := createSegment(s.o.FS, s.o.Dir, segHeader{
		number: s.lastNumber, prev: s.prev.number, prevLen: s.prev.size, clean: s.prev.clean, created: now.Unix(),
	})
	if err != nil {
		return fmt.Errorf("start segment: %w", err)
	}
	s.mu.Lock()
	s.x.segs[seg.number] = seg
	s.current = seg
	s.mu.Unlock()
	return nil
}

// sealed is what the next segment says of the one before.
type sealed struct {
	number uint32
	size   int64
	clean  bool
}
