package local

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/queuetest"
	"github.com/postern-mail/postern/sdk/mail"
)

// TestEveryFieldIsStored fails when a field is added to an entry or a record and to
// neither the format nor the test's full entry.
func TestEveryFieldIsStored(t *testing.T) {
	a := queuetest.Full(77, time.Unix(1.8e9, 5).UTC())
	zeroOK := map[string]bool{
		"Entry.Envelope.Size":  true,                                                                               // 0 once the message is in
		"Entry.Envelope.Notes": true,                                                                               // intake moves them into Run
		"Entry.Body.Path":      true, "Entry.Body.Offset": true, "Entry.Body.Sum": true, "Entry.Body.Summed": true, // TestBodyInFile
	}
	checkSet(t, "Entry", reflect.ValueOf(*a.Entry), zeroOK)
	checkSet(t, "Record", reflect.ValueOf(a.Records[0]), zeroOK)
}

func checkSet(t *testing.T, name string, v reflect.Value, zeroOK map[string]bool) {
	if v.IsZero() && !zeroOK[name] {
		t.Errorf("%s is not set in the full entry: extend queuetest.Full, encode.go and decode.go", name)
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() || v.Type().PkgPath() == "net/netip" {
			return
		}
		for i := range v.NumField() {
			checkSet(t, name+"."+v.Type().Field(i).Name, v.Field(i), zeroOK)
		}
	case reflect.Slice, reflect.Array:
		if v.Len() > 0 && v.Index(0).Kind() == reflect.Struct {
			checkSet(t, name+"[0]", v.Index(0), zeroOK)
		}
	}
}

func roundTrip(t *testing.T, a queue.Add) (*queue.Entry, []queue.Record) {
	t.Helper()
	var e encoder
	front, message := e.add(itemAdd, a.Entry, a.Records)
	if int(front+message) != len(e.b) {
		t.Fatalf("%d+%d bytes, %d written", front, message, len(e.b))
	}
	entry, recs, err := decodeAll(e.b)
	if err != nil {
		t.Fatal(err)
	}
	return entry, recs
}

func decodeAll(b []byte) (*queue.Entry, []queue.Record, error) {
	it, err := nextItem(b, 0)
	if err != nil {
		return nil, nil, err
	}
	d := it.check()
	f := d.front()
	recs := d.records(f.records)
	if d.err != nil {
		return nil, nil, d.err
	}
	m, err := nextItem(b, int(it.size()))
	if err != nil {
		return nil, nil, err
	}
	d = m.check()
	entry := d.message(f.id, func(n string) string { return "/spool/" + n }, string(f.content))
	return entry, recs, d.err
}

func TestBodyInFile(t *testing.T) {
	a := queuetest.Full(77, time.Unix(1.8e9, 5).UTC())
	a.Entry.Body = mail.Body{Path: "/spool/NAME", Offset: 3, Size: 1 << 40, Sum: math.MaxUint32, Summed: true}
	entry, _ := roundTrip(t, a)
	if entry.Body.Inline != nil || entry.Body.Path != a.Entry.Body.Path || entry.Body.Offset != 3 || entry.Body.Size != 1<<40 || entry.Body.Sum != math.MaxUint32 || !entry.Body.Summed {
		t.Errorf("%+v", entry.Body)
	}
}

