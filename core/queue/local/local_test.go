package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/disk/disktest"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

func testEntry(id queue.ID, body string, to ...string) (*queue.Entry, []queue.Record) {
	e := &queue.Entry{ID: id, Family: id, Received: time.Now(), Header: mail.NewHeader([]byte("Subject: hi\r\n\r\n")), Body: mail.InlineBody([]byte(body))}
	e.Envelope = mail.Envelope{ID: id.String(), Origin: mail.Incoming, ReversePath: mail.MustPath("a@example.org")}
	var recs []queue.Record
	for _, r := range to {
		p := mail.MustPath(r)
		e.Envelope.Recipients = append(e.Envelope.Recipients, mail.Recipient{Path: p})
		recs = append(recs, queue.Record{State: queue.Pending, Destination: p.Domain.String(), Attempts: 1, Next: time.Now().Add(5 * time.Minute)})
	}
	return e, recs
}

// TestReclaim lets much mail through beside some that stays: the log does not grow with
// what is done, and what stays is moved and stays as it was.
func TestReclaim(t *testing.T) {
	h := newHouse(t)
	h.close()
	h.open(Options{SegmentSize: 4096})
	stay := make(map[queue.ID]bool)
	ctx := context.Background()
	if err := h.s.Commit(ctx, queue.Batch{Remember: []queue.Mark{{Key: "long", Until: h.now.Add(time.Hour)}, {Key: "short", Until: h.now.Add(time.Second)}}}); err != nil {
		t.Fatal(err)
	}
	h.advance(2 * time.Second)
	for i := range 600 {
		id := h.accept("some body text\r\n", 1+i%2*30)
		leases, _, err := h.s.Claim(ctx, queue.Claim{Now: h.now, Max: 1})
		if err != nil || len(leases) != 1 {
			t.Fatal(leases, err)
		}
		if i%60 == 7 {
			stay[id] = true
			h.finish(leases[0], queue.Held)
			continue
		}
		h.finish(leases[0], queue.Delivered)
	}
	h.close()
	segments, _ := filepath.Glob(h.dir + "/queue/*.log")
	if len(segments) > 25 {
		t.Errorf("%d segments of 4 KiB for %d small entries", len(segments), len(stay))
	}
	if _, err := os.Stat(h.dir + "/queue/00000001.log"); err == nil {
		t.Error("the first segment is still there")
	}
	h.open(Options{})
	n := 0
	h.s.Scan(ctx, func(i queue.Item) bool {
		if !stay[i.ID] || i.State != queue.Held {
			t.Errorf("%+v", i)
		}
		n++
		return true
	})
	if n != len(stay) {
		t.Errorf("%d of %d stayed", n, len(stay))
	}
	if ok, _ := h.s.Remembered(ctx, "long", h.now); !ok {
		t.Error("the mark was not carried on")
	}
	if len(h.s.x.marks) != 1 {
		t.Errorf("%d marks", len(h.s.x.marks))
	}
	if names, _ := h.sp.Names(); len(names) != len(stay) {
		t.Errorf("%d content files for %d entries", len(names), len(stay))
	}
	h.close()
}

// TestSharedContent: a content file lives as long as an entry refers to it.
func TestSharedContent(t *testing.T) {
	h := newHouse(t)
	h.accept("0123456789", 100)
	ctx := context.Background()
	leases, _, err := h.s.Claim(ctx, queue.Claim{Now: h.now, Max: 1})
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	l := leases[0]
	other, recs := testEntry(h.ids.New(h.now), "", "b@example.net")
	other.Body = l.Entry.Body
	done := l.Records[0]
	done.State = queue.Replaced
	if err := h.s.Commit(ctx, queue.Batch{Add: []queue.Add{{Entry: other, Records: recs}}, Results: []queue.Result{{ID: l.Entry.ID, Record: done}}}); err != nil {
		t.Fatal(err)
	}
	h.close()
	if names, _ := h.sp.Names(); len(names) != 1 {
		t.Fatalf("%q", names)
	}
	h.open(Options{})
	if got := h.drain(); len(got[other.ID]) != 1000 {
		t.Errorf("%v", got)
	}
	h.close()
	if names, _ := h.sp.Names(); len(names) != 0 {
		t.Errorf("%q", names)
	}
}

