package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// snapshot is where an entry is at one moment. Its segments stay until release.
type snapshot struct {
	id      queue.ID
	content string
	at      loc
	message uint32
	locs    []loc // last results, by recipient
	briefs  []queue.Record
	segs    map[uint32]*segment
}

// snapshot pins an entry. The caller holds mu.
func (s *Store) snapshot(i uint32) snapshot {
	e := s.x.entries.at(i)
	sn := snapshot{
		id: queue.ID(e.id), content: s.x.contents.list[e.content].name, at: e.loc, message: e.message,
		locs: make([]loc, e.count), briefs: make([]queue.Record, e.count), segs: make(map[uint32]*segment, 2),
	}
	sn.pin(s.x.segs[e.loc.seg])
	for k := range e.count {
		r := s.x.rcpts.at(e.first + k)
		sn.locs[k] = r.loc
		sn.briefs[k] = queue.Record{State: queue.State(r.state), Destination: s.x.dests[r.dest].name, Attempts: int(r.attempts)}
		if r.loc.seg != 0 {
			sn.pin(s.x.segs[r.loc.seg])
		}
	}
	return sn
}

func (sn *snapshot) pin(seg *segment) {
	if _, ok := sn.segs[seg.number]; !ok {
		sn.segs[seg.number] = seg
		seg.pins++
	}
}

func (s *Store) release(sns ...snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range sns {
		for _, seg := range sns[i].segs {
			seg.pins--
		}
	}
}

// damage is an item that is not what was written.
type damage struct {
	at     loc
	reason string
	bytes  []byte
}

func (d *damage) Error() string {
	return fmt.Sprintf("%s at %d: %s", segmentName(d.at.seg), d.at.off, d.reason)
}

// read returns size bytes of a segment.
func (sn *snapshot) read(at loc) ([]byte, error) {
	b := make([]byte, at.size)
	n, err := sn.segs[at.seg].file.ReadAt(b, int64(at.off))
	if n == len(b) {
		return b, nil
	}
	if n > 0 || err == nil {
		return nil, &damage{at, "cut off", b[:n]}
	}
	return nil, err
}

// front reads an entry's records, and the rest of b if there is one.
func (sn *snapshot) records(b []byte) ([]queue.Record, error) {
	it, err := nextItem(b, 0)
	if err != nil {
		return nil, &damage{sn.at, err.Error(), b}
	}
	d := it.check()
	f := d.front()
	records := d.records(f.records)
	if d.err == nil && (f.id != sn.id || len(records) != len(sn.locs)) {
		d.err = errors.New("not the entry it should be")
	}
	if d.err != nil {
		return nil, &damage{sn.at, d.err.Error(), b}
	}
	for i, at := range sn.locs {
		if at.seg == 0 {
			continue
		}
		rec, err := sn.result(at, i)
		var bad *damage
		if errors.As(err, &bad) {
			// What matters is in memory; the texts are lost.
			rec, err = sn.briefs[i], nil
		}
		if err != nil {
			return nil, err
		}
		records[i] = rec
	}
	return records, nil
}

func (sn *snapshot) result(at loc, recipient int) (queue.Record, error) {
	b, err := sn.read(at)
	if err != nil {
		return queue.Record{}, err
	}
	it, err := nextItem(b, 0)
	if err != nil {
		return queue.Record{}, &damage{at, err.Error(), b}
	}
	d := it.check()
	id, n := queue.ID(d.u64()), d.num()
	rec := d.record()
	if d.err == nil && (id != sn.id || n != recipient) {
		d.err = errors.New("not the result it should be")
	}
	if d.err != nil {
		return queue.Record{}, &damage{at, d.err.Error(), b}
	}
	return rec, nil
}

// load reads an entry and its records.
func (s *Store) load(sn *snapshot) (*queue.Entry, []queue.Record, error) {
	b, err := sn.read(loc{sn.at.seg, sn.at.off, sn.at.size + sn.message})
	if err != nil {
		return nil, nil, err
	}
	records, err := sn.records(b)
	if err != nil {
		return nil, nil, err
	}
	it, err := nextItem(b, int(sn.at.size))
	if err != nil {
		return nil, nil, &damage{sn.at, err.Error(), b}
	}
	d := it.check()
	if d.err == nil && it.kind != itemMessage {
		d.err = errFormat
	}
	entry := d.message(sn.id, s.o.Content.Path, sn.content)
	if d.err == nil && len(entry.Envelope.Recipients) != len(records) {
		d.err = errors.New("recipients and records differ in number")
	}
	if d.err != nil {
		return nil, nil, &damage{sn.at, d.err.Error(), b}
	}
	return entry, records, nil
}

