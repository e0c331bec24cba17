package smtpd

import (
	"bytes"

	"github.com/postern-mail/postern/core/smtpcmd"
	"github.com/postern-mail/postern/sdk/mail"
)

// dispatch answers one command line, or returns it in the form in which go-smtp is to
// answer it.
func (s *session) dispatch(line []byte) feed {
	v, arg, fault := smtpcmd.Parse(line, s.server.opt.Role == LMTP)
	s.verb = v
	if refused(fault) {
		s.reply(fault)
		return feed{}
	}
	switch v {
	case smtpcmd.VerbHelo, smtpcmd.VerbEhlo:
		return s.hello(v, arg)
	case smtpcmd.VerbMail:
		return s.mailFrom(arg)
	case smtpcmd.VerbRcpt:
		return s.rcptTo(arg)
	case smtpcmd.VerbData:
		return s.data(arg)
	case smtpcmd.VerbBdat:
		return s.bdat(arg)
	case smtpcmd.VerbAuth:
		return s.auth(arg)
	case smtpcmd.VerbRset, smtpcmd.VerbQuit:
		return s.plain(v, arg)
	case smtpcmd.VerbStartTLS:
		s.startTLS(arg)
	case smtpcmd.VerbNoop:
		s.junk++
		s.w.Reply("250 2.0.0 Ok")
	case smtpcmd.VerbVrfy:
		s.junk++
		s.w.Reply("252 2.5.0 Cannot verify, but will take mail for valid recipients")
	case smtpcmd.VerbUnimplemented:
		s.reply(mail.Permanent(502, 5, 1, "Command not implemented"))
	case smtpcmd.VerbForeign:
		word, _, _ := bytes.Cut(line, []byte{' '})
		s.log.Warn("not an SMTP client", "client", s.client.Addr, "verb", string(word))
		s.end(mail.Permanent(554, 5, 0, "This is an SMTP server"))
	default:
		s.reply(mail.Permanent(500, 5, 2, "Command not recognized"))
	}
	return feed{}
}

func (s *session) hello(v smtpcmd.Verb, arg string) feed {
	if v == smtpcmd.VerbHelo && s.server.opt.Role == LMTP {
		s.reply(mail.Permanent(500, 5, 2, "This is LMTP, use LHLO"))
		return feed{}
	}
	name, fault := smtpcmd.ParseHello(arg)
	if refused(fault) {
		s.reply(fault)
		return feed{}
	}
	if s.greeted {
		s.junk++
	}
	s.client.Helo = name
	if p, ok := s.policy.(HelloPolicy); ok {
		if st := p.Hello(s.ctx, &s.client); refused(st) {
			s.reply(st)
			return feed{}
		}
	}
	s.greeted, s.extended = true, v == smtpcmd.VerbEhlo
	if v == smtpcmd.VerbHelo {
		return feed{v, "HELO client\r\n"}
	}
	return feed{v, "EHLO client\r\n"}
}

// plain is for RSET and QUIT.
func (s *session) plain(v smtpcmd.Verb, arg string) feed {
	if arg != "" {
		s.reply(mail.Permanent(501, 5, 4, "No parameters here"))
		return feed{}
	}
	if v == smtpcmd.VerbQuit {
		return feed{v, "QUIT\r\n"}
	}
	s.junk++
	return feed{v, "RSET\r\n"}
}

// mayMail reports whether MAIL and what follows it are allowed now, and answers if not.
func (s *session) mayMail() bool {
	o := &s.server.opt
	switch {
	case o.TLS == TLSRequired && !s.secure:
		s.reply(mail.Permanent(530, 7, 0, "Must issue a STARTTLS command first"))
	case !s.greeted:
		s.reply(mail.Permanent(503, 5, 1, "Say hello first"))
	case o.Auth == AuthRequired && s.client.User == "":
		s.reply(mail.Permanent(530, 7, 0, "Authentication required"))
	default:
		return true
	}
	return false
}

