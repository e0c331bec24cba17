package local

import (
	"path/filepath"
)

// wakeJanitor tells the janitor that there is something to clear away.
func (s *Store) wakeJanitor() {
	select {
	case s.tidy <- struct{}{}:
	default:
	}
}

// janitor removes content files and segments that are no longer needed, behind everybody's
// back. Whatever it could not do it does later, or the next start does.
func (s *Store) janitor() {
	defer close(s.tidied)
	for {
		s.removeContents()
		s.dropSegments()
		for s.compact() {
			s.dropSegments()
		}
		select {
		case <-s.tidy:
		case <-s.stop:
			s.removeContents()
			return
		}
	}
}

func (s *Store) removeContents() {
	s.mu.Lock()
	names := s.garbage
	s.garbage = nil
	s.mu.Unlock()
	for _, name := range names {
		if err := s.o.Content.Remove(name); err != nil {
			s.o.Log.Warn("queue: content stays until the next start", "content", name, "error", err)
		}
	}
}

// dropSegments removes segments in which nothing lives, oldest first.
func (s *Store) dropSegments() {
	for {
		s.mu.Lock()
		seg := s.droppable()
		s.mu.Unlock()
		if seg == nil {
			return
		}
		err := s.o.FS.Remove(filepath.Join(s.o.Dir, segmentName(seg.number)))
		if err == nil {
			// Durable before any segment goes that depends on it.
			err = s.o.FS.SyncDir(s.o.Dir)
		}
		if err != nil {
			s.o.Log.Warn("queue: finished segment was not removed", "segment", segmentName(seg.number), "error", err)
			return
		}
		seg.file.Close()
		s.mu.Lock()
		delete(s.x.segs, seg.number)
		s.mu.Unlock()
	}
}

// droppable returns a segment that may go. The caller holds mu.
func (s *Store) droppable() *segment {
	var oldest *segment
	for _, seg := range s.x.segs {
		if seg == s.current || seg.items > 0 || seg.marks > 0 || seg.pins > 0 {
			continue
		}
		if !s.freeOfDeps(seg) || oldest != nil && oldest.number < seg.number {
			continue
		}
		oldest = seg
	}
	if oldest != nil && s.waited(oldest) {
		return nil
	}
	return oldest
}

func (s *Store) freeOfDeps(seg *segment) bool {
	for d := range seg.deps {
		if _, there := s.x.segs[d]; there {
			return false
		}
		delete(seg.deps, d)
	}
	return true
}
