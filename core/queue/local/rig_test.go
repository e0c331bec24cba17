package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/disk/disktest"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
)

// The sweeps run one scenario again and again, each time with something going wrong at
// another operation on the disk, and compare what a restart finds with a ledger of what
// was promised.

// fate is what the ledger knows of a recipient or an entry.
type fate uint8

const (
	absent  fate = iota // refused: must never be seen
	present             // promised
	either              // the power went before the answer
)

type promise struct {
	fate   fate
	body   string
	states []queue.State
	doubt  []bool // a result was under way when the power went
}

type rig struct {
	t      *testing.T
	fs     *disktest.Faults
	sp     *spool.Spool
	s      *Store
	ids    queue.IDs
	now    time.Time    // changed by advance only
	wall   atomic.Int64 // now, for the store's goroutines
	ledger map[queue.ID]*promise
	order  []queue.ID
}

func (p *promise) doubted() bool {
	for _, d := range p.doubt {
		if d {
			return true
		}
	}
	return false
}

func (r *rig) open(fs disk.FS) error {
	var err error
	r.fs, _ = fs.(*disktest.Faults)
	if r.sp, err = spool.Open(spool.Options{Dir: "/d/spool", Threshold: 100, FS: fs}); err != nil {
		return err
	}
	r.s, err = Open(Options{Dir: "/d/queue", Content: r.sp, FS: fs, SegmentSize: 1024, Clock: func() time.Time { return time.Unix(0, r.wall.Load()) }})
	if err != nil {
		return err
	}
	r.s.patience = 0
	return nil
}

func (r *rig) outcome(err error) fate {
	switch {
	case err == nil:
		return present
	case r.fs.IsCut():
		return either
	}
	return absent
}

func (r *rig) accept(n, recipients int) {
	body := strings.Repeat(fmt.Sprintf("body %d\r\n", n), 1+n%3*15)
	w := r.sp.NewWriter()
	id := r.ids.New(r.now)
	p := &promise{body: body, states: make([]queue.State, recipients), doubt: make([]bool, recipients)}
	r.ledger[id] = p
	r.order = append(r.order, id)
	_, err := io.WriteString(w, body)
	if err != nil {
		w.Abort()
		return
	}
	b, err := w.Finish()
	if err == nil {
		err = w.Sync()
	}
	if err != nil {
		w.Abort()
		return
	}
	var to []string
	for k := range recipients {
		to = append(to, fmt.Sprintf("u%d@d%d.example", k, k%2))
		p.states[k] = queue.Pending
	}
	e, recs := testEntry(id, "", to...)
	e.Body = b
	for k := range recs {
		recs[k].Next = r.now.Add(5 * time.Minute)
	}
	p.fate = r.outcome(r.s.Commit(context.Background(), queue.Batch{Add: []queue.Add{{Entry: e, Records: recs}}, Remember: []queue.Mark{{Key: id.String(), Until: r.now.Add(time.Hour)}}}))
	if p.fate == absent {
		w.Abort()
	}
}

// deliver claims and lets each attempt end in its own way.
func (r *rig) deliver(n int) {
	leases, _, _ := r.s.Claim(context.Background(), queue.Claim{Now: r.now, Max: n})
	for _, l := range leases {
		p := r.ledger[l.Entry.ID]
		var results []queue.Result
		for i, k := range l.Recipients {
			rec := l.Records[i]
			switch (int(l.Entry.ID) + k + rec.Attempts) % 4 {
			case 0, 1:
				rec.State = queue.Delivered
			case 2:
				rec.State, rec.Next, rec.Reason = queue.Pending, r.now.Add(time.Minute), "try later"
			case 3:
				rec.State, rec.Reason = queue.Held, "look at it"
			}
			results = append(results, queue.Result{ID: l.Entry.ID, Recipient: k, Record: rec})
		}
		f := r.outcome(r.s.Commit(context.Background(), queue.Batch{Results: results}))
		for _, res := range results {
			switch f {
			case present:
				p.states[res.Recipient] = res.Record.State
			case either:
				p.doubt[res.Recipient] = true
			}
		}
	}
}

