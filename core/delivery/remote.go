package delivery

import (
	"context"
	"slices"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/sdk/mail"
)

// remote hands a share to another host. Where it is a server behind us, what its recipients
// want done is done first; a folder is the detail of an address there, if the rules say so.
func (d *Delivery) remote(ctx context.Context, rules Rules, s share, e *queue.Entry) []result {
	results := make([]result, len(s.numbers))
	env := e.Envelope
	var left []int  // places of those that are to be handed over
	var filed []int // places of those among them for whom that is into a folder
	for i, n := range s.numbers {
		keep, r, done := d.planned(ctx, rules, e, n)
		results[i] = r
		if done {
			continue
		}
		left = append(left, i)
		if rules.Subaddress == nil || keep.Folder == "" {
			continue
		}
		if to, ok := rules.Subaddress(env.Recipients[n].Path, keep.Folder); ok {
			if len(filed) == 0 {
				env.Recipients = slices.Clone(env.Recipients)
			}
			env.Recipients[n].Path = to
			filed = append(filed, i)
		}
	}
	d.relay(ctx, s, e, &env, left, results)
	var again []int
	for _, i := range filed {
		if n := s.numbers[i]; results[i].Status.Permanent() {
			// RFC 5228 §2.10.6: what a script cannot file is kept, not returned.
			d.Log.Warn("not kept in the folder, but in the inbox", "id", e.ID.String(), "to", env.Recipients[n].Path.String(), "status", results[i].Status.Error())
			again = append(again, i)
		}
	}
	d.relay(ctx, s, e, &e.Envelope, again, results)
	return results
}

// relay hands some recipients of a share over, under their addresses in env.
func (d *Delivery) relay(ctx context.Context, s share, e *queue.Entry, env *mail.Envelope, places []int, results []result) {
	if len(places) == 0 {
		return
	}
	job := &smtpclient.Job{Route: s.route, Envelope: env, Header: e.Header, Body: e.Body,
		BeforeDot: func(ctx context.Context) error { return ctx.Err() }} // a lost lease ends ctx
	for _, i := range places {
		job.Recipients = append(job.Recipients, s.numbers[i])
	}
	for k, r := range d.SMTP.Attempt(ctx, job) {
		results[places[k]].Result = r
	}
}
