package delivery

import (
	"context"

	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// planned asks what a recipient wants done, if somebody plans for him and nobody has been asked
// before. done says that r is the whole answer; else the message is to be kept as keep says.
func (d *Delivery) planned(ctx context.Context, rules Rules, e *queue.Entry, n int) (keep queue.Keep, r result, done bool) {
	to := e.Envelope.Recipients[n].Path
	planner := ""
	if e.Keep != nil {
		return *e.Keep, r, false
	} else if planner = rules.planner(to); planner == "" {
		return keep, r, false
	}
	out, err := d.Expand.Plan(ctx, planner, e, n)
	if out := d.convicted(planner, e, n, err); out != nil {
		r.Status, r.expanded = out.Record.Status, out
		return keep, r, true
	}
	if err != nil {
		d.Log.Warn("no plan for a recipient", "id", e.ID.String(), "plugin", planner, "to", to.String(), "error", err)
		r.Status = mail.Temporary(451, 3, 0, "Recipient's rules cannot be carried out now")
		return keep, r, true
	}
	if out.Record.State != 0 {
		r.final, r.Status, r.expanded = true, out.Record.Status, out
		if r.Status.IsZero() {
			r.Status = mail.OK(250, 0, 0, "Carried out the recipient's rules")
		}
		return keep, r, true
	}
	r.events = out.Events
	return out.Keep, r, false
}

// local does what a local recipient wants done.
func (d *Delivery) local(ctx context.Context, rules Rules, mailbox string, e *queue.Entry, n int, fresh bool) result {
	keep, r, done := d.planned(ctx, rules, e, n)
	r.final = true
	if done {
		return r
	}
	var err error
	r.Status, err = d.Mailbox.Deliver(ctx, mailbox, e, n, keep, fresh)
	if r.Status.Permanent() && keep.Folder != "" {
		// RFC 5228 §2.10.6: what a script cannot file is kept, not returned.
		d.Log.Warn("not kept in the folder, but in the inbox", "id", e.ID.String(), "folder", keep.Folder, "status", r.Status.Error())
		keep.Folder = ""
		r.Status, err = d.Mailbox.Deliver(ctx, mailbox, e, n, keep, fresh)
	}
	if out := d.convicted(mailbox, e, n, err); out != nil {
		r.Status, r.expanded = out.Record.Status, out
	}
	return r
}

// convicted holds a message, for one recipient, of which a plugin died, the second time alone:
// trying again would kill again. It returns nil where err says something else.
func (d *Delivery) convicted(plugin string, e *queue.Entry, n int, err error) *expand.Outcome {
	stack, ok := pipeline.Stack(err)
	if !ok {
		return nil
	}
	held, events := d.Intake.Convicted(e, n, plugin, stack)
	out := &expand.Outcome{Add: []queue.Add{held}, Events: events}
	out.Record.State, out.Record.Reason = queue.Replaced, "held as "+held.Entry.ID.String()
	out.Record.Status = mail.OK(250, 0, 0, "Held")
	return out
}
