package managesieve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"
)

// Server talks to clients.
type Server struct {
	opt    Options
	memory budget

	mu      sync.Mutex
	links   map[*link]bool
	clients map[netip.Prefix]int // connections
}

// scriptMemory is what scripts on their way may take in all, in bytes.
const scriptMemory = 32 << 20

// New returns a server.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{opt: o.withDefaults(), links: make(map[*link]bool), clients: make(map[netip.Prefix]int)}
	s.memory.left.Store(scriptMemory)
	return s, nil
}

// Serve talks to whoever connects to the listeners until ctx ends or a listener fails. Then it
// closes the listeners, lets commands under way end, says goodbye, and returns.
func (s *Server) Serve(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var accepting, sessions sync.WaitGroup
	for _, l := range listeners {
		accepting.Go(func() {
			if err := s.accept(ctx, l, &sessions); err != nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	for _, l := range listeners {
		l.Close()
	}
	accepting.Wait()
	s.each((*link).end)
	force := time.AfterFunc(s.opt.Timeouts.Stop, func() { s.each(func(l *link) { l.Close() }) })
	defer force.Stop()
	sessions.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Server) each(f func(*link)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		f(l)
	}
}

// accept takes connections until ctx ends. A lack of file descriptors passes.
func (s *Server) accept(ctx context.Context, l net.Listener, sessions *sync.WaitGroup) error {
	const pause = 100 * time.Millisecond
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			s.opt.Log.Warn("managesieve cannot accept", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		sessions.Go(func() { s.serve(ctx, conn) })
	}
}

// serve talks to one client.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	l := &link{Conn: conn, timeout: s.opt.Timeouts.Write}
	at, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	from := netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
	if refused := s.enter(l, clientOf(from.Addr())); refused != "" {
		l.writeBy()
		fmt.Fprintf(conn, "BYE (%s) %q\r\n", CodeTryLater, refused)
		s.opt.Log.Warn("managesieve connection refused", "client", from.Addr().String(), "reason", refused)
		return
	}
	defer s.leave(l, clientOf(from.Addr()))
	if ctx.Err() != nil { // it came while we were ending
		l.end()
	}
	c := newSession(ctx, s, l, from)
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("managesieve: panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	c.run()
}

// enter counts a connection. It says why it cannot be had, if it cannot.
func (s *Server) enter(l *link, client netip.Prefix) (refused string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.links) >= s.opt.MaxConnections:
		return "Too many connections, try again later"
	case s.clients[client] >= s.opt.MaxPerClient:
		return "Too many connections from your address"
	}
	s.links[l] = true
	s.clients[client]++
	return ""
}

func (s *Server) leave(l *link, client netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
}

// clientOf is what counts as one client: an address, of IPv6 a /64, which is one customer.
func clientOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