// TestClassIsAByte: older gateways wrote a flag where the class is, 0 or 1, that said copy. The
// index finds the class there without reading the entry.
func TestClassIsAByte(t *testing.T) {
	for number, class := range []queue.Class{queue.Mail, queue.Copy, queue.Journal, queue.Report, queue.Class(queue.Classes)} {
		a := queuetest.Full(77, time.Unix(1.8e9, 5).UTC())
		a.Entry.Class = class
		var e encoder
		front, _ := e.add(itemAdd, a.Entry, a.Records)
		body := e.b[int(front)+itemHeader:]
		if got := body[1+8+8]; int(got) != number {
			t.Errorf("%s is stored as %d", class, got)
		}
		back, _, err := decodeAll(e.b)
		family, head := headOf(body)
		if number == queue.Classes {
			if err == nil || head != queue.Mail {
				t.Errorf("class %d was read as %s and %s", number, back.Class, head)
			}
			continue
		}
		if err != nil || back.Class != class || head != class || family != a.Entry.Family {
			t.Errorf("%s came back as %s, and as %s of %s: %v", class, back.Class, head, family, err)
		}
	}
	if family, class := headOf(make([]byte, headEnd-1)); family != 0 || class != queue.Mail {
		t.Errorf("a head that is cut off: %s, %s", family, class)
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct{ in, out time.Time }{
		{time.Time{}, time.Time{}},
		{time.Unix(0, 0), time.Unix(0, 0)},
		{time.Unix(1, 1), time.Unix(1, 1)},
		{time.Unix(-1, 0), time.Unix(-1, 0)},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, math.MaxInt64)},
		{time.Date(2, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, math.MinInt64+1)},
	} {
		var e encoder
		e.time(c.in)
		d := decoder{b: e.b}
		if got := d.time(); !got.Equal(c.out) || got.IsZero() != c.out.IsZero() {
			t.Errorf("%s became %s", c.in, got)
		}
	}
}

// FuzzItems: whatever is on the disk, decoding neither panics nor takes much memory, and
// what decodes encodes to something that decodes to the same.
func FuzzItems(f *testing.F) {
	var e encoder
	a := queuetest.Full(77, time.Unix(1.8e9, 5).UTC())
	e.add(itemAdd, a.Entry, a.Records)
	e.result(&queue.Result{ID: 5, Recipient: 3, Record: a.Records[0]})
	e.mark([16]byte{1}, 7)
	f.Add(e.b)
	it, _ := nextItem(e.b, 0)
	f.Add(it.body)
	m, _ := nextItem(e.b, int(it.size()))
	f.Add(m.body)
	f.Add(m.body[1:]) // as decoder.message reads it
	show := func(e *queue.Entry) string {
		c := *e
		c.Keep = nil // a pointer: its address is not what counts
		return fmt.Sprintf("%+v %+v", c, e.Keep)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 && eachItem(b, func(it *item, _ item) error { return checkItem(it) }) == nil {
			s := &Store{x: newIndex(clock{now: time.Now}, time.Hour, 0)}
			s.x.segs[1] = &segment{number: 1}
			if err := s.replayFrame(s.x.segs[1], 0, b, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		decodeAll(b)
		d := &decoder{b: b}
		fr := d.front()
		d.records(fr.records)
		d = &decoder{b: b}
		entry := d.message(1, func(n string) string { return n }, "")
		if d.err != nil {
			return
		}
		if len(entry.Envelope.Recipients) > len(b) {
			t.Fatal("more recipients than bytes")
		}
		var again encoder
		again.message(entry)
		d = &decoder{b: again.b}
		if back := d.message(1, func(n string) string { return n }, ""); d.err != nil || show(back) != show(entry) {
			t.Fatalf("%s\nbecame\n%s (%v)", show(entry), show(back), d.err)
		}
	})
}

// FuzzSegment: whatever a segment holds, it can be scanned.
func FuzzSegment(f *testing.F) {
	m := marker{1, 2, 3, 4, 5, 6, 7, 8}
	b := make([]byte, firstFrame)
	for i := range 3 {
		p := []byte("payload")
		h := make([]byte, frameHeader)
		fr := frame{seq: uint64(i), size: len(p), group: 128, sum: 0}
		fr.put(h, m)
		b = append(append(b, h...), p...)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeSegHeader(b)
		var o opened
		o.parse(b, 1)
		sc, err := scanFrames(&bytesFile{b: b}, m, int64(len(b)), func(int64, frame, []byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		at := int64(firstFrame)
		for _, g := range sc.gaps {
			if g.from < at || g.to <= g.from || g.to > int64(len(b)) {
				t.Fatalf("gaps %+v of %d bytes", sc.gaps, len(b))
			}
			at = g.to
		}
	})
}

func sumOf(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, checksum(b))
}
