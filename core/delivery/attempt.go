package delivery

import (
	"context"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/dsn"
	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// attempt does what a lease is for and commits the outcome.
func (d *Delivery) attempt(ctx context.Context, rules Rules, l queue.Lease) {
	defer d.release(l.Entry.Class)
	limit := shareOf(l.Entry.Class, rules.PerNextHop)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer d.keep(ctx, cancel, &l)()
	if !l.Entry.Run.Complete {
		end := func(bool) {}
		resume := func(l queue.Lease) (b queue.Batch, _ []trace.Event) {
			end(false) // the batch before was not taken
			b, end = d.Intake.Resume(ctx, l.Entry, l.Recipients, l.Records)
			return b, nil
		}
		committed := d.commit(ctx, l, resume)
		end(committed)
		d.destinations.end(laneOf(&l), true, limit, d.Clock())
		return
	}
	results := d.transport(ctx, rules, l)
	d.destinations.end(laneOf(&l), !unreached(results), limit, d.Clock())
	var taken []int
	committed := d.commit(ctx, l, func(left queue.Lease) (queue.Batch, []trace.Event) {
		taken = left.Recipients
		return d.outcome(rules, left, func(number int) result { return results[slices.Index(l.Recipients, number)] })
	})
	for i, n := range l.Recipients {
		if x := results[i].expanded; x != nil && x.End != nil {
			x.End(committed && slices.Contains(taken, n))
		}
	}
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

// result is what a transport says of one recipient.
type result struct {
	smtpclient.Result
	final bool // in a mailbox: no further host can report on it
	// expanded is what becomes of a message by its recipient's plan, if not simply that it
	// is kept.
	expanded *expand.Outcome
	// events are what else is to be recorded.
	events []trace.Event
}

// share is the part of a lease that goes one way.
type share struct {
	route   route.Route
	numbers []int // of the recipients
	places  []int // in the lease
}

// transport hands the leased recipients over, by the routes of today: the configuration
// may have changed since the destination was written down.
func (d *Delivery) transport(ctx context.Context, rules Rules, l queue.Lease) []result {
	results := make([]result, len(l.Recipients))
	var shares []share
	for i, n := range l.Recipients {
		r, err := rules.Route(l.Entry.Envelope.Recipients[n].Path)
		if err != nil {
			results[i].Status = mail.StatusOf(err)
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
		for k, r := range d.hand(ctx, rules, s, &l) {
			results[s.places[k]] = r
		}
	}
	for i := range results {
		if results[i].Status.IsZero() { // no answer means defer
			results[i].Status = mail.Temporary(451, 3, 0, "No answer from the transport")
		}
	}
	return results
}

// hand gives one share to its transport.
func (d *Delivery) hand(ctx context.Context, rules Rules, s share, l *queue.Lease) []result {
	e := l.Entry
	if s.route.Transport == route.Mailbox {
		results := make([]result, len(s.numbers))
		for i, n := range s.numbers {
			// The attempts begun are counted durably, this one included.
			fresh := l.Records[s.places[i]].Attempts <= 1
			results[i] = d.local(ctx, rules, s.route.Hops[0].Address, e, n, fresh)
		}
		return results
	}
	return d.remote(ctx, rules, s, e)
}

// outcome turns what the transport said of the recipients of a lease into results, with the
// reports that go with them, and the events to record once all that is durable.
func (d *Delivery) outcome(rules Rules, l queue.Lease, said func(number int) result) (queue.Batch, []trace.Event) {
	var b queue.Batch
	var notices []intake.Notice
	var events []trace.Event
	now, lifetime := d.Clock(), rules.Lifetime(l.Entry.Class)
	for i, n := range l.Recipients {
		r := l.Records[i]
		age := ageOf(r, l.Entry.Received, now, lifetime)
		res := said(n)
		st := res.Status
		r.Status = st
		event := trace.Event{ID: l.Entry.ID.String(), Family: l.Entry.Family.String(), To: l.Entry.Envelope.Recipients[n].Path.String(),
			NextHop: l.Destination, Attempt: r.Attempts}
		notice := intake.Notice{Recipient: n, Status: st}
		switch x := res.expanded; {
		case x != nil:
			r.State, r.Reason = x.Record.State, x.Record.Reason
			event.Type, event.Reason = trace.Planned, r.State.String()+": "+r.Reason
			for i := range x.Add {
				x.Add[i].Prolong(r.Expires)
			}
			b.Add, b.Remember = append(b.Add, x.Add...), append(b.Remember, x.Remember...)
			events = append(events, x.Events...)
			if r.State == queue.Failed {
				event.Type, notice.Action = trace.Failed, dsn.Failed
			}
		case st.Success():
			r.State, event.Type = queue.Delivered, trace.Delivered
			notice.Action, _ = dsn.SuccessAction(res.final, res.DSN)
		case st.Permanent():
			r.State, event.Type = queue.Failed, trace.Failed
			notice.Action = dsn.Failed
		case age >= lifetime:
			r.State, event.Type = queue.Expired, trace.Expired
			r.Status = mail.Permanent(554, 4, 7, "Delivery time expired; the last attempt said: "+st.Error())
			notice.Action, notice.Status = dsn.Expired, r.Status
		default:
			r.State, event.Type = queue.Pending, trace.Deferred
			if res.Duplicate {
				event.Reason = "the next hop may have taken it: it may get it twice"
			}
			if rules.DelayWarning > 0 && age >= rules.DelayWarning && !r.Warned {
				r.Warned = true
				notice.Action, notice.Until = dsn.Delayed, now.Add(lifetime-age)
			}
		}
		event.Status = r.Status
		events = append(append(events, res.events...), event)
		if notice.Action != 0 {
			notices = append(notices, notice)
		}
		b.Results = append(b.Results, queue.Result{ID: l.Entry.ID, Recipient: n, Record: r})
	}
	reports, reported := d.Intake.Reports(l.Entry, d.rationed(l.Entry, notices))
	b.Add = append(b.Add, reports...)
	return b, append(events, reported...)
}
