package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/dsn"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// attempt does what a lease is for and commits the outcome.
func (d *Delivery) attempt(ctx context.Context, rules Rules, l queue.Lease) {
	defer d.release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer d.keep(ctx, cancel, &l)()
	if !l.Entry.Run.Complete {
		batch := d.Intake.Resume(ctx, l.Entry, l.Recipients, l.Records)
		d.destinations.end(l.Destination, true, rules.PerNextHop, d.Clock())
		d.commit(ctx, l.Entry, batch)
		return
	}
	statuses := d.transport(ctx, rules, l)
	d.destinations.end(l.Destination, !unreached(statuses), rules.PerNextHop, d.Clock())
	d.commit(ctx, l.Entry, d.outcome(rules, l, statuses))
}

// keep extends the lease while the attempt lasts, and ends the attempt when the lease is
// lost. The function it returns stops that.
func (d *Delivery) keep(ctx context.Context, cancel context.CancelFunc, l *queue.Lease) func() bool {
	var t *time.Timer
	until := l.Until
	t = time.AfterFunc(d.Lease/2, func() {
		until = until.Add(d.Lease / 2)
		if err := d.Store.Extend(ctx, *l, until); err != nil {
			d.Log.Warn("lease lost", "id", l.Entry.ID.String(), "error", err)
			cancel()
			return
		}
		t.Reset(d.Lease / 2)
	})
	return t.Stop
}

// share is the part of a lease that goes one way.
type share struct {
	route   route.Route
	numbers []int // of the recipients
	places  []int // in the lease
}

// transport hands the leased recipients over, by the routes of today: the configuration
// may have changed since the destination was written down.
func (d *Delivery) transport(ctx context.Context, rules Rules, l queue.Lease) []mail.Status {
	statuses := make([]mail.Status, len(l.Recipients))
	var shares []share
	for i, n := range l.Recipients {
		r, err := rules.Route(l.Entry.Envelope.Recipients[n].Path)
		if err != nil {
			statuses[i] = mail.StatusOf(err)
			continue
		}
		k := slices.IndexFunc(shares, func(s share) bool { return s.route.Key == r.Key })
		if k < 0 {
			k = len(shares)
			shares = append(shares, share{route: r})
		}
		shares[k].numbers = append(shares[k].numbers, n)
		shares[k].places = append(shares[k].places, i)
	}
	for _, s := range shares {
		for k, st := range d.hand(ctx, s, l.Entry) {
			statuses[s.places[k]] = st
		}
	}
	for i := range statuses {
		if statuses[i].IsZero() { // no answer means defer
			statuses[i] = mail.Temporary(451, 3, 0, "No answer from the transport")
		}
	}
	return statuses
}

// hand gives one share to its transport.
func (d *Delivery) hand(ctx context.Context, s share, e *queue.Entry) []mail.Status {
	if s.route.Transport != route.Mailbox {
		return d.SMTP.Deliver(ctx, s.route, &e.Envelope, s.numbers, e.Header, e.Body)
	}
	statuses := make([]mail.Status, len(s.numbers))
	for i, n := range s.numbers {
		statuses[i] = d.Mailbox.Deliver(ctx, s.route.Hops[0].Address, e, n)
	}
	return statuses
}

// outcome turns statuses into results, and into the reports that go with them.
func (d *Delivery) outcome(rules Rules, l queue.Lease, statuses []mail.Status) queue.Batch {
	var b queue.Batch
	var notices []intake.Notice
	now := d.Clock()
	age := now.Sub(l.Entry.Received)
	for i, n := range l.Recipients {
		r := l.Records[i]
		st := statuses[i]
		r.Status = st
		event := trace.Event{}
		notice := intake.Notice{Recipient: n, Status: st}
		switch {
		case st.Success():
			r.State, event.Type = queue.Delivered, trace.Delivered
			notice.Action = dsn.Relayed
			if to, err := rules.Route(l.Entry.Envelope.Recipients[n].Path); err == nil && to.Transport == route.Mailbox {
				notice.Action = dsn.Delivered
			}
		case st.Permanent():
			r.State, event.Type = queue.Failed, trace.Failed
			notice.Action = dsn.Failed
		case age >= rules.Lifetime:
			r.State, event.Type = queue.Expired, trace.Expired
			r.Status = mail.Permanent(554, 4, 7, "Delivery time expired; the last attempt said: "+st.Error())
			notice.Action, notice.Status = dsn.Expired, r.Status
		default:
			r.State, event.Type = queue.Pending, trace.Deferred
			if rules.DelayWarning > 0 && age >= rules.DelayWarning && !r.Warned {
				r.Warned = true
				notice.Action, notice.Until = dsn.Delayed, l.Entry.Received.Add(rules.Lifetime)
			}
		}
		d.record(l, n, r, event)
		if notice.Action != 0 {
			notices = append(notices, notice)
		}
		b.Results = append(b.Results, queue.Result{ID: l.Entry.ID, Recipient: n, Record: r})
	}
	b.Add = d.Intake.Reports(l.Entry, notices)
	return b
}

func (d *Delivery) record(l queue.Lease, n int, r queue.Record, e trace.Event) {
	e.ID, e.Family = l.Entry.ID.String(), l.Entry.Family.String()
	e.Status = r.Status
	e.To, e.NextHop, e.Attempt, e.Reason = l.Entry.Envelope.Recipients[n].Path.String(), l.Destination, r.Attempts, r.Reason
	d.Trace.Record(e)
}

// commit makes a batch durable, however long that takes: the transport has done its part,
// and forgetting that would be a duplicate.
func (d *Delivery) commit(ctx context.Context, e *queue.Entry, b queue.Batch) {
	ctx = context.WithoutCancel(ctx)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
		err := d.Store.Commit(ctx, b)
		if err == nil {
			return
		}
		if errors.Is(err, queue.ErrGone) {
			if b = d.withoutGone(ctx, e, b); len(b.Results) == 0 {
				return
			}
			continue
		}
		d.Log.Error("cannot record the outcome of an attempt, trying again", "id", e.ID.String(), "error", err, "pause", pause)
		if d.stopping(pause) {
			d.Log.Error("stopped before the outcome of an attempt was recorded; it will be attempted again", "id", e.ID.String())
			return
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

// withoutGone drops the results of recipients that an admin removed meanwhile.
func (d *Delivery) withoutGone(ctx context.Context, e *queue.Entry, b queue.Batch) queue.Batch {
	_, records, err := d.Store.Get(ctx, e.ID)
	var left []queue.Result
	for _, r := range b.Results {
		if err == nil && r.Recipient < len(records) && !records[r.Recipient].State.Final() {
			left = append(left, r)
		}
	}
	if len(left) == len(b.Results) {
		left = nil // gone for another reason: do not try for ever
	}
	d.Log.Warn("removed from the queue during its attempt", "id", e.ID.String(), "recipients", len(b.Results)-len(left))
	b.Results = left
	return b
}
