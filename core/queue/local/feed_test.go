package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
)

// followed is a follower of a house's store that hands changes to the test.
type followed struct {
	t       *testing.T
	changes chan queue.Change
	stop    func()
	err     chan error
}

func follow(h *house, name string, refuse int) *followed {
	t := h.t.(*testing.T)
	ctx, cancel := context.WithCancel(context.Background())
	f := &followed{t: t, changes: make(chan queue.Change, 10000), err: make(chan error, 1)}
	go func() {
		f.err <- h.s.Follow(ctx, name, func(_ context.Context, cs []queue.Change) error {
			if refuse > 0 {
				refuse--
				return errors.New("not now")
			}
			for _, c := range cs {
				f.changes <- c
			}
			return nil
		})
	}()
	f.stop = func() {
		cancel()
		if err := <-f.err; err != nil {
			t.Error(err)
		}
	}
	return f
}

func (f *followed) next() queue.Change {
	f.t.Helper()
	select {
	case c := <-f.changes:
		return c
	case <-time.After(30 * time.Second):
		f.t.Fatal("no change is told")
		return queue.Change{}
	}
}

// begin makes a cursor.
func begin(h *house, name string) {
	h.t.Helper()
	if err := h.s.Keep([]string{name}); err != nil {
		h.t.Fatal(err)
	}
}

// deliver lets one message through.
func (h *house) deliver(state queue.State) queue.ID {
	h.t.Helper()
	id := h.accept("some body text\r\n", 1)
	leases, _, err := h.s.Claim(context.Background(), queue.Claim{Now: h.now, Max: 1})
	if err != nil || len(leases) != 1 {
		h.t.Fatal(leases, err)
	}
	h.finish(leases[0], state)
	return id
}

func TestFeedTellsInOrder(t *testing.T) {
	h := newHouse(t)
	defer h.close()
	h.deliver(queue.Delivered) // before the cursor: not told
	begin(h, "obs")
	id := h.deliver(queue.Delivered)
	f := follow(h, "obs", 2) // refused twice: told again
	a, b := f.next(), f.next()
	if !a.Added || a.ID != id || a.From.String() != "a@example.org" || a.To.String() != "a@example.com" || a.Record.State != queue.Pending {
		t.Errorf("%+v", a)
	}
	if b.Added || b.ID != id || b.Record.State != queue.Delivered || b.To != a.To || b.Seq <= a.Seq {
		t.Errorf("%+v", b)
	}
	second := h.deliver(queue.Held) // told as it happens
	if c := f.next(); c.ID != second || !c.Added {
		t.Errorf("%+v", c)
	}
	f.stop()
	if err := h.s.Keep([]string{"../x"}); err == nil {
		t.Error("a name that is a path")
	}
	if err := h.s.Follow(context.Background(), "nobody", nil); err == nil {
		t.Error("a cursor that was never made")
	}
}

// TestFeedSurvivesRestarts: nothing is left out over restarts and segments, and segments wait.
func TestFeedSurvivesRestarts(t *testing.T) {
	h := newHouse(t)
	h.close()
	h.open(Options{SegmentSize: 4096})
	begin(h, "obs")
	want := make(map[queue.ID]int)
	for range 50 {
		want[h.deliver(queue.Delivered)]++
	}
	h.close()
	h.open(Options{SegmentSize: 4096})
	for range 50 {
		want[h.deliver(queue.Delivered)]++
	}
	segments, _ := filepath.Glob(h.dir + "/queue/*.log")
	if len(segments) < 5 {
		t.Fatalf("%d segments: they do not wait for the follower", len(segments))
	}
	f := follow(h, "obs", 0)
	final := make(map[queue.ID]int)
	for len(final) < len(want) {
		if c := f.next(); c.Record.State == queue.Delivered {
			final[c.ID]++
		}
	}
	f.stop()
	for id := range want {
		if final[id] != 1 {
			t.Errorf("%s is told %d times", id, final[id])
		}
	}
	h.close()
	h.open(Options{SegmentSize: 4096})
	f = follow(h, "obs", 0)
	last := h.deliver(queue.Delivered)
	for {
		c := f.next()
		if c.ID == last {
			break
		}
		t.Errorf("told again after a clean end: %+v", c)
	}
	f.stop()
	// With nobody left to read them the segments go.
	if err := h.s.Keep(nil); err != nil {
		t.Fatal(err)
	}
	h.close()
	h.open(Options{SegmentSize: 4096})
	h.close()
	if segments, _ := filepath.Glob(h.dir + "/queue/*.log"); len(segments) > 3 {
		t.Errorf("%d segments are left", len(segments))
	}
	if left, _ := filepath.Glob(h.dir + "/queue/cursors/*"); len(left) != 0 {
		t.Errorf("cursors left: %v", left)
	}
}

// TestFeedIsBounded: a follower that never comes does not fill the disk.
func TestFeedIsBounded(t *testing.T) {
	h := newHouse(t)
	h.close()
	h.open(Options{SegmentSize: 4096, FeedLimit: 40_000})
	begin(h, "obs")
	for range 300 {
		h.deliver(queue.Delivered)
	}
	h.close()
	h.open(Options{SegmentSize: 4096, FeedLimit: 40_000})
	h.close()
	if segments, _ := filepath.Glob(h.dir + "/queue/*.log"); len(segments) > 12 {
		t.Errorf("%d segments are kept for nobody", len(segments))
	}
	h.open(Options{SegmentSize: 4096, FeedLimit: 40_000})
	defer h.close()
	f := follow(h, "obs", 0)
	f.next() // what is still there is told
	f.stop()
}

// TestFeedTellsIntentsApart: that a second attempt begins is no news of the first.
func TestFeedTellsIntentsApart(t *testing.T) {
	h := newHouse(t)
	defer h.close()
	begin(h, "obs")
	f := follow(h, "obs", 0)
	defer f.stop()
	h.accept("body\r\n", 1)
	for range 2 {
		leases, _, err := h.s.Claim(context.Background(), queue.Claim{Now: h.now, Max: 1})
		if err != nil || len(leases) != 1 {
			t.Fatal(leases, err)
		}
		h.finish(leases[0], queue.Pending)
		h.advance(10 * time.Hour)
	}
	var got []string
	for range 4 {
		c := f.next()
		got = append(got, fmt.Sprintf("added %t begun %t attempts %d", c.Added, c.Begun, c.Record.Attempts))
	}
	want := []string{"added true begun false attempts 1", "added false begun false attempts 1", "added false begun true attempts 2", "added false begun false attempts 2"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestFeedCursorDamaged(t *testing.T) {
	h := newHouse(t)
	begin(h, "obs")
	h.close()
	if err := os.WriteFile(h.dir+"/queue/cursors/obs", []byte("damaged damaged!"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.open(Options{})
	defer h.close()
	begin(h, "obs") // anew
	f := follow(h, "obs", 0)
	defer f.stop()
	id := h.deliver(queue.Delivered)
	if c := f.next(); c.ID != id {
		t.Errorf("%+v", c)
	}
}
