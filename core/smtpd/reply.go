package smtpd

import (
	"strconv"
	"time"

	"github.com/postern-mail/postern/core/smtpcmd"
	"github.com/postern-mail/postern/sdk/mail"
)

// answer turns a reply of go-smtp into ours. Its texts may quote the client; ours do not.
func (s *session) answer(p []byte) {
	code, _ := strconv.Atoi(string(p[:3]))
	switch {
	case code == 354:
		s.expect = expectDot
		if !s.body.Chunked() {
			s.w.Reply("354 End data with <CR><LF>.<CR><LF>")
		}
	case code == 334:
		s.expect = expectResponse
		s.w.Reply(string(trimEnd(p)))
	case s.aborted:
		s.aborted = false
	case s.final != nil:
		for _, st := range s.final {
			s.reply(st)
		}
		s.final = nil
	case code == 220:
		s.w.Reply("220 " + s.server.opt.Hostname + " " + s.server.protocol())
	case code == 250 && (s.verb == smtpcmd.VerbHelo || s.verb == smtpcmd.VerbEhlo):
		s.welcome()
	case code == 250 && s.verb == smtpcmd.VerbMail:
		s.w.Reply("250 2.1.0 Ok")
	case code == 250 && s.verb == smtpcmd.VerbRcpt:
		s.w.Reply("250 2.1.5 Ok")
	case code == 250:
		s.w.Reply("250 2.0.0 Ok")
	case code == 221:
		s.w.Reply("221 2.0.0 Bye")
	case code == 235:
		s.w.Reply("235 2.7.0 Authentication successful")
	case s.badReply:
		s.badReply = false
		s.reply(mail.Permanent(501, 5, 2, "Invalid base64"))
	case code == 502:
		s.reply(mail.Permanent(503, 5, 1, "Bad sequence of commands"))
	default:
		s.counted(code)
		s.w.Reply(string(trimEnd(p)))
	}
}

// welcome answers HELO, EHLO and LHLO.
func (s *session) welcome() {
	o := &s.server.opt
	if s.verb == smtpcmd.VerbHelo {
		s.w.Reply("250 " + o.Hostname)
		return
	}
	s.w.Reply("250-" + o.Hostname)
	s.w.Reply("250-PIPELINING")
	s.w.Reply("250-8BITMIME")
	s.w.Reply("250-SMTPUTF8")
	s.w.Reply("250-CHUNKING")
	if s.startTLSOffered() {
		s.w.Reply("250-STARTTLS")
	}
	if s.authOffered() {
		auth := "250-AUTH"
		for _, m := range o.Authenticator.Mechanisms() {
			auth += " " + m
		}
		s.w.Reply(auth)
	}
	if o.DSN {
		s.w.Reply("250-DSN")
	}
	if s.requireTLSOffered() {
		s.w.Reply("250-REQUIRETLS")
	}
	s.w.Reply("250-LIMITS RCPTMAX=" + strconv.Itoa(o.Limits.Recipients))
	s.w.Reply("250-SIZE " + strconv.FormatInt(o.Limits.MessageSize, 10))
	s.w.Reply("250 ENHANCEDSTATUSCODES")
}

func (s *session) startTLSOffered() bool {
	return !s.secure && (s.server.opt.TLS == TLSStart || s.server.opt.TLS == TLSRequired)
}

func (s *session) authOffered() bool { return s.secure && s.server.opt.Auth != AuthOff }

func (s *session) requireTLSOffered() bool { return s.secure && s.server.opt.RequireTLS }

// extensions are those whose parameters are taken.
func (s *session) extensions() smtpcmd.Extensions {
	o := &s.server.opt
	return smtpcmd.Extensions{DSN: o.DSN, Auth: o.Auth != AuthOff, RequireTLS: s.requireTLSOffered()}
}

// reply says a status.
func (s *session) reply(st mail.Status) {
	s.counted(st.Code)
	if st.Code == 421 {
		s.ended = true
	}
	s.w.Reply(strconv.Itoa(st.Code) + " " + st.EnhancedString() + " " + st.Text)
}

// counted keeps count of errors, and slows down who makes many.
func (s *session) counted(code int) {
	if code == 421 {
		s.ended = true
	}
	// Whoever we relay for may have a list with bad addresses.
	if code < 500 || s.verb == smtpcmd.VerbRcpt && s.client.Class != mail.Stranger {
		return
	}
	s.errors++
	if delay := s.server.opt.Timeouts.Delay; delay > 0 && s.errors >= 3 {
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
		}
	}
}

func trimEnd(p []byte) []byte {
	for len(p) > 0 && (p[len(p)-1] == '\n' || p[len(p)-1] == '\r') {
		p = p[:len(p)-1]
	}
	return p
}
