package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/postern-mail/postern/core/dsn"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// watchStep is how many recipients one commit of watch changes.
const watchStep = 1000

// parkAgain is how long after a plugin came back parked mail is looked at once more: what
// was on its way to be parked then is in the queue by now.
const parkAgain = 2 * time.Second

// watch looks after what no claim returns: held recipients whose time has come are let go,
// and parked ones are tried again, or given up when their lifetime is over.
func (d *Delivery) watch(ctx context.Context) {
	rules := d.current()
	now := d.Clock()
	var results []queue.Result
	var old []queue.ID
	err := d.Store.Scan(ctx, func(i queue.Item) bool {
		switch {
		case i.State == queue.Held && !i.Expires.IsZero() && now.After(i.Expires):
			i.Record.State = queue.Expired
			d.Trace.Record(trace.Event{Type: trace.Expired, ID: i.ID.String(), Reason: i.Reason})
		case i.State == queue.Parked && ageOf(i.Record, i.ID.Time(), now, rules.Lifetime(i.Class)) > rules.Lifetime(i.Class):
			if len(old) == 0 || old[len(old)-1] != i.ID {
				old = append(old, i.ID)
			}
			return true
		case i.State == queue.Parked:
			i.Record.State, i.Record.Next = queue.Pending, now
		default:
			return true
		}
		results = append(results, queue.Result{ID: i.ID, Recipient: i.Recipient, Record: i.Record, Idle: true})
		if len(results) == watchStep {
			d.change(ctx, results)
			results = nil
		}
		return true
	})
	if err != nil {
		d.Log.Error("queue scan failed", "error", err)
	}
	if len(results) > 0 {
		d.change(ctx, results)
	}
	for _, id := range old {
		d.giveUp(ctx, id)
	}
}

// ageOf is how long a recipient has been tried: since its message came, or, if it was held,
// since it was released.
func ageOf(r queue.Record, came, now time.Time, lifetime time.Duration) time.Duration {
	if !r.Expires.IsZero() {
		return lifetime - r.Expires.Sub(now)
	}
	return now.Sub(came)
}

// change commits results that no lease is for.
func (d *Delivery) change(ctx context.Context, results []queue.Result) {
	err := d.Store.Commit(ctx, queue.Batch{Results: results})
	if err == nil {
		return
	}
	if len(results) > 1 && (errors.Is(err, queue.ErrGone) || errors.Is(err, queue.ErrBusy)) {
		for i := range results { // an admin was quicker with one of them: that is not the others' fault
			d.change(ctx, results[i:i+1])
		}
		return
	}
	d.Log.Warn("could not update held and parked mail", "error", err)
}

// giveUp expires the parked recipients of an entry and tells the sender.
func (d *Delivery) giveUp(ctx context.Context, id queue.ID) {
	e, records, err := d.Store.Get(ctx, id)
	if err != nil {
		return
	}
	var b queue.Batch
	var notices []intake.Notice
	var events []trace.Event
	for n, r := range records {
		if r.State != queue.Parked {
			continue
		}
		r.State, r.Status = queue.Expired, mail.Permanent(554, 4, 7, "Delivery time expired: "+r.Reason)
		b.Results = append(b.Results, queue.Result{ID: id, Recipient: n, Record: r})
		notices = append(notices, intake.Notice{Recipient: n, Action: dsn.Expired, Status: r.Status})
		events = append(events, trace.Event{Type: trace.Expired, ID: id.String(), Family: e.Family.String(), To: e.Envelope.Recipients[n].Path.String(), Status: r.Status})
	}
	var reported []trace.Event
	b.Add, reported = d.Intake.Reports(e, notices)
	if err := d.Store.Commit(ctx, b); err != nil {
		d.Log.Warn("could not expire parked mail", "id", id.String(), "error", err)
		return
	}
	for _, e := range append(events, reported...) {
		d.Trace.Record(e)
	}
}

// Unpark makes parked mail due now: a plugin is back, or the rules have changed. It does not
// wait for that, and calls that come together count once.
func (d *Delivery) Unpark() {
	select {
	case d.unpark <- struct{}{}:
	default:
	}
}
