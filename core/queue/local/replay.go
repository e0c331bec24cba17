package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// opened is a segment as found at start.
type opened struct {
	seg    *segment
	head   segHeader
	length int64 // of the file
	broken bool  // the header is damaged, the marker was found in the first frame
	torn   bool  // it ends with, or has in its last group, what a crash left
}

// replay reads the log into the index and starts a segment.
func (s *Store) replay() error {
	now := s.o.Clock()
	found, err := s.openSegments()
	if err != nil {
		return err
	}
	for i := range found {
		if err := s.replaySegment(found, i, now); err != nil {
			return err
		}
	}
	if err := s.sweep(); err != nil {
		return err
	}
	return s.resume(found, now)
}

// openSegments opens all segments, in order, and puts aside what is none.
func (s *Store) openSegments() ([]opened, error) {
	names, err := s.o.FS.ReadDir(s.o.Dir)
	if err != nil {
		return nil, err
	}
	var found []opened
	for i, name := range names {
		number, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		s.lastNumber = number
		o, reason, err := s.openSegment(name, number)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		case reason == "":
			s.x.segs[number] = o.seg
			found = append(found, o)
		case o.length <= firstFrame && !anySegment(names[i+1:]):
			// It was being created when the power went.
			if err := s.o.FS.Remove(filepath.Join(s.o.Dir, name)); err != nil {
				return nil, err
			}
		default:
			s.damaged = true
			if err := s.setFileAside(name, reason); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

func anySegment(names []string) bool {
	for _, n := range names {
		if _, ok := parseSegmentName(n); ok {
			return true
		}
	}
	return false
}

func (s *Store) openSegment(name string, number uint32) (opened, string, error) {
	f, err := s.o.FS.OpenFile(filepath.Join(s.o.Dir, name), os.O_RDWR, 0)
	if err != nil {
		return opened{}, "", err
	}
	o := opened{seg: &segment{number: number, file: f}}
	reason := ""
	if o.length, err = f.Size(); err == nil {
		w := window{f: f, limit: o.length}
		var b []byte
		if b, err = w.at(0, firstFrame+frameHeader); err == nil {
			reason, err = o.parse(b, number)
		}
	}
	if err != nil || reason != "" {
		f.Close()
		return o, reason, err
	}
	o.seg.marker = o.head.marker
	if !o.head.clean {
		o.seg.dependOn(o.head.prev)
	}
	return o, "", nil
}

// parse reads the header or, if it is damaged, the marker of the first frame.
func (o *opened) parse(b []byte, number uint32) (reason string, err error) {
	o.head, err = decodeSegHeader(b[:min(len(b), firstFrame)])
	switch {
	case errors.Is(err, errVersion):
		return "", err
	case len(b) < firstFrame:
		return "shorter than a segment header", nil
	case err == nil && o.head.number != number:
		return fmt.Sprintf("header names segment %d", o.head.number), nil
	case err == nil:
		return "", nil
	case len(b) < firstFrame+frameHeader:
		return err.Error(), nil
	}
	m := marker(b[firstFrame : firstFrame+8])
	if _, ok := decodeFrame(b[firstFrame:], m); !ok {
		return err.Error(), nil
	}
	o.broken = true
	o.head = segHeader{number: number, marker: m, clean: true}
	return "", nil
}

// replaySegment reads one segment as far as its successors say it goes.
func (s *Store) replaySegment(found []opened, i int, now time.Time) error {
	o := &found[i]
	limit, known, clean := o.length, false, false
	for _, later := range found[i+1:] {
		if later.head.prev == o.seg.number && !later.broken {
			limit, known, clean = later.head.prevLen, true, later.head.clean
			break
		}
	}
	sc, err := scanFrames(o.seg.file, o.seg.marker, min(limit, o.length), func(off int64, fr frame, payload []byte) error {
		s.seq = max(s.seq, fr.seq)
		return s.replayFrame(o.seg, uint32(off+frameHeader), payload, now)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", segmentName(o.seg.number), err)
	}
	if o.broken {
		sc.gaps = append([]gap{{0, firstFrame, "segment header is damaged"}}, sc.gaps...)
	}
	if known && o.length < limit {
		sc.gaps = append(sc.gaps, gap{o.length, o.length, fmt.Sprintf("%d bytes are missing", limit-o.length)})
	}
	o.seg.size = sc.end
	for _, g := range sc.gaps {
		if !clean && g.from >= sc.synced && g.to <= o.length && g.to > g.from {
			o.torn = true
			if known {
				continue // reported when it was found first
			}
			s.o.Log.Info("queue: unfinished write of a crash ignored", "segment", segmentName(o.seg.number), "offset", g.from, "bytes", g.to-g.from)
			continue
		}
		s.reportGap(o.seg, g)
	}
	return nil
}

func (s *Store) reportGap(seg *segment, g gap) {
	s.damaged, seg.damaged = true, true
	b := make([]byte, g.to-g.from)
	n, _ := seg.file.ReadAt(b, g.from)
	s.setAside(seg.number, g.from, b[:n], g.reason)
}

// replayFrame takes the items of a frame into the index, all or none.
func (s *Store) replayFrame(seg *segment, base uint32, payload []byte, now time.Time) error {
	if err := eachItem(payload, func(it *item, _ item) error { return checkItem(it) }); err != nil {
		return err
	}
	return eachItem(payload, func(it *item, message item) error {
		s.replayItem(seg, base, it, message, now)
		return nil
	})
}

// eachItem calls f for each item of a payload; message is the message item that goes with
// it, if one does. f is not called for that by itself.
func eachItem(payload []byte, f func(it *item, message item) error) error {
	for off := 0; off < len(payload); {
		it, err := nextItem(payload, off)
		if err != nil {
			return err
		}
		off += int(it.size())
		var message item
		if it.kind == itemAdd || it.kind == itemMove {
			if message, err = nextItem(payload, off); err != nil || message.kind != itemMessage {
				return errFormat
			}
			off += int(message.size())
		}
		if err := f(&it, message); err != nil {
			return err
		}
	}
	return nil
}

// checkItem decodes an item as far as replay needs it. The frame's checksum has covered it.
func checkItem(it *item) error {
	d := &decoder{b: it.body}
	if d.begin(it.kind); d.err != nil {
		return d.err
	}
	switch it.kind {
	case itemAdd, itemMove:
		f := d.front()
		for range f.records {
			one := decoder{b: d.bytes()}
			one.brief()
			if one.err != nil {
				return one.err
			}
		}
	case itemResult:
		d.u64()
		d.num()
		d.brief()
	case itemMark:
		d.take(16)
		d.u64()
	default:
		return fmt.Errorf("item is of the unknown type %d", it.kind)
	}
	return d.err
}

func (s *Store) replayItem(seg *segment, base uint32, it *item, message item, now time.Time) {
	at := loc{seg.number, base + uint32(it.off), it.size()}
	d := &decoder{b: it.body[1:]}
	switch it.kind {
	case itemAdd, itemMove:
		s.replayEntry(d, at, message, now)
	case itemResult:
		id, n := queue.ID(d.u64()), d.num()
		b := d.brief()
		i := s.x.ids[id]
		if i == 0 || uint32(n) >= s.x.entries.at(i).count {
			return // its entry is done, or was damaged
		}
		e := s.x.entries.at(i)
		if r := s.x.rcpts.at(e.first + uint32(n)); !queue.State(r.state).Final() {
			s.x.set(e.first+uint32(n), b, at, now)
		}
		if e.open == 0 {
			s.discard(s.x.end(i))
		}
	case itemMark:
		key := [16]byte(d.take(16))
		if until := int64(d.u64()); until > timeToInt(now) {
			s.x.remember(key, until, seg.number)
		}
	}
}

func (s *Store) replayEntry(d *decoder, at loc, message item, now time.Time) {
	f := d.front()
	if i := s.x.ids[f.id]; i != 0 {
		s.x.move(i, at, message.size())
		return
	}
	i := s.x.insert(f.id, at, message.size(), f.content, f.records)
	_, class := headOf(message.body)
	e := s.x.entries.at(i)
	for k := range f.records {
		one := decoder{b: d.bytes()}
		s.x.begin(e.first+uint32(k), class, one.brief(), false, now)
	}
	if e.open == 0 {
		s.discard(s.x.end(i))
	}
}

// sweep removes content files that nothing refers to; after damage they are kept aside.
func (s *Store) sweep() error {
	s.garbage = nil // Sweep finds them
	n, err := s.o.Content.Sweep(func(name string) bool {
		_, ok := s.x.contents.names[name]
		return ok
	}, s.damaged)
	if n > 0 {
		s.o.Log.Info("queue: content that nothing refers to", "files", n, "kept_aside", s.damaged)
	}
	return err
}

// resume makes what was read durable and finds a segment to write to: the last one if it
// is empty and of our version, else a new one.
func (s *Store) resume(found []opened, now time.Time) error {
	if len(found) == 0 {
		return s.startSegment(now)
	}
	last := &found[len(found)-1]
	// It may have been written without its sync having ended.
	if err := last.seg.file.Sync(); err != nil {
		return err
	}
	if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
		return err
	}
	if last.length == firstFrame && last.head.version == magic[7] && !last.broken && last.seg.number == s.lastNumber {
		last.seg.size = firstFrame
		s.current = last.seg
		return nil
	}
	s.prev = sealed{last.seg.number, last.seg.size, last.seg.size == last.length && !last.torn}
	return s.startSegment(now)
}
