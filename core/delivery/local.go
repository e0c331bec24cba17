package delivery

import (
	"context"

	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
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
	if d.Convictions.Barred(planner, e.Envelope.Client, d.Clock()) {
		r.notShown(planner, e)
		return keep, r, true
	}
	out, err := d.Expand.Plan(ctx, planner, e, n)
	if d.convicted(&r, planner, e, n, err) {
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
	if d.Convictions.Barred(mailbox, e.Envelope.Client, d.Clock()) {
		r.notShown(mailbox, e)
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
	d.convicted(&r, mailbox, e, n, err)
	return r
}

// convicted holds a message, for one recipient, of which a plugin died, the second time alone:
// trying again would kill again. It reports whether err says so.
func (d *Delivery) convicted(r *result, plugin string, e *queue.Entry, n int, err error) bool {
	stack, guilty := pipeline.Stack(err)
	if !guilty {
		return false
	}
	if !d.Convictions.Add(plugin, e.Envelope.Client, d.Clock()) {
		r.notShown(plugin, e)
		return true
	}
	held, events := d.Intake.Convicted(e, n, plugin, stack)
	out := &expand.Outcome{Add: []queue.Add{held}, Events: events}
	out.Record.State, out.Record.Reason = queue.Replaced, "held as "+held.Entry.ID.String()
	out.Record.Status = mail.OK(250, 0, 0, "Held")
	r.Status, r.expanded = out.Record.Status, out
	return true
}

// notShown puts a delivery off: the plugin died of too many messages of this client, which
// could keep it dying. Later the client has another share.
func (r *result) notShown(plugin string, e *queue.Entry) {
	r.Status = mail.Temporary(451, 3, 0, "Cannot be delivered now")
	r.events = append(r.events, trace.Event{Type: trace.Plugin, ID: e.ID.String(), Family: e.Family.String(), Plugin: plugin, Action: "not asked", Reason: pipeline.NotShown(plugin)})
}
