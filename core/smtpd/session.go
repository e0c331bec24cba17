package smtpd

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/smtpcmd"
	"github.com/postern-mail/postern/core/smtpd/wire"
	"github.com/postern-mail/postern/sdk/mail"
)

// session is one connection with a client. To go-smtp it is the connection: Read gives one
// canonical command, Write takes replies. All of it runs on the session's goroutine.
type session struct {
	server *Server
	policy Policy
	w      *wire.Conn
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once // Close
	key    addressKey

	client   mail.Client
	local    bool // it came through a unix socket
	greeted  bool // HELO, EHLO or LHLO was accepted, since TLS began
	extended bool // it was not HELO
	secure   bool // inside TLS

	// The transaction: nil outside of one.
	env     *mail.Envelope
	refused int        // recipients
	body    *wire.Body // the message, from DATA or the first BDAT on
	chunks  int        // of body

	// What go-smtp is at.
	unit     string // what it has still to read
	expect   expectation
	verb     smtpcmd.Verb  // the command that it is answering
	queued   feed          // a command that ended a series of BDAT
	rcpt     smtpcmd.Rcpt  // parsed, for RCPT
	mail     smtpcmd.Mail  // parsed, for MAIL
	final    []mail.Status // the replies to a message, instead of go-smtp's
	aborted  bool          // there is no reply to this message
	badReply bool          // the SASL response was not base64

	errors, junk, authFailures int
	ended                      bool // no more commands are read
	linger                     bool // the client may still be sending
}

type expectation uint8

const (
	expectCommand  expectation = iota
	expectResponse             // 334 was written: a SASL response
	expectDot                  // 354 was written: the end of the message
)

// feed is a command for go-smtp, with its line end.
type feed struct {
	verb smtpcmd.Verb
	text string
}

// Read gives go-smtp what it is to read next; never more than one line.
func (s *session) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			n, err = 0, io.EOF
		}
	}()
	if s.unit == "" {
		if s.unit = s.next(); s.unit == "" {
			return 0, io.EOF
		}
	}
	n = copy(p, s.unit)
	s.unit = s.unit[n:]
	return n, nil
}

// next returns the next line for go-smtp, "" at the end of the session.
func (s *session) next() string {
	expect := s.expect
	s.expect = expectCommand
	switch {
	case expect == expectDot:
		return ".\r\n" // the message itself went past go-smtp
	case s.ended:
		return ""
	case expect == expectResponse:
		return s.saslResponse()
	}
	f := s.queued
	s.queued = feed{}
	if f.text == "" {
		f = s.command()
	}
	s.verb = f.verb
	return f.text
}

// command reads and answers commands until there is one for go-smtp. An empty feed is the
// end of the session.
func (s *session) command() feed {
	limits := &s.server.opt.Limits
	for !s.ended {
		if s.errors >= limits.Errors || s.junk >= limits.Junk || s.authFailures >= limits.AuthFailures {
			s.log.Info("too many errors", "client", s.client.Addr, "errors", s.errors, "junk", s.junk, "auth_failures", s.authFailures)
			s.end(mail.Temporary(421, 7, 0, "Too many errors, closing connection"))
			break
		}
		line, err := s.w.Command(s.server.opt.Timeouts.Command, s.env == nil && s.body == nil)
		if err != nil {
			s.lost(err)
			break
		}
		if f := s.dispatch(line); f.text != "" {
			return f
		}
	}
	return feed{}
}

// lost ends the session because there is no next line or no more of a message.
func (s *session) lost(err error) {
	switch err {
	case wire.ErrLongCommand:
		s.end(mail.Permanent(500, 5, 2, "Line too long"))
	case wire.ErrCommandLF:
		s.end(mail.Permanent(500, 5, 2, "Lines must end in CRLF"))
	case wire.ErrBinary:
		s.end(mail.Permanent(500, 5, 2, "This is an SMTP server"))
	case wire.ErrDraining:
		s.end(mail.Temporary(421, 3, 2, "Shutting down, try again later"))
	case wire.ErrSlow:
		s.end(mail.Temporary(421, 4, 2, "Timeout, closing connection"))
	}
	s.ended = true
}

// end says a last reply and ends the session.
func (s *session) end(st mail.Status) {
	s.reply(st)
	s.ended, s.linger = true, true
}

// Write takes a line of a reply from go-smtp.
func (s *session) Write(p []byte) (int, error) {
	// Only the list of EHLO has more than one line, and that one is ours.
	if len(p) > 3 && p[3] != '-' {
		s.answer(p)
	}
	return len(p), nil
}

// reset ends the transaction.
func (s *session) reset() {
	s.env, s.refused = nil, 0
	if s.body != nil {
		s.body.Release()
		s.body = nil
	}
}

// secured notes that TLS has begun: everything the client said before is forgotten
// (RFC 3207 §4.2).
func (s *session) secured(state tls.ConnectionState) {
	s.secure, s.greeted, s.extended = true, false, false
	s.client.Helo = ""
	s.client.TLS = strings.Replace(tls.VersionName(state.Version), " ", "", 1) + " " + tls.CipherSuiteName(state.CipherSuite)
	s.reset()
}

// panicked ends the session after a panic of what is behind an interface, or of our own.
func (s *session) panicked(r any) {
	s.log.Error("panic in a session", "client", s.client.Addr, "panic", r, "stack", string(debug.Stack()))
	s.end(mail.Temporary(421, 3, 0, "Internal error, closing connection"))
}

// Close ends the connection. go-smtp may call it more than once.
func (s *session) Close() error {
	var err error
	s.once.Do(func() {
		s.cancel()
		s.ended = true
		linger := int64(0)
		if s.linger {
			linger = s.server.swallowMax()
		}
		err = s.w.Close(linger)
		s.server.gate.leave(s)
	})
	return err
}

// The rest of net.Conn. Deadlines are the wire's matter.

func (s *session) LocalAddr() net.Addr              { return s.w.LocalAddr() }
func (s *session) RemoteAddr() net.Addr             { return s.w.RemoteAddr() }
func (s *session) SetDeadline(time.Time) error      { return nil }
func (s *session) SetReadDeadline(time.Time) error  { return nil }
func (s *session) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*session)(nil)
