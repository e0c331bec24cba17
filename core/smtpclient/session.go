package smtpclient

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
	"golang.org/x/sys/unix"
)

// extensions are what a peer said in reply to EHLO.
type extensions struct {
	startTLS, pipelining, eightBit, utf8, dsn, requireTLS bool

	size  int64 // SIZE; 0: no limit known
	plain bool  // AUTH mechanisms
	login bool
}

// session is one connection to a target, ready for transactions once opened. One
// goroutine uses it at a time; only abort may come from another.
type session struct {
	client *Client
	target target
	remote string // name of the peer in statuses

	mu      sync.Mutex // guards nc and aborted
	nc      net.Conn
	aborted bool
	look    func() bool // whether the socket below has something to read; nil: cannot tell

	br    *bufio.Reader
	phase time.Duration // the limit of every write
	reply reply
	ext   extensions

	tls, verified bool
	lockstep      bool // do not pipeline
	broken        bool // not to be used again
	dirty         bool // a transaction failed: RSET before the next one
	messages      int
	timer         *time.Timer // closes the session while it is idle
}

// openError is why no session came to be.
type openError struct {
	status mail.Status
	// plain: the TLS handshake failed where TLS is optional; another connection may do
	// without.
	plain bool
}

func (e *openError) Error() string { return e.status.Error() }

// open connects to a target and brings the session to where transactions can begin. With
// plain set it does not try STARTTLS. more says that another address is left: then the wait
// is short.
func (c *Client) open(ctx context.Context, t target, plain, more bool) (*session, error) {
	limit := c.o.Timeouts.Dial
	if more {
		limit = min(limit, c.o.Timeouts.Failover)
	}
	start := time.Now()
	dialCtx, cancel := context.WithTimeout(ctx, limit)
	nc, err := c.o.Dial(dialCtx, t.network(), t.address())
	cancel()
	if err != nil {
		return nil, &openError{status: mail.Temporary(451, 4, 1, "cannot connect to "+t.String()+": "+cause(err))}
	}
	s := &session{client: c, target: t, nc: nc, br: bufio.NewReaderSize(nc, maxReplyLine), remote: t.host}
	if t.path != "" {
		s.remote = c.o.Hostname // senders are told; a path means nothing to them and is none of their business
	}
	s.look = lookAt(nc)
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	banner := c.o.Timeouts.Banner
	if more {
		banner = min(banner, max(c.o.Timeouts.Failover-time.Since(start), time.Second))
	}
	if err := s.begin(ctx, plain, banner); err != nil {
		s.close()
		return nil, s.openError(err)
	}
	return s, nil
}

// begin takes a fresh connection through greeting, EHLO, STARTTLS and AUTH.
func (s *session) begin(ctx context.Context, plain bool, banner time.Duration) error {
	if s.target.implicit {
		if err := s.startTLS(ctx); err != nil {
			return err
		}
	}
	s.setDeadline(banner)
	if err := s.reply.read(s.br, nil); err != nil {
		return err
	}
	if !s.reply.success() {
		return s.reply.deferred(3, 2, s.remote, "in greeting")
	}
	// A PIX firewall rewrites the greeting and breaks pipelining.
	s.lockstep = strings.Count(string(s.reply.text), "*") > 8 || s.client.hints.lockstep(s.target.endpoint)
	if err := s.hello(); err != nil {
		return err
	}
	if !s.tls && s.target.path == "" {
		if err := s.upgrade(ctx, plain); err != nil {
			return err
		}
	}
	if s.target.login != "" {
		return s.authenticate()
	}
	return nil
}

// hello says EHLO (LHLO), or HELO to a peer that refuses it (RFC 5321 §3.2).
func (s *session) hello() error {
	s.ext = extensions{}
	verb := "EHLO "
	if s.target.lmtp {
		verb = "LHLO "
	}
	if err := s.command(verb+s.client.o.Hostname, s.ext.parse); err != nil {
		return err
	}
	if s.reply.code/100 == 5 && !s.target.lmtp {
		s.ext = extensions{}
		if err := s.command("HELO "+s.client.o.Hostname, nil); err != nil {
			return err
		}
	}
	if !s.reply.success() {
		return s.reply.deferred(3, 2, s.remote, "to "+strings.TrimSpace(verb))
	}
	return nil
}

// parse takes in one line of the reply to EHLO.
func (e *extensions) parse(i int, line []byte) {
	if i == 0 {
		return
	}
	name, args, _ := strings.Cut(strings.ToUpper(string(line)), " ")
	switch name {
	case "STARTTLS":
		e.startTLS = true
	case "PIPELINING":
		e.pipelining = true
	case "8BITMIME":
		e.eightBit = true
	case "SMTPUTF8":
		e.utf8 = true
	case "DSN":
		e.dsn = true
	case "REQUIRETLS":
		e.requireTLS = true
	case "SIZE":
		if n, err := strconv.ParseInt(strings.TrimSpace(args), 10, 64); err == nil && n > 0 {
			e.size = n
		}
	case "AUTH":
		for mech := range strings.FieldsSeq(args) {
			e.plain = e.plain || mech == "PLAIN"
			e.login = e.login || mech == "LOGIN"
		}
	}
}