// TestD22ClockJumps: retries go by a clock that does not jump, and no wait is longer than the
// longest back-off, whatever the wall clock said when it was written.
func TestD22ClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 10 * 365 * 24 * time.Hour, -50 * 365 * 24 * time.Hour} {
		h := newHouse(t)
		h.close()
		elapsed := time.Duration(0)
		o := Options{Elapsed: func() time.Duration { return elapsed }}
		h.open(o)
		ctx := context.Background()
		for range 100 {
			h.accept("x", 1)
		}
		leases, _, err := h.s.Claim(ctx, queue.Claim{Now: h.now, Max: 200})
		if err != nil || len(leases) != 100 {
			t.Fatal(len(leases), err)
		}
		for _, l := range leases {
			rec := l.Records[0]
			rec.Next = h.now.Add(10 * time.Minute)
			if err := h.s.Commit(ctx, queue.Batch{Results: []queue.Result{{ID: l.Entry.ID, Record: rec}}}); err != nil {
				t.Fatal(err)
			}
		}
		claim := func(when string, want int) {
			t.Helper()
			leases, _, err := h.s.Claim(ctx, queue.Claim{Now: h.now, Max: 200})
			if err != nil || len(leases) != want {
				t.Errorf("jump %s, %s: %d due, want %d (%v)", jump, when, len(leases), want, err)
			}
			h.s.Release(ctx, leases...)
		}
		h.advance(jump)
		claim("at once", 0)
		elapsed += 10*time.Minute - 1
		claim("before the time", 0)
		elapsed++
		claim("at the time", 100)
		h.close()
		h.open(o)
		elapsed += 4 * time.Hour
		claim("after a restart and the longest back-off", 100)
		h.close()
	}
}

