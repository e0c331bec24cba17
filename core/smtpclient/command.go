package smtpclient

import (
	"github.com/postern-mail/postern/core/smtpcmd"
	"github.com/postern-mail/postern/sdk/mail"
)

// mail is the MAIL command with the parameters that the peer knows.
//
// A body with octets above 127 goes to a peer without 8BITMIME as it is, without BODY:
// servers that lack the extension today are practically all 8-bit clean, to strip bits
// would destroy the message, and to re-encode it would break its signatures (RFC 6152 §3
// would have us bounce or convert).
func (x *transaction) mail() *smtpcmd.Mail {
	env := x.job.Envelope
	m := &smtpcmd.Mail{Reverse: env.ReversePath, UTF8: x.utf8, RequireTLS: env.RequireTLS && x.ext.requireTLS && x.tls}
	if x.ext.size > 0 {
		m.Size = int64(len(x.job.Header.Block())) + x.job.Body.Size
	}
	if x.ext.eightBit {
		m.Body = env.BodyType
	}
	if x.ext.dsn {
		m.Return, m.EnvelopeID = env.Return, env.EnvelopeID
	}
	return m
}

// rcpt is a RCPT command.
func (x *transaction) rcpt(r *mail.Recipient) *smtpcmd.Rcpt {
	if !x.ext.dsn {
		return &smtpcmd.Rcpt{Forward: r.Path}
	}
	return &smtpcmd.Rcpt{Forward: r.Path, Notify: r.Notify, ORCPT: r.ORCPT}
}