// upgrade does STARTTLS (RFC 3207) as far as the target wants it, and says EHLO again.
func (s *session) upgrade(ctx context.Context, plain bool) error {
	strict := s.target.strict
	switch {
	case !s.ext.startTLS && s.target.requires:
		return mail.Permanent(550, 7, 30, s.remote+" does not offer TLS, which the sender requires") // RFC 8689 §5
	case !s.ext.startTLS && strict:
		return mail.Temporary(451, 7, 4, s.remote+" does not offer TLS, which is required for it")
	case !s.ext.startTLS || plain && !strict:
		return nil
	}
	if err := s.command("STARTTLS", nil); err != nil {
		return err
	}
	if s.br.Buffered() > 0 {
		// Somebody put replies where TLS has to begin (T-04).
		return protocolError("data follows the reply to STARTTLS")
	}
	if s.reply.code != 220 {
		if strict {
			return s.reply.deferred(7, 4, s.remote, "to STARTTLS")
		}
		s.client.o.Log.Info("starttls refused, going on in the clear", "host", s.remote, "code", s.reply.code)
		return nil
	}
	if err := s.startTLS(ctx); err != nil {
		return err
	}
	return s.hello()
}

// openError turns the error of a failed begin into what the attempt needs to know.
func (s *session) openError(err error) *openError {
	var status mail.Status
	var tlsErr *tlsError
	var proto protocolError
	switch {
	case errors.As(err, &status):
		return &openError{status: status}
	case errors.As(err, &tlsErr):
		detail := 4 // 4.7.4: no security feature in common
		if tlsErr.certificate {
			detail = 5 // RFC 7817, and what Postfix says
		}
		return &openError{
			status: mail.Temporary(451, 7, detail, "TLS with "+s.target.String()+" failed: "+tlsErr.err.Error()),
			plain:  !s.target.strict && !s.target.implicit,
		}
	case errors.As(err, &proto):
		return &openError{status: mail.Temporary(451, 5, 0, s.target.String()+": "+proto.Error())}
	}
	return &openError{status: s.lost(err)}
}

// lost is the status of a connection that broke.
func (s *session) lost(err error) mail.Status {
	var proto protocolError
	if errors.As(err, &proto) {
		return mail.Temporary(451, 5, 0, s.target.String()+": "+proto.Error())
	}
	return mail.Temporary(451, 4, 2, "lost connection with "+s.target.String()+": "+cause(err))
}

// cause is an error of the network in few words, without addresses.
func cause(err error) string {
	var errno syscall.Errno
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "stopped"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return err.Error()
}

// command sends a line and reads the reply to it.
func (s *session) command(line string, each func(int, []byte)) error {
	s.phase = s.client.o.Timeouts.Command
	if _, err := s.Write([]byte(line + "\r\n")); err != nil {
		return err
	}
	s.setDeadline(s.phase)
	return s.reply.read(s.br, each)
}

// Write writes to the peer within the limit of the phase: one that does not read cannot
// hold us for ever.
func (s *session) Write(p []byte) (int, error) {
	s.setDeadline(s.phase)
	return s.nc.Write(p)
}

func (s *session) setDeadline(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.aborted {
		s.nc.SetDeadline(time.Now().Add(d))
	}
}

// abort ends every wait of the session, now and later.
func (s *session) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	s.nc.SetDeadline(aLongTimeAgo())
}

// heard reports whether the peer said something, or closed, without being asked.
func (s *session) heard() bool {
	if s.br.Buffered() > 0 {
		return true
	}
	return s.look != nil && s.look()
}

// lookAt returns a function that reports, without reading or waiting, whether a connection
// has something to read: octets, its end or an error. It is nil for what is no socket.
func lookAt(nc net.Conn) func() bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	var fds [1]unix.PollFd
	var something bool
	poll := func(fd uintptr) { // made once: this runs twice for every message
		fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, err := unix.Poll(fds[:], 0)
		something = n > 0 || err != nil && err != unix.EINTR
	}
	return func() bool { return raw.Control(poll) != nil || something }
}

// quit says good-bye without waiting for an answer.
func (s *session) quit() {
	if !s.broken {
		s.phase = time.Second
		s.Write([]byte("QUIT\r\n"))
	}
	s.close()
}

func (s *session) close() {
	s.broken = true
	s.nc.Close()
}
