package smtpd

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// gate lets connections in: it counts them, knows all sessions, and hands those that may
// speak to go-smtp, as its listener.
type gate struct {
	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	draining  bool
	open      int // connections, sessions or not yet
	addresses map[addressKey]int
	sessions  map[*session]struct{}
	wg        sync.WaitGroup
}

// addressKey is what is counted: an IPv4 address, or an IPv6 /64, which is what one
// customer gets. The zero key is not counted.
type addressKey netip.Prefix

func newGate() *gate {
	return &gate{ready: make(chan net.Conn), closed: make(chan struct{}), addresses: make(map[addressKey]int), sessions: make(map[*session]struct{})}
}

// Accept gives go-smtp the next connection that is ready for the banner.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.ready:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return nil
}

// Addr is nothing that anybody asks for.
func (g *gate) Addr() net.Addr { return &net.TCPAddr{} }

// enter counts a connection that was accepted; false means that there are too many.
func (g *gate) enter(s *session, max int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= max || g.draining {
		return false
	}
	g.sessions[s] = struct{}{}
	g.open++
	g.wg.Add(1)
	return true
}

// join counts a session by its address, once that is known, and says why it may not stay.
func (g *gate) join(s *session, l *Limits) (mail.Status, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return mail.Temporary(421, 3, 2, "Shutting down, try again later"), false
	}
	addr := s.client.Addr
	if o := &s.server.opt; o.Clients != nil && !s.local && !contains(o.Clients, addr) {
		return mail.Permanent(554, 7, 1, "Connections from your address are not taken here"), false
	}
	if g.open > l.Sessions-l.Reserved && !contains(l.ReservedFor, addr) {
		return mail.Temporary(421, 3, 2, "Too many sessions, try again later"), false
	}
	if !addr.IsValid() {
		return mail.Status{}, true
	}
	key := keyOf(addr)
	if max := l.perAddress(addr); max > 0 && g.addresses[key] >= max {
		return mail.Temporary(421, 7, 0, "Too many sessions from your address"), false
	}
	g.addresses[key]++
	s.key, s.client.Connections = key, g.addresses[key]
	return mail.Status{}, true
}

// leave is the end of a session.
func (g *gate) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, s)
	g.open--
	if s.key != (addressKey{}) {
		if g.addresses[s.key]--; g.addresses[s.key] == 0 {
			delete(g.addresses, s.key)
		}
	}
	g.wg.Done()
}

// each calls f for all sessions.
func (g *gate) each(f func(*session)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.sessions {
		f(s)
	}
}

func (g *gate) drain() {
	g.mu.Lock()
	g.draining = true
	g.mu.Unlock()
	g.each(func(s *session) { s.w.Drain() })
}

// clientAddr is the address of a peer, unmapped (::ffff:192.0.2.1 is 192.0.2.1).
func clientAddr(a netip.AddrPort) (netip.Addr, uint16) {
	return a.Addr().Unmap().WithZone(""), a.Port()
}

func keyOf(a netip.Addr) addressKey {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return addressKey{}
	}
	return addressKey(p)
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// perAddress is the limit for one address; 0: none.
func (l *Limits) perAddress(a netip.Addr) int {
	for _, n := range l.Networks {
		if contains(n.Networks, a) {
			return n.PerAddress
		}
	}
	return l.PerAddress
}

// admit brings an accepted connection to the banner, in a goroutine of its own.
func (s *Server) admit(ss *session) {
	defer func() {
		if r := recover(); r != nil {
			ss.panicked(r)
			ss.Close()
		}
	}()
	if err := ss.identify(); err != nil {
		s.opt.Log.Info("PROXY header refused", "peer", ss.RemoteAddr().String(), "error", err.Error())
		ss.Close()
		return
	}
	st, ok := s.gate.join(ss, &s.opt.Limits)
	if !ok {
		s.opt.Log.Info("connection refused", "client", ss.client.Addr, "status", st.Error())
		if s.opt.TLS != TLSImplicit { // inside TLS it would cost a handshake
			ss.end(st)
			ss.linger = false // it must not keep a place that it was refused
		}
		ss.Close()
		return
	}
	if !ss.welcomed() {
		ss.Close()
		return
	}
	select {
	case s.gate.ready <- ss:
	case <-s.gate.closed:
		ss.Close()
	}
}

// identify finds out who the client is, from a PROXY header where one is due.
func (s *session) identify() error {
	tcp, ok := s.w.RemoteAddr().(*net.TCPAddr)
	if !ok {
		s.local = true // a unix socket
		return nil
	}
	s.client.Addr, s.client.Port = clientAddr(tcp.AddrPort())
	if !contains(s.server.opt.ProxyFrom, s.client.Addr) {
		return nil
	}
	client, err := s.w.ReadProxy()
	if err != nil {
		return err
	}
	// A header without an address (health checks, PROXY UNKNOWN) names nobody: the proxy's
	// own address, which may be a trusted one, must not stand in for the client's.
	s.client.Addr, s.client.Port = clientAddr(client)
	return nil
}

// welcomed makes the TLS handshake where it comes first, asks the policy, and waits for
// clients that do not wait for the banner.
func (s *session) welcomed() bool {
	if s.server.opt.TLS == TLSImplicit {
		state, err := s.w.StartTLS(s.ctx, s.server.opt.TLSConfig)
		if err != nil {
			s.log.Info("TLS handshake failed", "client", s.client.Addr, "error", err.Error())
			return false
		}
		s.secured(state)
	}
	if st := s.policy.Connect(s.ctx, &s.client); refused(st) {
		s.log.Info("connection refused", "client", s.client.Addr, "status", st.Error())
		s.end(st)
		s.linger = false // it has said nothing yet
		return false
	}
	if s.w.Early(s.server.opt.Timeouts.Greet) {
		s.log.Info("client talks before the banner", "client", s.client.Addr)
		s.end(mail.Permanent(554, 5, 0, "Client must wait for the banner"))
		return false
	}
	return s.w.Err() == nil
}

// backOff waits longer after each failure to accept, up to a second.
func backOff(ctx context.Context, delay time.Duration) time.Duration {
	delay = min(max(2*delay, 5*time.Millisecond), time.Second)
	select {
	case <-time.After(delay):
	case <-ctx.Done():
	}
	return delay
}