func (s *session) mailFrom(arg string) feed {
	if !s.mayMail() {
		return feed{}
	}
	if s.env != nil {
		s.reply(mail.Permanent(503, 5, 1, "A transaction is under way"))
		return feed{}
	}
	m, st := smtpcmd.ParseMail(arg, s.extensions())
	if !refused(st) && m.Size > s.server.opt.Limits.MessageSize {
		st = mail.Permanent(552, 3, 4, "Message is too large") // RFC 1870 §6.1
	}
	if refused(st) {
		s.reply(st)
		return feed{}
	}
	s.mail = m
	return feed{smtpcmd.VerbMail, "MAIL FROM:<>\r\n"}
}

func (s *session) rcptTo(arg string) feed {
	if !s.mayMail() {
		return feed{}
	}
	if s.env == nil || s.body != nil {
		s.reply(mail.Permanent(503, 5, 1, "MAIL first"))
		return feed{}
	}
	r, st := smtpcmd.ParseRcpt(arg, s.server.opt.Hostname, s.env.UTF8, s.extensions())
	if !refused(st) && len(s.env.Recipients) >= s.server.opt.Limits.Recipients {
		st = mail.Temporary(452, 5, 3, "Too many recipients") // RFC 5321 §4.5.3.1.10
	}
	if refused(st) {
		s.refused++
		s.reply(st)
		return feed{}
	}
	s.rcpt = r
	return feed{smtpcmd.VerbRcpt, "RCPT TO:<recipient@client>\r\n"}
}

// mayData reports whether a message may follow, and answers if not.
func (s *session) mayData() bool {
	switch {
	case !s.mayMail():
	case s.env == nil:
		s.reply(mail.Permanent(503, 5, 1, "MAIL first"))
	case len(s.env.Recipients) > 0:
		return true
	case s.refused > 0:
		s.reply(mail.Permanent(554, 5, 1, "No valid recipients"))
	default:
		s.reply(mail.Permanent(503, 5, 1, "RCPT first"))
	}
	return false
}

func (s *session) data(arg string) feed {
	// RFC 2920 §3.1: DATA is the last of its group. Whoever sends a message without
	// waiting for 354 does not look at replies, and may have had it led here by others.
	if s.body == nil && s.w.Unread() {
		s.log.Warn("client does not wait for replies", "client", s.client.Addr)
		s.end(mail.Permanent(554, 5, 0, "Improper command pipelining"))
		return feed{}
	}
	switch {
	case arg != "":
		s.reply(mail.Permanent(501, 5, 4, "No parameters here"))
	case s.body != nil:
		s.reply(mail.Permanent(503, 5, 1, "BDAT is under way"))
	case s.mayData():
		s.body = s.w.Data(&s.server.message)
		return feed{smtpcmd.VerbData, "DATA\r\n"}
	}
	return feed{}
}

func (s *session) startTLS(arg string) {
	switch {
	case arg != "":
		s.reply(mail.Permanent(501, 5, 4, "No parameters here"))
	case s.secure:
		s.reply(mail.Permanent(503, 5, 1, "Already inside TLS"))
	case !s.startTLSOffered():
		s.reply(mail.Permanent(502, 5, 1, "Command not implemented"))
	case s.body != nil:
		s.reply(mail.Permanent(503, 5, 1, "BDAT is under way"))
	case s.w.Buffered():
		// RFC 3207 §4.2: what came in the clear must not be read as if it came inside TLS.
		s.log.Warn("commands after STARTTLS in the clear", "client", s.client.Addr)
		s.ended = true
	default:
		s.w.Reply("220 2.0.0 Ready to start TLS")
		state, err := s.w.StartTLS(s.ctx, s.server.opt.TLSConfig)
		if err != nil {
			s.log.Info("TLS handshake failed", "client", s.client.Addr, "error", err.Error())
			s.ended = true
			return
		}
		s.secured(state)
	}
}

func refused(st mail.Status) bool { return !st.IsZero() && !st.Success() }
