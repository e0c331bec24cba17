package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	goldap "github.com/go-ldap/ldap/v3"
)

// server is one LDAP server with connections to it. Each connection does one thing at a time, so that a
// deadline on it is that of the thing.
type server struct {
	place
	startTLS bool
	roots    *x509.CertPool
	bindDN   string // "": nobody
	password string

	searches, logins pool
}

// pool is connections that are not in use.
type pool struct {
	slots chan struct{} // one for each connection there may be

	mu   sync.Mutex
	idle []*conn
}

// conn is a connection and what is below it.
type conn struct {
	*goldap.Conn
	raw net.Conn
}

func newServer(p place, s *Settings, roots *x509.CertPool, password string) *server {
	return &server{place: p, startTLS: s.StartTLS && p.network == "tcp" && !p.tls, roots: roots, bindDN: s.BindDN, password: password,
		searches: pool{slots: make(chan struct{}, s.Connections)}, logins: pool{slots: make(chan struct{}, s.Connections)}}
}

// search searches as the plugin's own user.
func (s *server) search(ctx context.Context, r *goldap.SearchRequest) (*goldap.SearchResult, error) {
	var found *goldap.SearchResult
	err := s.with(ctx, &s.searches, s.bind, func(c *conn) (err error) {
		found, err = c.Search(r)
		return err
	})
	return found, err
}

// bind makes a new connection the plugin's own.
func (s *server) bind(c *conn) error {
	if s.bindDN == "" {
		return nil
	}
	if err := c.Bind(s.bindDN, s.password); err != nil {
		return fmt.Errorf("bind_dn: %w", err)
	}
	return nil
}

// login reports whether a password is that of an entry.
func (s *server) login(ctx context.Context, dn, password string) (bool, error) {
	if dn == "" || password == "" { // RFC 4513 §5.1: that would be nobody's bind, which always succeeds
		return false, nil
	}
	right := false
	err := s.with(ctx, &s.logins, func(*conn) error { return nil }, func(c *conn) error {
		err := c.Bind(dn, password)
		if right = err == nil; !right && wrongPassword(err) {
			return nil
		}
		return err
	})
	return right && err == nil, err
}

// wrongPassword reports whether a server said no to a log-in: for the password, or because the
// account has none, is locked or disabled. All else is no answer.
func wrongPassword(err error) bool {
	return goldap.IsErrorAnyOf(err, goldap.LDAPResultInvalidCredentials, goldap.LDAPResultInappropriateAuthentication,
		goldap.LDAPResultNoSuchObject, goldap.LDAPResultInvalidDNSyntax, goldap.LDAPResultConstraintViolation,
		goldap.LDAPResultUnwillingToPerform, goldap.LDAPResultInsufficientAccessRights)
}

// with calls use with a connection: one that is there, or a new one. A connection that died
// while nobody used it is replaced once.
func (s *server) with(ctx context.Context, p *pool, begin, use func(*conn) error) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c := p.get()
	for {
		old := c != nil
		if !old {
			var err error
			if c, err = s.dial(ctx, begin); err != nil {
				return err
			}
		}
		err := c.within(ctx, func() error { return use(c) })
		if err == nil || !lost(err) {
			p.put(c)
			return err
		}
		c.close()
		if !old || ctx.Err() != nil {
			return err
		}
		c = nil
	}
}

// lost reports whether an error is of the connection and not the server's answer.
func lost(err error) bool {
	var e *goldap.Error
	return !errors.As(err, &e) || e.ResultCode >= goldap.ErrorNetwork || goldap.IsErrorAnyOf(err,
		goldap.LDAPResultProtocolError, goldap.LDAPResultBusy, goldap.LDAPResultUnavailable, goldap.LDAPResultOther)
}

// dial connects and protects the connection, all within ctx.
func (s *server) dial(ctx context.Context, begin func(*conn) error) (*conn, error) {
	raw, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, err
	}
	under := raw
	if s.tls {
		under = tls.Client(raw, tlsConfig(s.roots, s.host))
	}
	c := &conn{raw: raw}
	err = c.within(ctx, func() error {
		if t, ok := under.(*tls.Conn); ok {
			if err := t.HandshakeContext(ctx); err != nil {
				return fmt.Errorf("TLS: %w", err)
			}
		}
		c.Conn = goldap.NewConn(under, s.tls)
		c.Start()
		if s.startTLS {
			if err := c.StartTLS(tlsConfig(s.roots, s.host)); err != nil {
				return fmt.Errorf("StartTLS: %w", err)
			}
		}
		return begin(c)
	})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// within calls f, in which every wait ends with ctx.
func (c *conn) within(ctx context.Context, f func() error) error {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(time.Minute)
	}
	c.raw.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { c.raw.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil || !lost(err) {
		c.raw.SetDeadline(time.Time{})
	}
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	return err
}

func (c *conn) close() {
	c.raw.Close()
	if c.Conn != nil {
		c.Conn.Close()
	}
}

// get returns a connection that is there and seems to live, or nil.
func (p *pool) get() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if !c.IsClosing() {
			return c
		}
		c.close()
	}
	return nil
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}
