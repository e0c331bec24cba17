package smtpd

import (
	"strconv"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// maxReply is the greatest length of a reply line with its CRLF (RFC 5321 §4.5.3.1.5).
const maxReply = 512

// answer turns a reply of go-smtp into ours. Its texts may quote the client; ours do not.
func (s *session) answer(p []byte) {
	code, _ := strconv.Atoi(string(p[:3]))
	switch {
	case code == 354:
		s.expect = expectDot
		if !s.body.chunked {
			s.line("354 End data with <CR><LF>.<CR><LF>")
		}
	case code == 334:
		s.expect = expectResponse
		s.line(string(trimEnd(p)))
	case s.aborted:
		s.aborted = false
	case s.final != nil:
		for _, st := range s.final {
			s.reply(st)
		}
		s.final = nil
	case code == 220:
		s.line("220 " + s.server.opt.Hostname + " " + s.server.protocol())
	case code == 250 && (s.verb == verbHelo || s.verb == verbEhlo):
		s.welcome()
	case code == 250 && s.verb == verbMail:
		s.line("250 2.1.0 Ok")
	case code == 250 && s.verb == verbRcpt:
		s.line("250 2.1.5 Ok")
	case code == 250:
		s.line("250 2.0.0 Ok")
	case code == 221:
		s.line("221 2.0.0 Bye")
	case code == 235:
		s.line("235 2.7.0 Authentication successful")
	case s.badReply:
		s.badReply = false
		s.reply(mail.Permanent(501, 5, 2, "Invalid base64"))
	case code == 502:
		s.reply(mail.Permanent(503, 5, 1, "Bad sequence of commands"))
	default:
		s.counted(code)
		s.line(string(trimEnd(p)))
	}
}

// welcome answers HELO, EHLO and LHLO.
func (s *session) welcome() {
	o := &s.server.opt
	if s.verb == verbHelo {
		s.line("250 " + o.Hostname)
		return
	}
	s.line("250-" + o.Hostname)
	s.line("250-PIPELINING")
	s.line("250-8BITMIME")
	s.line("250-SMTPUTF8")
	s.line("250-CHUNKING")
	if s.startTLSOffered() {
		s.line("250-STARTTLS")
	}
	if s.authOffered() {
		auth := "250-AUTH"
		for _, m := range o.Authenticator.Mechanisms() {
			auth += " " + m
		}
		s.line(auth)
	}
	if o.DSN {
		s.line("250-DSN")
	}
	if s.requireTLSOffered() {
		s.line("250-REQUIRETLS")
	}
	s.line("250-LIMITS RCPTMAX=" + strconv.Itoa(o.Limits.Recipients))
	s.line("250-SIZE " + strconv.FormatInt(o.Limits.MessageSize, 10))
	s.line("250 ENHANCEDSTATUSCODES")
}

func (s *session) startTLSOffered() bool {
	return !s.secure && (s.server.opt.TLS == TLSStart || s.server.opt.TLS == TLSRequired)
}

func (s *session) authOffered() bool { return s.secure && s.server.opt.Auth != AuthOff }

func (s *session) requireTLSOffered() bool { return s.secure && s.server.opt.RequireTLS }

// reply says a status.
func (s *session) reply(st mail.Status) {
	s.counted(st.Code)
	if st.Code == 421 {
		s.ended = true
	}
	s.line(strconv.Itoa(st.Code) + " " + st.EnhancedString() + " " + st.Text)
}

// counted keeps count of errors, and slows down who makes many.
func (s *session) counted(code int) {
	if code == 421 {
		s.ended = true
	}
	// Whoever we relay for may have a list with bad addresses.
	if code < 500 || s.verb == verbRcpt && s.client.Class != mail.Stranger {
		return
	}
	s.errors++
	if delay := s.w.timeouts.Delay; delay > 0 && s.errors >= 3 {
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
		}
	}
}

// line appends one reply line to the output: printable, one line, at most 512 octets.
func (s *session) line(text string) {
	if s.w.dead != nil {
		return
	}
	if len(text) > maxReply-2 {
		text = text[:maxReply-2]
	}
	start := len(s.w.out)
	s.w.out = append(s.w.out, text...)
	for i, c := range s.w.out[start:] {
		if c < ' ' || c >= 0x7f {
			s.w.out[start+i] = '?' // a status may quote UTF-8; not every client can read it
		}
	}
	s.w.out = append(s.w.out, '\r', '\n')
	if len(s.w.out) > outMax {
		s.w.flush()
	}
}

func trimEnd(p []byte) []byte {
	for len(p) > 0 && (p[len(p)-1] == '\n' || p[len(p)-1] == '\r') {
		p = p[:len(p)-1]
	}
	return p
}
