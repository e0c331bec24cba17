package smtpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/core/smtpd/wire"
	"github.com/postern-mail/postern/sdk/mail"
)

// Server serves one kind of listener.
type Server struct {
	opt     Options
	gate    *gate
	buffers wire.Buffers
	message wire.Limits
	smtp    *smtp.Server
	start   sync.Once

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	stopping  context.Context // ends when Shutdown begins
	stop      context.CancelFunc
}

// ErrClosed is what Serve returns after Shutdown. It is a net.ErrClosed.
var ErrClosed = fmt.Errorf("smtpd: server is shut down: %w", net.ErrClosed)

// New checks the options and returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{opt: o, gate: newGate(), listeners: make(map[net.Listener]struct{})}
	s.message = wire.Limits{
		Size: o.Limits.MessageSize, Line: o.Limits.DataLine, Refused: s.swallowMax(),
		Pause: o.Timeouts.Data, Grace: o.Timeouts.Grace, Rate: o.Limits.MinRate,
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return backend{c.Conn().(*session)}, nil
	}))
	s.smtp.Domain = o.Hostname
	s.smtp.MaxLineLength = 2 * wire.MaxAuth // the wire has its own limits
	s.smtp.AllowInsecureAuth = true         // AUTH gets to go-smtp only inside TLS
	s.smtp.ErrorLog = logger{o.Log}
	return s, nil
}

// Serve accepts connections from l until Shutdown, and returns ErrClosed then. It may be
// called for several listeners. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.stopping.Err() != nil {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	s.start.Do(func() { go s.smtp.Serve(s.gate) })
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	var delay time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case s.stopping.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("smtpd: %w", err)
		case err != nil:
			if delay == 0 {
				s.opt.Log.Error("cannot accept connections", "listener", l.Addr().String(), "error", err.Error())
			}
			delay = backOff(s.stopping, delay)
			continue
		}
		delay = 0
		if ss := s.newSession(conn); s.gate.enter(ss, s.opt.Limits.Sessions) {
			go s.admit(ss)
		} else {
			s.turnAway(conn)
		}
	}
}

// turnAway refuses a connection for which there is no room, without waiting for anything.
func (s *Server) turnAway(conn net.Conn) {
	if s.opt.TLS != TLSImplicit {
		conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
		conn.Write([]byte("421 4.3.2 Too many sessions, try again later\r\n"))
	}
	conn.Close()
}

// Shutdown stops accepting, tells sessions without a transaction to go (421 4.3.2), and
// waits for the others. When ctx ends it cuts those that are left and returns its error; a
// message that Intake has read completely is still finished.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stop()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.gate.drain()

	done := make(chan struct{})
	go func() {
		s.gate.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.gate.each(func(ss *session) {
			ss.cancel()
			ss.w.Cut()
		})
		// Give those that only wait for their client the moment they need to notice.
		select {
		case <-done:
		case <-time.After(time.Second):
		}
	}
	s.gate.Close()
	s.start.Do(func() {}) // a server that never served has nothing to close
	return err
}

// Role is what its listeners are for.
func (s *Server) Role() Role { return s.opt.Role }

// Sessions is how many connections are open.
func (s *Server) Sessions() int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.open
}

// Idle reports whether the server has no listener and no connection: there will be none any
// more, unless Serve is called again. A connection that a listener gave up is counted before
// its Serve returns.
func (s *Server) Idle() bool {
	s.mu.Lock()
	listeners := len(s.listeners)
	s.mu.Unlock()
	return listeners == 0 && s.Sessions() == 0
}

func (s *Server) newSession(conn net.Conn) *session {
	t := &s.opt.Timeouts
	w := wire.New(conn, wire.Timeouts{Session: t.Session, Handshake: t.Handshake, Write: t.Write, Linger: t.Linger}, &s.buffers)
	ss := &session{server: s, policy: s.opt.Policy, w: w, log: s.opt.Log}
	ss.ctx, ss.cancel = context.WithCancel(context.Background())
	ss.client.Listener = s.opt.Name
	if p, ok := s.opt.Policy.(SessionPolicy); ok {
		ss.policy = p.Session()
	}
	return ss
}

// protocol is the banner's word.
func (s *Server) protocol() string {
	if s.opt.Role == LMTP {
		return "LMTP"
	}
	return "ESMTP"
}

// swallowMax is how many octets of a refused message are taken so that the client gets to
// read why.
func (s *Server) swallowMax() int64 { return 2*s.opt.Limits.MessageSize + 1<<20 }

// logger takes what go-smtp has to say; it knows no more than an address and an error.
type logger struct{ log *slog.Logger }

func (l logger) Printf(format string, v ...any) {
	l.log.Error("session failed", "error", mail.Temporary(451, 3, 0, fmt.Sprintf(format, v...)).Text)
}

func (l logger) Println(v ...any) { l.Printf("%s", fmt.Sprint(v...)) }