// Get implements queue.Store.
func (s *Store) Get(_ context.Context, id queue.ID) (*queue.Entry, []queue.Record, error) {
	s.mu.Lock()
	i := s.x.ids[id]
	if i == 0 {
		s.mu.Unlock()
		return nil, nil, fmt.Errorf("queue: %s: %w", id, queue.ErrGone)
	}
	if c, ok := s.x.cache.m[id]; ok && s.untouched(i) {
		s.mu.Unlock()
		return c.entry, append([]queue.Record(nil), c.records...), nil
	}
	sn := s.snapshot(i)
	s.mu.Unlock()
	defer s.release(sn)
	entry, records, err := s.load(&sn)
	if err != nil {
		return nil, nil, s.unreadable(&sn, err)
	}
	return entry, records, nil
}

// untouched reports whether no result was recorded for an entry yet. The caller holds mu.
func (s *Store) untouched(i uint32) bool {
	e := s.x.entries.at(i)
	for k := range e.count {
		if s.x.rcpts.at(e.first+k).loc.seg != 0 {
			return false
		}
	}
	return true
}

// unreadable handles an error of load: an entry that is damaged is set aside and gone.
func (s *Store) unreadable(sn *snapshot, err error) error {
	var bad *damage
	if !errors.As(err, &bad) {
		return fmt.Errorf("queue: read %s: %w", sn.id, err)
	}
	s.setAside(bad.at.seg, int64(bad.at.off), bad.bytes, fmt.Sprintf("entry %s: %s", sn.id, bad.reason))
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.x.ids[sn.id]
	if i == 0 || s.x.entries.at(i).loc != sn.at {
		return fmt.Errorf("queue: %s: %w", sn.id, queue.ErrGone)
	}
	s.damaged = true
	if name := s.x.end(i); name != "" {
		if err := s.o.Content.SetAside(name, fmt.Sprintf("entry %s is damaged", sn.id)); err != nil {
			s.o.Log.Error("queue: content was not set aside", "content", name, "error", err)
		}
	}
	return fmt.Errorf("queue: %s is damaged and was set aside: %w", sn.id, queue.ErrGone)
}

// scanStep is how many entries Scan looks up at a time.
const scanStep = 128

// Scan implements queue.Store.
func (s *Store) Scan(ctx context.Context, yield func(queue.Item) bool) error {
	s.mu.Lock()
	ids := make([]queue.ID, 0, len(s.x.ids))
	for id := range s.x.ids {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	slices.Sort(ids)
	for len(ids) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		step := ids[:min(scanStep, len(ids))]
		ids = ids[len(step):]
		more, err := s.scanStep(step, yield)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *Store) scanStep(ids []queue.ID, yield func(queue.Item) bool) (bool, error) {
	var items []queue.Item
	for _, id := range ids {
		var err error
		if items, err = s.items(id, items[:0]); err != nil {
			return false, err
		}
		for _, item := range items {
			if !yield(item) {
				return false, nil
			}
		}
	}
	return true, nil
}

// items appends the recipients of an entry that are not final.
func (s *Store) items(id queue.ID, items []queue.Item) ([]queue.Item, error) {
	s.mu.Lock()
	i := s.x.ids[id]
	if i == 0 {
		s.mu.Unlock()
		return items, nil
	}
	e := s.x.entries.at(i)
	leased := make([]bool, e.count)
	for k := range e.count {
		leased[k] = s.x.rcpts.at(e.first+k).flags&flagLeased != 0
	}
	var records []queue.Record
	var family queue.ID
	var class queue.Class
	if c, ok := s.x.cache.m[id]; ok && s.untouched(i) {
		records, family, class = c.records, c.entry.Family, c.entry.Class
		s.mu.Unlock()
	} else {
		sn := s.snapshot(i)
		s.mu.Unlock()
		defer s.release(sn)
		b, err := sn.read(loc{sn.at.seg, sn.at.off, sn.at.size + min(sn.message, itemHeader+headEnd)})
		if err == nil {
			records, err = sn.records(b)
		}
		if err == nil && sn.message > itemHeader {
			family, class = headOf(b[sn.at.size+itemHeader:])
		}
		if err != nil {
			if err = s.unreadable(&sn, err); errors.Is(err, queue.ErrGone) {
				return items, nil
			}
			return items, err
		}
	}
	for k, rec := range records {
		if !rec.State.Final() {
			items = append(items, queue.Item{ID: id, Family: family, Class: class, Recipient: k, Record: rec, Leased: leased[k]})
		}
	}
	return items, nil
}

// headEnd is how much of the body of a message item the version, family, time and class take.
const headEnd = 1 + 8 + 8 + 1

// headOf reads family and class from the beginning of the body of a message item. What is not
// there, or unknown, is found when the entry is read.
func headOf(b []byte) (queue.ID, queue.Class) {
	if len(b) < headEnd {
		return 0, queue.Mail
	}
	class := queue.Class(b[headEnd-1])
	if int(class) >= queue.Classes {
		class = queue.Mail
	}
	return queue.ID(binary.LittleEndian.Uint64(b[1:])), class
}

// wallTime turns a due time back into a time of day.
func (s *Store) wallTime(due int64, now time.Time) time.Time {
	if due == never {
		return time.Time{}
	}
	return now.Add(time.Duration(due - s.x.clock.at(now)))
}