// TestD10SyncLie: after a sync that failed nothing relies on that file, though the next
// sync of it succeeds.
func TestD10SyncLie(t *testing.T) {
	r := newRig(t)
	var failed string
	armed := false
	m := disktest.NewMem()
	err := r.open(disktest.NewFaults(m, func(op disktest.Op) error {
		switch {
		case armed && op.Kind == "sync":
			armed, failed = false, op.Path
			return errors.New("the disk lies")
		case failed != "" && op.Path == failed && op.Kind == "write":
			t.Errorf("%s is written after its sync failed", failed)
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	r.accept(0, 1)
	armed = true
	r.accept(0, 1)
	r.accept(0, 1)
	for i, want := range []fate{present, absent, present} {
		if got := r.ledger[r.order[i]].fate; got != want {
			t.Errorf("message %d: %d, want %d", i, got, want)
		}
	}
	r.s.Close()
	r.verify(m.Kill(), "after a lie")
}

// TestD26SharedSync: all who waited for one failed sync are refused, and results among
// them are recorded all the same.
func TestD26SharedSync(t *testing.T) {
	r := newRig(t)
	m := disktest.NewMem()
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	var armed, blocked bool
	if err := r.open(disktest.NewFaults(m, func(op disktest.Op) error {
		switch {
		case blocked && op.Kind == "sync": // the group before: the others gather behind it
			blocked = false
			entered <- struct{}{}
			<-gate
			armed = true
		case armed && op.Kind == "sync":
			armed = false
			return errors.New("the disk is ill")
		}
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	r.accept(0, 1)
	leases, _, err := r.s.Claim(context.Background(), queue.Claim{Now: r.now, Max: 1})
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	blocked = true
	commit := func(b queue.Batch) chan error {
		c := make(chan error, 1)
		go func() { c <- r.s.Commit(context.Background(), b) }()
		return c
	}
	add := func() queue.Batch {
		e, recs := testEntry(r.ids.New(r.now), "x", "a@example.com")
		return queue.Batch{Add: []queue.Add{{Entry: e, Records: recs}}}
	}
	first := commit(add())
	<-entered
	var adds []chan error
	for range 31 {
		adds = append(adds, commit(add()))
	}
	done := leases[0].Records[0]
	done.State = queue.Delivered
	result := commit(queue.Batch{Results: []queue.Result{{ID: leases[0].Entry.ID, Record: done}}})
	for len(r.s.requests) < 32 {
		runtime.Gosched() // until all wait
	}
	close(gate)
	if err := <-first; err != nil {
		t.Error(err)
	}
	for _, c := range adds {
		if <-c == nil {
			t.Error("accepted with a failed sync")
		}
	}
	if err := <-result; err != nil {
		t.Errorf("the result was not recorded: %v", err)
	}
	r.s.Close()
	r2 := newRig(t)
	if err := r2.open(disktest.NewFaults(m.Kill(), nil)); err != nil {
		t.Fatal(err)
	}
	if n := len(r2.s.x.ids); n != 1 {
		t.Errorf("%d entries after a restart", n)
	}
	r2.s.Close()
}

func TestDump(t *testing.T) {
	h := newHouse(t)
	id := h.accept("0123456789", 100)
	h.accept("small", 1)
	leases, _, _ := h.s.Claim(context.Background(), queue.Claim{Now: h.now, Max: 1})
	h.finish(leases[0], queue.Held)
	h.s.Commit(context.Background(), queue.Batch{Remember: []queue.Mark{{Key: "k", Until: h.now}}})
	var all, one bytes.Buffer
	if err := Dump(&all, disk.OS{}, h.dir+"/queue", 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"00000001.log", "add " + id.String(), "recipient 0 <a@example.com>: pending", "result " + id.String(), "held to", "mark 8254c329a92850f6", "body 1000 bytes in "} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &all)
		}
	}
	if err := Dump(&one, disk.OS{}, h.dir+"/queue", id); err != nil {
		t.Fatal(err)
	}
	if strings.Count(one.String(), "frame") != 2 || strings.Contains(one.String(), "mark") {
		t.Errorf("of one entry:\n%s", &one)
	}
	h.close()
	seg := h.dir + "/queue/00000001.log"
	b, _ := os.ReadFile(seg)
	b[firstFrame+frameHeader+30] ^= 1
	os.WriteFile(seg, b, 0o600)
	all.Reset()
	if err := Dump(&all, disk.OS{}, h.dir+"/queue", 0); err != nil || !strings.Contains(all.String(), "not readable: frame has a wrong checksum") {
		t.Errorf("%v\n%s", err, &all)
	}
}

func TestOptions(t *testing.T) {
	sp, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {Dir: t.TempDir()}, {Content: sp}, {Dir: t.TempDir(), Content: sp, SegmentSize: 1},
		{Dir: t.TempDir(), Content: sp, Lease: -1}, {Dir: t.TempDir(), Content: sp, Backoff: queue.Backoff{First: 1}}} {
		if s, err := Open(o); err == nil {
			s.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

// TestD28NewerVersion: a queue of a newer postern is refused and left alone.
func TestD28NewerVersion(t *testing.T) {
	h := newHouse(t)
	h.accept("x", 1)
	h.close()
	seg := h.dir + "/queue/00000001.log"
	b, _ := os.ReadFile(seg)
	for _, at := range []int{0, segmentHeader} {
		b[at+7]++
		copy(b[at+60:], sumOf(b[at:at+60]))
	}
	os.WriteFile(seg, b, 0o600)
	if _, err := Open(Options{Dir: h.dir + "/queue", Content: h.sp}); !errors.Is(err, errVersion) {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(seg); !bytes.Equal(after, b) {
		t.Error("it was changed")
	}
}

// TestManyRecipients is about one entry with many recipients at many destinations.
func TestManyRecipients(t *testing.T) {
	h := newHouse(t)
	var to []string
	for i := range 3000 {
		to = append(to, fmt.Sprintf("u%d@d%d.example", i, i%500))
	}
	e, recs := testEntry(h.ids.New(h.now), "x", to...)
	if err := h.s.Commit(context.Background(), queue.Batch{Add: []queue.Add{{Entry: e, Records: recs}}}); err != nil {
		t.Fatal(err)
	}
	leases, _, err := h.s.Claim(context.Background(), queue.Claim{Now: h.now, Max: 1000})
	if err != nil || len(leases) != 500 {
		t.Fatal(len(leases), err)
	}
	for _, l := range leases {
		if len(l.Recipients) != 6 {
			t.Fatal(l.Recipients)
		}
		h.finish(l, queue.Delivered)
	}
	if len(h.s.x.ids)+len(h.s.x.names) != 0 {
		t.Error("something is left")
	}
	h.close()
}

func TestSlab(t *testing.T) {
	var s slab[rcpt]
	used := make(map[uint32]bool)
	type block struct {
		at uint32
		n  int
	}
	var blocks []block
	for i := range 3000 {
		n := 1 + i*i%37
		if i%100 == 0 {
			n = maxRecipients - i
		}
		at := s.alloc(n)
		for k := range uint32(n) {
			if used[at+k] || at+k == 0 {
				t.Fatalf("index %d is used twice", at+k)
			}
			used[at+k] = true
			*s.at(at + k) = rcpt{due: 1}
		}
		if at>>chunkBits != (at+uint32(n)-1)>>chunkBits {
			t.Fatal("a block lies in two chunks")
		}
		blocks = append(blocks, block{at, n})
		if i%3 == 0 {
			b := blocks[i/3%len(blocks)]
			blocks[i/3%len(blocks)] = blocks[len(blocks)-1]
			blocks = blocks[:len(blocks)-1]
			s.release(b.at, b.n)
			for k := range uint32(b.n) {
				delete(used, b.at+k)
			}
		}
	}
	if at := s.alloc(5); *s.at(at) != (rcpt{}) {
		t.Error("a block is not zero")
	}
}
