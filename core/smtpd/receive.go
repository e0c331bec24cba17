package smtpd

import (
	"context"
	"io"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/core/smtpd/wire"
	"github.com/postern-mail/postern/sdk/mail"
)

// backend is the session as go-smtp calls it.
type backend struct{ s *session }

// Mail begins a transaction.
func (b backend) Mail(string, *smtp.MailOptions) (err error) {
	s := b.s
	defer s.guard(&err)
	e := s.envelope()
	st := s.policy.Mail(s.ctx, &s.client, s.mail.Reverse, s.mail.Size)
	if p, ok := s.policy.(EnvelopePolicy); ok && !refused(st) {
		st = p.Begin(s.ctx, e, s.mail.Size)
	}
	if refused(st) {
		s.log.Info("sender refused", "client", s.client.Addr, "from", s.mail.Reverse.String(), "status", st.Error())
		return smtpError(st)
	}
	s.env = e
	return nil
}

// Rcpt adds a recipient to it.
func (b backend) Rcpt(string, *smtp.RcptOptions) (err error) {
	s := b.s
	defer s.guard(&err)
	if st := s.policy.Recipient(s.ctx, s.env, s.rcpt.Forward); refused(st) {
		s.refused++
		s.log.Info("recipient refused", "client", s.client.Addr, "from", s.env.ReversePath.String(), "to", s.rcpt.Forward.String(), "status", st.Error())
		return smtpError(st)
	}
	s.env.Recipients = append(s.env.Recipients, mail.Recipient{Path: s.rcpt.Forward, Notify: s.rcpt.Notify, ORCPT: s.rcpt.ORCPT})
	return nil
}

// Data receives the message. It reads from the session: the reader that go-smtp offers
// only has the final dot.
func (b backend) Data(io.Reader) (err error) {
	s := b.s
	defer s.guard(&err)
	if s.w.Flush() != nil {
		s.aborted = true
		return nil
	}
	n := len(s.env.Recipients)
	s.env.Size = 0
	statuses := s.receive(n)
	switch {
	case len(statuses) == 0:
		s.aborted = true
	case s.server.opt.Role != LMTP:
		statuses = statuses[:1]
	case len(statuses) == 1:
		for len(statuses) < n { // RFC 2033 §4.2: one reply for each recipient
			statuses = append(statuses, statuses[0])
		}
	}
	s.final = statuses
	if len(statuses) > 0 && statuses[0].Success() {
		s.errors, s.junk = 0, 0
	}
	return nil
}

// receive hands the message to Intake and returns what to say about it; nothing if there
// is nobody to hear it.
func (s *session) receive(recipients int) []mail.Status {
	body := s.body
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	body.OnEnd(func() { stop() })

	receipt, err := Receipt{}, error(nil)
	if body.Err() == nil {
		receipt, err = s.server.opt.Intake.Receive(ctx, s.env, body)
	}
	fault := body.Err()
	if err == nil && fault == nil {
		s.log.Error("message was not read to its end", "client", s.client.Addr)
	}
	if end := body.Skip(); end != nil {
		// What comes next may be the rest of the message: no more commands.
		if fault == nil && err == nil || end == fault {
			fault = end
		}
		s.ended, s.linger = true, true
	}
	return s.outcome(receipt, err, fault, recipients)
}

// outcome folds how reading ended (fault) and what Intake said into the replies.
func (s *session) outcome(receipt Receipt, err, fault error, recipients int) []mail.Status {
	switch fault {
	case wire.ErrEnd, nil:
	case wire.ErrAborted:
		return nil
	case wire.ErrTooLarge:
		return one(mail.Permanent(552, 3, 4, "Message is too large"))
	case wire.ErrDataLine:
		return one(mail.Permanent(554, 6, 0, "Message has a line that is too long"))
	case wire.ErrBareCR, wire.ErrBareLF, wire.ErrNUL:
		s.log.Info("message refused", "client", s.client.Addr, "from", s.env.ReversePath.String(), "reason", fault.Error())
		return one(mail.Permanent(554, 6, 0, "Message refused: "+fault.Error()))
	default:
		s.log.Info("connection lost in a message", "client", s.client.Addr, "from", s.env.ReversePath.String(), "error", fault.Error())
		s.lost(fault)
		return nil
	}
	switch {
	case err != nil:
		st := mail.StatusOf(err)
		if st.Success() {
			st = mail.StatusOf(io.ErrUnexpectedEOF)
		}
		s.log.Info("message refused", "client", s.client.Addr, "from", s.env.ReversePath.String(), "status", st.Error(), "error", err.Error())
		return one(st)
	case fault == nil:
		return one(mail.StatusOf(io.ErrUnexpectedEOF))
	case s.server.opt.Role == LMTP && len(receipt.PerRecipient) == recipients:
		return receipt.PerRecipient
	case receipt.Reply.IsZero():
		return one(mail.OK(250, 0, 0, "Ok: queued as "+receipt.ID))
	}
	return one(receipt.Reply)
}

func one(st mail.Status) []mail.Status { return []mail.Status{st} }

// envelope begins the envelope of a transaction.
func (s *session) envelope() *mail.Envelope {
	m := &s.mail
	e := &mail.Envelope{
		Origin: mail.Incoming, ReversePath: m.Reverse, BodyType: m.Body, UTF8: m.UTF8,
		RequireTLS: m.RequireTLS, Return: m.Return, EnvelopeID: m.EnvelopeID, Client: s.client, Size: m.Size,
	}
	if s.client.Class != mail.Stranger || s.server.opt.Role == Submission {
		e.Origin = mail.Submitted
	}
	e.Client.Protocol = s.protocol(m.UTF8)
	return e
}

// protocol is the "with" word of Received (RFC 3848, RFC 6531 §4.3).
func (s *session) protocol(utf8 bool) string {
	word := "SMTP"
	switch {
	case s.server.opt.Role == LMTP:
		word = "LMTP"
	case !s.extended:
		return word
	case !utf8:
		word = "ESMTP"
	}
	if utf8 {
		word = "UTF8" + word
	}
	if s.secure {
		word += "S"
	}
	if s.client.User != "" {
		word += "A"
	}
	return word
}

// guard turns a panic into the end of the session.
func (s *session) guard(err *error) {
	if r := recover(); r != nil {
		s.panicked(r)
		s.aborted = true
		*err = smtpError(mail.Temporary(421, 3, 0, "Internal error"))
	}
}

// Reset ends the transaction.
func (b backend) Reset() { b.s.reset() }

// Logout has nothing to free.
func (b backend) Logout() error { return nil }

// AuthMechanisms is what go-smtp would offer; the offer is ours.
func (b backend) AuthMechanisms() []string { return nil }

// Auth begins an exchange.
func (b backend) Auth(mechanism string) (sasl.Server, error) {
	return &exchange{s: b.s, mechanism: mechanism}, nil
}

func smtpError(st mail.Status) error {
	return &smtp.SMTPError{Code: st.Code, EnhancedCode: smtp.EnhancedCode(st.Enhanced), Message: st.Text}
}

var _ smtp.AuthSession = backend{}
