// Package observe tells observers what became of mail: it reads the queue's feed behind one
// durable cursor each and hands on events, at least once, in order.
//
// It is nobody's way: mail never waits for an observer. One that fails is told again, after
// a pause that grows; what it missed waits in the queue's log, within the feed's limit.
package observe

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
)

// Observer is told of events. After an error the same ones are told again.
type Observer interface {
	Observe(ctx context.Context, events []sdk.Event) error
}

// Options of Observers.
type Options struct {
	Feed queue.Feed
	Log  *slog.Logger
	// Pause is the wait after a failure; it doubles up to LongestPause.
	Pause, LongestPause time.Duration
}

// Observers are those that are told at the moment. They are safe for concurrent use.
type Observers struct {
	Options
	mu      sync.Mutex
	running map[string]*teller
}

// teller is one observer's goroutine.
type teller struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// New returns Observers that nobody is among yet.
func New(o Options) *Observers {
	if o.Pause <= 0 {
		o.Pause = time.Second
	}
	if o.LongestPause <= 0 {
		o.LongestPause = time.Minute
	}
	return &Observers{Options: o, running: make(map[string]*teller)}
}

// Set makes these the observers: new ones are told what happens from now on, those that
// were there go on, others end and their cursors are forgotten.
func (o *Observers) Set(observers map[string]Observer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, t := range o.running {
		if observers[name] == nil {
			t.cancel()
			<-t.done
			delete(o.running, name)
		}
	}
	if err := o.Feed.Keep(slices.Collect(maps.Keys(observers))); err != nil {
		return err
	}
	for name, observer := range observers {
		if o.running[name] == nil {
			o.running[name] = o.start(name, observer)
		}
	}
	return nil
}

// Close ends all of them, keeping their cursors.
func (o *Observers) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, t := range o.running {
		t.cancel()
		<-t.done
		delete(o.running, name)
	}
}

func (o *Observers) start(name string, observer Observer) *teller {
	ctx, cancel := context.WithCancel(context.Background())
	t := &teller{cancel: cancel, done: make(chan struct{})}
	pause := o.Pause
	tell := func(ctx context.Context, changes []queue.Change) error {
		events := eventsOf(changes)
		if len(events) == 0 {
			return nil
		}
		err := observer.Observe(ctx, events)
		if err == nil {
			pause = o.Pause
			return nil
		}
		if ctx.Err() == nil {
			o.Log.Warn("observer was not told, trying again", "plugin", name, "events", len(events), "error", err, "pause", pause)
			wait(ctx, pause)
			pause = min(2*pause, o.LongestPause)
		}
		return err
	}
	go func() {
		defer close(t.done)
		for ctx.Err() == nil {
			if err := o.Feed.Follow(ctx, name, tell); err != nil && !errors.Is(err, context.Canceled) {
				o.Log.Error("the queue's feed ended", "plugin", name, "error", err)
				wait(ctx, o.LongestPause)
			}
		}
	}()
	return t
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// eventsOf are the events that changes mean. What is only bookkeeping means none.
func eventsOf(changes []queue.Change) []sdk.Event {
	var events []sdk.Event
	for _, c := range changes {
		e := sdk.Event{Seq: c.Seq, Type: typeOf(c), ID: c.ID.String(), Recipient: c.Recipient, Copy: c.Copy, From: c.From, To: c.To,
			NextHop: c.Record.Destination, Attempts: c.Record.Attempts, Status: c.Record.Status, Reason: c.Record.Reason}
		if c.Family != 0 {
			e.Family = c.Family.String()
		}
		if e.Type != 0 {
			events = append(events, e)
		}
	}
	return events
}

func typeOf(c queue.Change) sdk.EventType {
	if c.Begun {
		return 0
	}
	switch c.Record.State {
	case queue.Pending:
		if c.Added {
			return sdk.EventAccepted
		}
		if c.Record.Status.Temporary() {
			return sdk.EventDeferred
		}
	case queue.Held:
		return sdk.EventQuarantined
	case queue.Parked:
		return sdk.EventParked
	case queue.Delivered:
		return sdk.EventDelivered
	case queue.Failed, queue.Expired:
		return sdk.EventBounced
	case queue.Deleted:
		return sdk.EventDeleted
	case queue.Discarded:
		return sdk.EventDiscarded
	}
	return 0
}
