// Package failover asks one of several servers that can all answer, such as the engines of a
// scanner.
//
// Servers are asked in the order of the list. One that fails is asked last for a while. No
// server may use up the time that the others need: each gets its share of what is left
// before the deadline, and a little is kept for the answer. It keeps nothing but who failed
// when, and is safe for concurrent use.
package failover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// rest is how long a server that failed is asked after all others.
	rest = 30 * time.Second
	// most is the time for everything where a caller sets no deadline.
	most = 5 * time.Minute
	// dialTime limits a connection: a host that is gone says nothing at all.
	dialTime = 5 * time.Second
)

// Servers is a list of servers.
type Servers struct {
	addresses []string
	now       func() time.Time

	mu     sync.Mutex
	failed []time.Time
}

// New returns the servers at addresses, in the order in which they are asked. They mean what
// the callers of Ask make of them.
func New(addresses []string, now func() time.Time) *Servers {
	return &Servers{addresses: addresses, now: now, failed: make([]time.Time, len(addresses))}
}

// stop is an error that no other server would put right.
type stop struct{ error }

func (s stop) Unwrap() error { return s.error }

// Stop marks an error that is not the server's: no other is asked, and this one stays in
// its place.
func Stop(err error) error { return stop{err} }

// Ask calls ask with one address after the other until it returns nil. If none does, the error
// names all servers, and is [context.DeadlineExceeded] if one of them took too long.
func (s *Servers) Ask(ctx context.Context, ask func(ctx context.Context, address string) error) error {
	ctx, cancel := context.WithDeadline(ctx, keepSome(ctx))
	defer cancel()
	var faults []string
	late := false
	order := s.order()
	for n, i := range order {
		err := share(ctx, len(order)-n, s.addresses[i], ask)
		var st stop
		if errors.As(err, &st) {
			return st.error
		}
		s.note(i, err == nil)
		if err == nil {
			return nil
		}
		if timedOut(err) {
			late = true
			err = errors.New("no answer in time")
		}
		faults = append(faults, s.addresses[i]+": "+err.Error())
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
	}
	err := errors.New(strings.Join(faults, "; "))
	if late {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// share calls ask with the time that is left, divided by the number of servers still to be
// asked.
func share(ctx context.Context, servers int, address string, ask func(ctx context.Context, address string) error) error {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(servers))
	defer cancel()
	err := ask(ctx, address)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		var st stop
		if !errors.As(err, &st) {
			return context.DeadlineExceeded // whatever it was that broke off
		}
	}
	return err
}

// keepSome is a little before the deadline: an answer after it is not heard.
func keepSome(ctx context.Context) time.Time {
	end, ok := ctx.Deadline()
	if !ok {
		return time.Now().Add(most)
	}
	return end.Add(-min(time.Second, time.Until(end)/10))
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// order lists the servers that have not failed lately, then the others.
func (s *Servers) order() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	order := make([]int, 0, len(s.addresses))
	var last []int
	for i, at := range s.failed {
		// A clock that was put back must not keep a server out.
		if d := now.Sub(at); !at.IsZero() && d >= 0 && d < rest {
			last = append(last, i)
		} else {
			order = append(order, i)
		}
	}
	return append(order, last...)
}

func (s *Servers) note(i int, well bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed[i] = s.now(); well {
		s.failed[i] = time.Time{}
	}
}

// Split says how to dial an address: "unix:/path", or "host:port".
func Split(address string) (network, target string, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return "", "", fmt.Errorf("%q is not the path of a socket; write it as \"unix:/run/...\"", address)
		}
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || port == "0" {
		return "", "", fmt.Errorf("%q is neither \"host:port\" nor \"unix:/path\"", address)
	}
	return "tcp", address, nil
}

// Dial connects to an address. Reads and writes end with the context. The caller closes the
// connection.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	network, target, err := Split(address)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, target)
	if err != nil {
		return nil, fmt.Errorf("cannot connect: %s", reason(err))
	}
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil { // the zero time is none
		conn.Close()
		return nil, err
	}
	return &boundConn{conn, context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })}, nil
}

// reason is an error of dialling without the address, which the caller adds.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// boundConn is a connection that ends with a context.
type boundConn struct {
	net.Conn
	release func() bool
}

// Close implements [net.Conn].
func (c *boundConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// Unwrap returns the connection itself, for what only a TCP or a unix connection can do.
func (c *boundConn) Unwrap() net.Conn { return c.Conn }

// CloseWrite says that nothing more will be written.
func (c *boundConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}
