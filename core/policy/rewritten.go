package policy

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
)

// rewritten says whether the client may send to rcpt, or to what is put in its place. An
// address of ours may be rewritten to one elsewhere: then mail for it is sent on.
func (p *Policy) rewritten(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status {
	if p.Rewrite == nil {
		return p.deliverable(ctx, e, rcpt)
	}
	to, err := p.Rewrite(ctx, rcpt)
	if err != nil {
		return p.failed("rewriting", err)
	}
	if to == rcpt {
		return p.deliverable(ctx, e, rcpt)
	}
	_, from, err := p.Directory.Local(ctx, rcpt.Domain)
	if err != nil {
		return p.failed("domain", err)
	}
	_, ours, err := p.Directory.Local(ctx, to.Domain)
	if err != nil {
		return p.failed("domain", err)
	}
	if from && !ours {
		return mail.Status{}
	}
	return p.deliverable(ctx, e, to)
}

// permitted asks whether the sender may send to a recipient, if that is a group.
func (p *Policy) permitted(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status {
	if p.MaySend == nil {
		return mail.Status{}
	}
	err := p.MaySend(ctx, e, rcpt)
	if err == nil {
		return mail.Status{}
	}
	if s := mail.StatusOf(err); s.Permanent() {
		return s
	}
	return p.failed("group", err)
}
