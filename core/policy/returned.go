package policy

import (
	"github.com/postern-mail/postern/sdk/mail"
)

// returned answers for an address under which we have sent on somebody's mail: it takes
// reports about that, which have the null reverse-path, and nothing else. ours is false if
// rcpt is no such address.
func (p *Policy) returned(e *mail.Envelope, rcpt mail.Path) (ours bool, s mail.Status) {
	if p.Returned == nil {
		return false, s
	}
	ours, s = p.Returned(rcpt)
	if ours && s.IsZero() && !e.ReversePath.IsZero() {
		s = mail.Permanent(550, 7, 1, "This address takes delivery reports only")
	}
	return ours, s
}