// scenario accepts, delivers, lets time pass, rotates and compacts.
func (r *rig) scenario() {
	for n := range 40 {
		r.accept(n, 1+n%3)
		if n%2 == 1 {
			r.deliver(3)
		}
		if n%8 == 7 {
			r.advance(10 * time.Minute)
			r.deliver(20)
		}
	}
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Unix(1.7e9, 0), ledger: make(map[queue.ID]*promise)}
	r.advance(0)
	return r
}

func (r *rig) advance(d time.Duration) {
	r.now = r.now.Add(d)
	r.wall.Store(r.now.UnixNano())
}

// verify opens what is left and compares it with the ledger, then delivers everything.
func (r *rig) verify(fs *disktest.Mem, what string) {
	t := r.t
	t.Helper()
	r.advance(time.Minute)
	if err := r.open(disktest.NewFaults(fs, nil)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, id := range r.order {
		r.check(id, what)
	}
	r.advance(24 * time.Hour)
	for {
		leases, _, err := r.s.Claim(context.Background(), queue.Claim{Now: r.now, Max: 100})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(leases) == 0 {
			break
		}
		for _, l := range leases {
			r.finish(fs, l, what)
		}
	}
	for _, id := range r.order {
		r.deleteHeld(id)
	}
	if err := r.s.Close(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if names, _ := r.sp.Names(); len(names) > 0 {
		t.Fatalf("%s: content left behind: %q", what, names)
	}
	if n := len(r.s.x.ids) + int(r.s.x.contents.count()) + len(r.s.x.names) + len(r.s.x.cache.m); n != 0 {
		t.Fatalf("%s: %d things left in memory", what, n)
	}
}

func (c *contents) count() int { return len(c.names) }

func (r *rig) check(id queue.ID, what string) {
	t, p := r.t, r.ledger[id]
	t.Helper()
	open, doubt := false, p.fate == either || p.doubted()
	for _, st := range p.states {
		open = open || !st.Final()
	}
	e, recs, err := r.s.Get(context.Background(), id)
	switch {
	case errors.Is(err, queue.ErrGone):
		if p.fate == present && open && !p.doubted() {
			t.Fatalf("%s: %s was promised and is lost", what, id)
		}
		return
	case err != nil:
		t.Fatalf("%s: %s: %v", what, id, err)
	case p.fate == absent:
		t.Fatalf("%s: %s was refused and came back", what, id)
	case !open && !doubt:
		t.Fatalf("%s: %s was done and came back: %+v", what, id, recs)
	}
	if e.ID != id || len(recs) != len(p.states) {
		t.Fatalf("%s: %s came back as %+v", what, id, e)
	}
	for k, rec := range recs {
		if rec.State != p.states[k] && !p.doubt[k] {
			t.Fatalf("%s: recipient %d of %s is %s and should be %s", what, k, id, rec.State, p.states[k])
		}
	}
	if ok, _ := r.s.Remembered(context.Background(), id.String(), r.now.Add(-24*time.Hour)); !ok && p.fate == present {
		if r.now.Before(id.Time().Add(30 * time.Minute)) {
			t.Fatalf("%s: the mark of %s is lost", what, id)
		}
	}
}

func (r *rig) finish(fs *disktest.Mem, l queue.Lease, what string) {
	t := r.t
	t.Helper()
	got := string(l.Entry.Body.Inline)
	if l.Entry.Body.Path != "" {
		f, err := fs.OpenFile(l.Entry.Body.Path, os.O_RDONLY, 0)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		b, _ := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		got = string(b)
	}
	if got != r.ledger[l.Entry.ID].body {
		t.Fatalf("%s: body of %s is altered: %q", what, l.Entry.ID, got)
	}
	var results []queue.Result
	for i, k := range l.Recipients {
		rec := l.Records[i]
		rec.State = queue.Delivered
		results = append(results, queue.Result{ID: l.Entry.ID, Recipient: k, Record: rec})
	}
	if err := r.s.Commit(context.Background(), queue.Batch{Results: results}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (r *rig) deleteHeld(id queue.ID) {
	_, recs, err := r.s.Get(context.Background(), id)
	if err != nil {
		return
	}
	for k, rec := range recs {
		if !rec.State.Final() {
			rec.State = queue.Deleted
			if err := r.s.Commit(context.Background(), queue.Batch{Results: []queue.Result{{ID: id, Recipient: k, Record: rec}}}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}
