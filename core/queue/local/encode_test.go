package local

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/queuetest"
	"github.com/postern-mail/postern/core/spool"
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

// TestClientFacts: a fact that a newer gateway wrote is skipped, and a malformed one is damage.
func TestClientFacts(t *testing.T) {
	helo := "\x03\x04helo"
	for text, want := range map[string]mail.Client{
		"\x00":                                {},
		"\x01" + helo:                         {Helo: "helo"},
		"\x03\x7f\x00" + helo + "\xff\x03new": {Helo: "helo"},
		"\x02\x02\x03\xff\xff\x03" + "\x09\x01\x02": {Port: 65535, Class: mail.Relay},
		"\x01\x01\x04\xc0\x00\x02\x01":              {Addr: netip.MustParseAddr("192.0.2.1")},
	} {
		d := decoder{b: []byte(text), version: 2}
		var c mail.Client
		if d.client(&c); d.err != nil || len(d.b) != 0 || c != want {
			t.Errorf("%q: %+v, %v, %d bytes are left", text, c, d.err, len(d.b))
		}
	}
	for _, text := range []string{"", "\x01", "\x02" + helo, "\x01\x03\x05helo", "\x01\x02\x03\x80\x80\x04", "\x01\x02\x00", "\x01\x02\x02\x01\x00",
		"\x01\x09\x02\x80\x02", "\x01\x01\x03\xc0\x00\x02", "\x01\x0c\x05\x80\x80\x80\x80\x08", "\xff\xff\xff\xff\x7f" + helo} {
		d := decoder{b: []byte(text), version: 2}
		if d.client(new(mail.Client)); d.err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// version1 is the payload of a frame that a gateway wrote whose items were all of version 1.
func version1(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/version1/00000001.log")
	if err != nil {
		t.Fatal(err)
	}
	o := opened{length: int64(len(b))}
	if reason, err := o.parse(b[:firstFrame+frameHeader], 1); err != nil || reason != "" || o.head.version != 1 {
		t.Fatal(reason, err, o.head.version)
	}
	fr, ok := decodeFrame(b[firstFrame:], o.head.marker)
	if !ok {
		t.Fatal("no frame")
	}
	return b[firstFrame+frameHeader:][:fr.size]
}

// TestVersion1: what an older gateway wrote is read, and nothing that it could not read is
// added to its segments, also the empty one that it has left.
func TestVersion1(t *testing.T) {
	dir, now := t.TempDir(), time.Unix(1.8e9, 5).UTC()
	if err := os.CopyFS(dir+"/queue", os.DirFS("testdata/version1")); err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(spool.Options{Dir: dir + "/spool"})
	if err != nil {
		t.Fatal(err)
	}
	full := func(id queue.ID) queue.Add {
		a := queuetest.Full(id, now)
		if id < 79 { // there was no place for them
			c := &a.Entry.Envelope.Client
			c.Mechanism, c.PTR, c.Connections = "", "", 0
		}
		if id == 78 {
			a.Entry.Class, a.Entry.Keep = queue.Mail, nil
			a.Records[1].Reason = "still held"
		}
		return a
	}
	for _, ids := range [][]queue.ID{{77, 78}, {77, 78, 79}} {
		s, err := Open(Options{Dir: dir + "/queue", Content: sp, Clock: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			e, recs, err := s.Get(t.Context(), id)
			if want := full(id); err != nil || !reflect.DeepEqual(e, want.Entry) || !reflect.DeepEqual(recs, want.Records) {
				t.Errorf("%v\n%+v\n%+v\nis not\n%+v\n%+v", err, e, recs, want.Entry, want.Records)
			}
		}
		if len(ids) == 2 {
			if err := s.Commit(t.Context(), queue.Batch{Add: []queue.Add{full(79)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range map[string]int64{"00000001.log": 1177, "00000002.log": firstFrame} {
		if st, err := os.Stat(dir + "/queue/" + name); err == nil && st.Size() != size {
			t.Errorf("%s has grown to %d bytes", name, st.Size())
		}
	}
	var dump bytes.Buffer
	if err := Dump(&dump, disk.OS{}, dir+"/queue", 0); err != nil || strings.Contains(dump.String(), "not readable") || strings.Count(dump.String(), "helo \"helo\"") != 3 ||
		strings.Count(dump.String(), "ptr \"ptr\" user \"user\" mechanism \"SCRAM-SHA-256\"") != 1 {
		t.Errorf("%v\n%s", err, &dump)
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
	f.Add(version1(f))
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
		for version := range itemVersion(itemMessage) {
			d = &decoder{b: b, version: version + 1}
			entry := d.message(1, func(n string) string { return n }, "")
			if d.err != nil {
				continue
			}
			if len(entry.Envelope.Recipients) > len(b) {
				t.Fatal("more recipients than bytes")
			}
			var again encoder
			again.message(entry)
			d = &decoder{b: again.b, version: itemVersion(itemMessage)}
			if back := d.message(1, func(n string) string { return n }, ""); d.err != nil || show(back) != show(entry) {
				t.Fatalf("%s\nbecame\n%s (%v)", show(entry), show(back), d.err)
			}
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
