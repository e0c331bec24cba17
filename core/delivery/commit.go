package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
)

// commit makes what became of a lease durable, however long that takes: the transport has
// done its part, and forgetting that would be a duplicate. outcome is asked again, for those
// that are left, when an admin removed recipients meanwhile. commit reports whether what
// outcome said last is durable.
func (d *Delivery) commit(ctx context.Context, l queue.Lease, outcome func(queue.Lease) (queue.Batch, []trace.Event)) bool {
	ctx = context.WithoutCancel(ctx)
	b, events := outcome(l)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
		err := d.Store.Commit(ctx, b)
		if err == nil {
			for _, e := range events {
				d.Trace.Record(e)
			}
			return true
		}
		if errors.Is(err, queue.ErrGone) {
			if l = d.withoutGone(ctx, l); len(l.Recipients) == 0 {
				return false
			}
			b, events = outcome(l)
			continue
		}
		d.Log.Error("cannot record the outcome of an attempt, trying again", "id", l.Entry.ID.String(), "error", err, "pause", pause)
		if d.stopping(pause) {
			d.Log.Error("stopped before the outcome of an attempt was recorded; it will be attempted again", "id", l.Entry.ID.String())
			return false
		}
	}
}

// stopping waits and reports whether the process is being stopped meanwhile.
func (d *Delivery) stopping(pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-d.quit:
		return true
	}
}

// withoutGone is the lease without the recipients that an admin removed meanwhile.
func (d *Delivery) withoutGone(ctx context.Context, l queue.Lease) queue.Lease {
	_, records, err := d.Store.Get(ctx, l.Entry.ID)
	left := l
	left.Recipients, left.Records = nil, nil
	for i, n := range l.Recipients {
		if err == nil && n < len(records) && !records[n].State.Final() {
			left.Recipients, left.Records = append(left.Recipients, n), append(left.Records, l.Records[i])
		}
	}
	if slices.Equal(left.Recipients, l.Recipients) {
		d.Log.Error("the queue does not take the outcome of an attempt", "id", l.Entry.ID.String())
		left.Recipients = nil // for another reason: do not try for ever
	} else {
		d.Log.Warn("removed from the queue during its attempt", "id", l.Entry.ID.String(), "recipients", len(l.Recipients)-len(left.Recipients))
	}
	return left
}
