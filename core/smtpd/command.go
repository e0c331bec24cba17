package smtpd

import (
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
)

type verb uint8

const (
	verbUnknown verb = iota
	verbHelo
	verbEhlo // LHLO as well
	verbMail
	verbRcpt
	verbData
	verbBdat
	verbRset
	verbQuit
	verbAuth
	verbStartTLS
	verbNoop
	verbVrfy
	verbUnimplemented
	verbForeign // another protocol's
)

// verbOf knows the verbs of RFC 5321 §4.1.1 and its extensions, and those of other
// protocols that are led here to make us say or do something (cross-protocol attacks).
func verbOf(word []byte, lmtp bool) verb {
	var upper [8]byte
	if len(word) > len(upper) {
		return verbUnknown
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	switch string(upper[:len(word)]) {
	case "HELO":
		return verbHelo
	case "EHLO":
		if lmtp {
			return verbUnknown
		}
		return verbEhlo
	case "LHLO":
		if !lmtp {
			return verbUnknown
		}
		return verbEhlo
	case "MAIL":
		return verbMail
	case "RCPT":
		return verbRcpt
	case "DATA":
		return verbData
	case "BDAT":
		return verbBdat
	case "RSET":
		return verbRset
	case "QUIT":
		return verbQuit
	case "AUTH":
		return verbAuth
	case "STARTTLS":
		return verbStartTLS
	case "NOOP":
		return verbNoop
	case "VRFY":
		return verbVrfy
	case "EXPN", "HELP", "SEND", "SOML", "SAML", "TURN", "ETRN":
		return verbUnimplemented
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PROXY", "HOST:":
		return verbForeign
	}
	return verbUnknown
}

// dispatch answers one command line, or returns it in the form in which go-smtp is to
// answer it.
func (s *session) dispatch(line []byte) feed {
	s.verb = verbUnknown
	if fault, ok := lineFault(line); !ok {
		s.reply(fault)
		return feed{}
	}
	word, arg := line, ""
	for i, c := range line {
		if c == ' ' {
			word, arg = line[:i], strings.Trim(string(line[i:]), " ")
			break
		}
	}
	v := verbOf(word, s.server.opt.Role == LMTP)
	s.verb = v
	switch v {
	case verbHelo, verbEhlo:
		return s.hello(v, arg)
	case verbMail:
		return s.mailFrom(arg)
	case verbRcpt:
		return s.rcptTo(arg)
	case verbData:
		return s.data(arg)
	case verbBdat:
		return s.bdat(arg)
	case verbAuth:
		return s.auth(arg)
	case verbRset, verbQuit:
		return s.plain(v, arg)
	case verbStartTLS:
		s.startTLS(arg)
	case verbNoop:
		s.junk++
		s.line("250 2.0.0 Ok")
	case verbVrfy:
		s.junk++
		s.line("252 2.5.0 Cannot verify, but will take mail for valid recipients")
	case verbUnimplemented:
		s.reply(mail.Permanent(502, 5, 1, "Command not implemented"))
	case verbForeign:
		s.log.Warn("not an SMTP client", "client", s.client.Addr, "verb", string(word))
		s.end(mail.Permanent(554, 5, 0, "This is an SMTP server"))
	default:
		s.reply(mail.Permanent(500, 5, 2, "Command not recognized"))
	}
	return feed{}
}

// lineFault refuses characters that no command has.
func lineFault(line []byte) (mail.Status, bool) {
	ascii := true
	for _, c := range line {
		switch {
		case c == '\r':
			return mail.Permanent(500, 5, 2, "Lines must end in CRLF"), false
		case c < ' ' || c == 0x7f:
			return mail.Permanent(501, 5, 2, "Control character in a command"), false
		case c >= 0x80:
			ascii = false
		}
	}
	if !ascii && !utf8.Valid(line) {
		return mail.Permanent(501, 5, 2, "Command is not valid UTF-8"), false
	}
	return mail.Status{}, true
}

func (s *session) hello(v verb, arg string) feed {
	if v == verbHelo && s.server.opt.Role == LMTP {
		s.reply(mail.Permanent(500, 5, 2, "This is LMTP, use LHLO"))
		return feed{}
	}
	name, _, _ := strings.Cut(arg, " ")
	if !isHelo(name) {
		s.reply(mail.Permanent(501, 5, 2, "A host name or address literal is needed"))
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
	s.greeted, s.extended = true, v == verbEhlo
	if v == verbHelo {
		return feed{v, "HELO client\r\n"}
	}
	return feed{v, "EHLO client\r\n"}
}

// isHelo accepts more than host names, because many honest clients send something else,
// but nothing that could end a comment or a quoted string in a Received field.
func isHelo(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>"\,;`, c) >= 0 {
			return false
		}
	}
	return true
}

// plain is for RSET and QUIT.
func (s *session) plain(v verb, arg string) feed {
	if arg != "" {
		s.reply(mail.Permanent(501, 5, 4, "No parameters here"))
		return feed{}
	}
	if v == verbQuit {
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
	a, st := s.parseMail(arg)
	if refused(st) {
		s.reply(st)
		return feed{}
	}
	s.mail = a
	return feed{verbMail, "MAIL FROM:<>\r\n"}
}

func (s *session) rcptTo(arg string) feed {
	if !s.mayMail() {
		return feed{}
	}
	if s.env == nil || s.body != nil {
		s.reply(mail.Permanent(503, 5, 1, "MAIL first"))
		return feed{}
	}
	a, st := s.parseRcpt(arg)
	if !refused(st) && len(s.env.Recipients) >= s.server.opt.Limits.Recipients {
		st = mail.Temporary(452, 5, 3, "Too many recipients") // RFC 5321 §4.5.3.1.10
	}
	if refused(st) {
		s.refused++
		s.reply(st)
		return feed{}
	}
	s.rcpt = a
	return feed{verbRcpt, "RCPT TO:<recipient@client>\r\n"}
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
	if s.body == nil && s.w.unread() {
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
		s.body = &body{s: s}
		s.body.dec.dots = true
		return feed{verbData, "DATA\r\n"}
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
	case s.w.r < s.w.w:
		// RFC 3207 §4.2: what came in the clear must not be read as if it came inside TLS.
		s.log.Warn("commands after STARTTLS in the clear", "client", s.client.Addr)
		s.ended = true
	default:
		s.line("220 2.0.0 Ready to start TLS")
		conn, err := s.w.startTLS(s.ctx, s.server.opt.TLSConfig)
		if err != nil {
			s.log.Info("TLS handshake failed", "client", s.client.Addr, "error", err.Error())
			s.ended = true
			return
		}
		s.secured(conn)
	}
}

func refused(st mail.Status) bool { return !st.IsZero() && !st.Success() }
