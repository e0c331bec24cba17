package managesieve

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Limits on what a session may do wrong.
const (
	maxFailures     = 3  // log-ins
	maxFaultsBefore = 5  // commands, before a log-in
	maxFaultsAfter  = 50 // and after one
)

// session is a conversation with a client.
type session struct {
	server *Server
	ctx    context.Context // ends with the server
	link   *link
	conn   net.Conn // the link, or TLS over it
	in     *input
	out    *bufio.Writer
	log    *slog.Logger
	tls    *tls.Config

	client     mail.Client // TLS is "" in the clear
	mechanisms []string    // of SASL; none in the clear
	account    mail.Path   // zero: not logged in
	loginBy    time.Time   // until when it has to be
	loginUntil time.Time   // until when it counts
	failures   int         // log-ins that failed
	faults     int         // commands that are none
}

func newSession(ctx context.Context, s *Server, l *link, from netip.AddrPort) *session {
	c := &session{server: s, ctx: ctx, link: l,
		log:    s.opt.Log.With("client", from.Addr().String()),
		client: mail.Client{Addr: from.Addr(), Port: from.Port(), Protocol: "ManageSieve"}}
	c.over(l)
	return c
}

// over begins anew on a connection: nothing of what was read or said before remains.
func (s *session) over(conn net.Conn) {
	const buffer = 4 << 10
	s.conn = conn
	s.out = bufio.NewWriterSize(conn, buffer)
	s.in = &input{r: bufio.NewReaderSize(turns{s}, buffer), memory: &s.server.memory, keep: s.keep, skip: maxSkip}
	s.account, s.faults = mail.Path{}, 0
	s.loginBy = time.Now().Add(s.server.opt.Timeouts.Login)
}

// turns lets the client have its answers before more is read from it.
type turns struct{ *session }

// Read reads from the connection.
func (s turns) Read(b []byte) (int, error) {
	if s.out.Buffered() > 0 {
		s.link.writeBy()
	}
	if err := s.out.Flush(); err != nil { // also one from before
		return 0, err
	}
	return s.conn.Read(b)
}

func (s *session) run() {
	s.log.Debug("managesieve connected")
	defer s.log.Debug("managesieve disconnected")
	if s.begin() {
		for s.step() {
		}
	}
	s.out.Flush()
	s.hangUp()
}

// begin greets the client. Without TLS nobody could do anything.
func (s *session) begin() bool {
	ctx, cancel := context.WithTimeout(s.ctx, s.server.opt.Timeouts.Work)
	defer cancel()
	var err error
	s.tls, err = s.server.opt.TLS(ctx)
	s.link.writeBy()
	if err != nil {
		s.log.Warn("managesieve: no certificate", "error", err)
		writeReply(s.out, goodbye(CodeTryLater, "There is no TLS now"))
		return false
	}
	s.greet()
	return true
}

// hangUp ends the connection so that the client gets what was said last.
func (s *session) hangUp() {
	if t, ok := s.conn.(*tls.Conn); ok {
		t.CloseWrite()
	}
	if !s.link.hasEnded() {
		s.link.linger()
	}
}

// step carries out one command. It returns false if it was the last one.
func (s *session) step() bool {
	r := s.answer()
	if !r.last && s.faults >= s.maxFaults() {
		r = goodbye("", "Too many faults")
	}
	if r.word != "" && writeReply(s.out, r) != nil {
		return false // nobody listens
	}
	return !r.last
}

// answer reads a command and carries it out.
func (s *session) answer() reply {
	if err := s.await(); err != nil {
		return s.lost(err)
	}
	cmd, err := s.in.command()
	defer s.in.release(cmd)
	s.link.writeBy()
	var fault syntaxError
	switch {
	case errors.As(err, &fault):
		s.faults++
		return no(string(fault))
	case err != nil:
		return s.lost(err)
	}
	return s.carryOut(cmd)
}

func (s *session) maxFaults() int {
	if s.account.IsZero() {
		return maxFaultsBefore
	}
	return maxFaultsAfter
}

