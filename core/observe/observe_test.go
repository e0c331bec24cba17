package observe

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestWhatChangesMean(t *testing.T) {
	later := mail.Temporary(450, 2, 0, "later")
	for _, c := range []struct {
		change queue.Change
		want   sdk.EventType
	}{
		{queue.Change{Added: true, Record: queue.Record{State: queue.Pending}}, sdk.EventAccepted},
		{queue.Change{Record: queue.Record{State: queue.Pending, Status: later}}, sdk.EventDeferred},
		{queue.Change{Begun: true, Record: queue.Record{State: queue.Pending, Status: later}}, 0},
		{queue.Change{Record: queue.Record{State: queue.Pending}}, 0}, // released, retried
		{queue.Change{Added: true, Record: queue.Record{State: queue.Held}}, sdk.EventQuarantined},
		{queue.Change{Record: queue.Record{State: queue.Parked}}, sdk.EventParked},
		{queue.Change{Record: queue.Record{State: queue.Delivered}}, sdk.EventDelivered},
		{queue.Change{Record: queue.Record{State: queue.Failed}}, sdk.EventBounced},
		{queue.Change{Record: queue.Record{State: queue.Expired}}, sdk.EventBounced},
		{queue.Change{Record: queue.Record{State: queue.Deleted}}, sdk.EventDeleted},
		{queue.Change{Record: queue.Record{State: queue.Discarded}}, sdk.EventDiscarded},
		{queue.Change{Record: queue.Record{State: queue.Replaced}}, 0}, // its versions are accepted
	} {
		var got sdk.EventType
		if events := eventsOf([]queue.Change{c.change}); len(events) > 0 {
			got = events[0].Type
		}
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.change, got, c.want)
		}
	}
}

// feed tells the same change until it is taken.
type feed struct {
	kept  []string
	taken chan string
}

func (f *feed) Follow(ctx context.Context, name string, yield func(context.Context, []queue.Change) error) error {
	for ctx.Err() == nil {
		if yield(ctx, []queue.Change{{ID: 1, Added: true, Record: queue.Record{State: queue.Pending}}}) == nil {
			f.taken <- name
			<-ctx.Done()
		}
	}
	return nil
}

func (f *feed) Keep(names []string) error { f.kept = slices.Sorted(slices.Values(names)); return nil }

// stubborn refuses so many times.
type stubborn struct{ times, told int }

func (s *stubborn) Observe(context.Context, []sdk.Event) error {
	if s.told++; s.told <= s.times {
		return errors.New("not now")
	}
	return nil
}

func TestToldAgainUntilTaken(t *testing.T) {
	f := &feed{taken: make(chan string, 10)}
	o := New(Options{Feed: f, Log: slog.New(slog.DiscardHandler), Pause: time.Millisecond, LongestPause: 2 * time.Millisecond})
	a, b := &stubborn{times: 3}, &stubborn{}
	if err := o.Set(map[string]Observer{"a": a, "b": b}); err != nil {
		t.Fatal(err)
	}
	got := []string{<-f.taken, <-f.taken}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(f.kept, got) {
		t.Errorf("taken by %q, cursors %q", got, f.kept)
	}
	if err := o.Set(map[string]Observer{"b": b}); err != nil { // a goes, b is not disturbed
		t.Fatal(err)
	}
	if !slices.Equal(f.kept, []string{"b"}) || a.told != 4 {
		t.Errorf("cursors %q, told %d times", f.kept, a.told)
	}
	o.Close()
	if b.told != 1 {
		t.Errorf("b was told %d times", b.told)
	}
}
