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
	opt       Options
	memory    budget
	clients   crowd // with a connection
	exchanges crowd // with a SASL exchange

	mu      sync.Mutex
	links   map[*link]bool
	refused int       // connections that the log has yet to hear of
	toldAt  time.Time // when it last did
}

// scriptMemory is what scripts on their way may take in all, in bytes.
const scriptMemory = 32 << 20

// SASL exchanges at a time, in all and of one client. Each is a call to who knows the passwords
// for as long as the client takes to answer, and must not keep others from calling.
const (
	maxExchanges     = 64
	maxExchangesEach = 8
)

// New returns a server.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := &Server{opt: o, links: make(map[*link]bool), clients: crowd{most: o.MaxConnections, mostEach: o.MaxPerClient},
		exchanges: crowd{most: maxExchanges, mostEach: maxExchangesEach}}
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
	l := &link{Conn: conn, timeout: s.opt.Timeouts.Write, since: time.Now()}
	at, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	from := netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
	client := clientOf(from.Addr())
	if refused := s.enter(client); refused != "" {
		l.writeBy()
		fmt.Fprintf(conn, "BYE (%s) %q\r\n", CodeTryLater, refused)
		s.logRefusal(from.Addr(), refused)
		return
	}
	defer s.clients.leave(client)
	s.note(l, true)
	defer s.note(l, false)
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
func (s *Server) enter(client netip.Prefix) (refused string) {
	room, roomEach := s.clients.enter(client)
	if roomEach && !room && s.makeRoom() { // that one is about to leave
		room, roomEach = s.clients.squeeze(client, 2*s.opt.MaxConnections)
	}
	switch {
	case !roomEach:
		return "Too many connections from your address"
	case !room:
		return "Too many connections, try again later"
	}
	return ""
}

// makeRoom ends the oldest connection that has not logged in, if there is one: who opens many
// and says nothing does not keep others away.
func (s *Server) makeRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *link
	for l := range s.links {
		if !l.known.Load() && !l.hasEnded() && (oldest == nil || l.since.Before(oldest.since)) {
			oldest = l
		}
	}
	if oldest != nil {
		oldest.end()
	}
	return oldest != nil
}

// logRefusal logs what is refused, not more often than the log wants to hear.
func (s *Server) logRefusal(client netip.Addr, reason string) {
	const often = 10 * time.Second
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	if now := time.Now(); now.Sub(s.toldAt) >= often {
		s.opt.Log.Warn("managesieve connections refused", "client", client.String(), "reason", reason, "count", s.refused)
		s.refused, s.toldAt = 0, now
	}
}

func (s *Server) note(l *link, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if there {
		s.links[l] = true
	} else {
		delete(s.links, l)
	}
}