// await waits for the beginning of a command, and gives the client its time for the rest.
func (s *session) await() error {
	now := time.Now()
	by := now.Add(s.server.opt.Timeouts.Idle)
	if s.account.IsZero() {
		by = s.loginBy
	}
	if now.After(by) || s.link.hasEnded() {
		return os.ErrDeadlineExceeded
	}
	if s.in.r.Buffered() == 0 {
		s.link.readBy(by)
		if _, err := s.in.r.Peek(1); err != nil {
			return err
		}
		now = time.Now()
	}
	s.readBy(now)
	return nil
}

// readBy sets the time that the client has for what it has begun.
func (s *session) readBy(now time.Time) {
	by := now.Add(s.server.opt.Timeouts.Command)
	if s.account.IsZero() && s.loginBy.Before(by) {
		by = s.loginBy
	}
	s.link.readBy(by)
}

// lost ends a session that cannot go on, and tells the client why if it is there.
func (s *session) lost(err error) reply {
	s.link.writeBy()
	var gone *lostError
	switch {
	case errors.As(err, &gone):
		return goodbye(gone.code, gone.text)
	case s.link.hasEnded():
		return goodbye(CodeTryLater, "The server has to end this now")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return goodbye("", "That took too long")
	}
	return reply{last: true}
}

// keep says how many bytes of a command's i-th argument are wanted.
func (s *session) keep(verb string, i int) int {
	const response = 22 << 10 // 16 KiB of SASL in base64
	script := s.server.opt.MaxScript
	switch {
	case verb == "AUTHENTICATE" && s.account.IsZero():
		return response
	case verb == "PUTSCRIPT" && i == 1 && !s.account.IsZero(), verb == "CHECKSCRIPT" && i == 0 && !s.account.IsZero():
		return script
	}
	return maxQuoted
}

// carryOut carries out a command.
func (s *session) carryOut(c *command) reply {
	switch c.verb {
	case "CAPABILITY":
		return s.plainly(c, func() reply { s.capabilities(); return ok("") })
	case "LOGOUT":
		return s.plainly(c, func() reply { return reply{word: "OK", text: "Good bye", last: true} })
	case "NOOP":
		return s.noop(c)
	case "STARTTLS":
		return s.plainly(c, s.startTLS)
	case "AUTHENTICATE":
		return s.authenticate(c)
	}
	script, known := s.scriptCommand(c.verb)
	switch {
	case !known:
		return s.wrong("There is no such command")
	case s.account.IsZero():
		return s.wrong("Log in first")
	}
	if time.Now().After(s.loginUntil) {
		return goodbye("", "Log in again")
	}
	if r, ok := s.enabled(c.verb); !ok {
		return r
	}
	return script(c)
}

// enabled reports whether the account may still be used: what its last owner stores after it was
// disabled or removed would be there for the next one.
func (s *session) enabled(verb string) (reply, bool) {
	ctx, cancel := s.work()
	defer cancel()
	ok, err := s.server.opt.Logins.Enabled(ctx, s.account)
	switch {
	case err != nil:
		return s.refusal(verb, err), false
	case !ok:
		s.log.Info("managesieve: the account cannot be used any more", "account", s.account.String())
		return goodbye("", "The account cannot be used any more"), false
	}
	return reply{}, true
}

// plainly is for commands without arguments.
func (s *session) plainly(c *command, f func() reply) reply {
	if len(c.args) > 0 {
		return s.wrong("The command has no arguments")
	}
	return f()
}

// noop is RFC 5804 §2.13.
func (s *session) noop(c *command) reply {
	switch {
	case len(c.args) == 0:
		return ok("Done")
	case !c.has(stringArg):
		return s.wrong("NOOP has one string, or none")
	case c.args[0].long:
		return no("The tag is too long")
	}
	return reply{word: "OK", code: "TAG " + quote(string(c.args[0].text)), text: "Done"}
}

// has reports whether the arguments are of these kinds, and no others.
func (c *command) has(kinds ...argKind) bool {
	if len(c.args) != len(kinds) || c.more {
		return false
	}
	for i, k := range kinds {
		if c.args[i].kind != k {
			return false
		}
	}
	return true
}
