package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// Sizes of buffers, in octets.
const (
	smallBuffer = 4 << 10  // while waiting for commands
	bodyBuffer  = 32 << 10 // while reading a message
	outMax      = 4 << 10  // replies are written when there are more
)

// Why there is no line and no more of a message.
var (
	ErrSlow     = errors.New("client was too slow")
	ErrDraining = errors.New("server is shutting down")
)

// Buffers are the large ones of all connections: one has such a buffer only while it reads a
// message. The zero value is ready to use.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[bodyBuffer]byte {
	if v, ok := b.pool.Get().(*[bodyBuffer]byte); ok {
		return v
	}
	return new([bodyBuffer]byte)
}

// Timeouts bound how long a client can make a connection wait.
type Timeouts struct {
	Session   time.Duration // from beginning to end
	Handshake time.Duration // of TLS, and of the PROXY header
	Write     time.Duration // for the client to take replies
	Linger    time.Duration // for it to read the last one
}

// Conn is the connection of one session: socket, TLS layer, input and output buffers.
type Conn struct {
	raw      net.Conn // the socket, or what took the PROXY header from it
	conn     net.Conn // raw, or the TLS layer on it
	timeouts Timeouts
	end      time.Time // of the session
	buffers  *Buffers

	buf     []byte // input is buf[r:w]
	r, w    int
	scanned int // octets after r that are known to have no LF
	small   []byte
	big     *[bodyBuffer]byte

	out  []byte
	dead error // the first error of the connection; nothing is written after it

	mu       sync.Mutex // for draining, against the read deadline
	draining bool
	waiting  bool // outside a transaction, for a command or before the banner
}

// New returns a connection whose session begins now.
func New(raw net.Conn, t Timeouts, b *Buffers) *Conn {
	small := make([]byte, smallBuffer)
	return &Conn{raw: raw, conn: raw, timeouts: t, end: time.Now().Add(t.Session), buffers: b, buf: small, small: small, waiting: true}
}

// LocalAddr is the server's address.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr is the peer's address, or what its PROXY header says.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Err is the first error of the connection itself: it cannot be used any more.
func (c *Conn) Err() error { return c.dead }

// window is the input that is buffered. It is valid until the next fill.
func (c *Conn) window() []byte { return c.buf[c.r:c.w] }

func (c *Conn) consume(n int) {
	c.r += n
	c.scanned = 0
}

// fill writes the replies and reads once. idle says that the session has nothing under way
// and may be told to go.
func (c *Conn) fill(deadline time.Time, idle bool) error {
	if err := c.Flush(); isTimeout(err) {
		return ErrSlow
	} else if err != nil {
		return err
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if deadline.After(c.end) {
		deadline = c.end
	}
	if err := c.arm(deadline, idle); err != nil {
		return err
	}
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	c.mu.Lock()
	drained := c.draining && idle
	c.waiting = false
	c.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case isTimeout(err) && drained:
		return ErrDraining
	case isTimeout(err):
		return ErrSlow
	}
	c.dead = err
	return err
}

// arm sets the read deadline, unless the session is to go.
func (c *Conn) arm(deadline time.Time, idle bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = idle
	if idle && c.draining {
		return ErrDraining
	}
	return c.conn.SetReadDeadline(deadline)
}

// Drain asks the session to end as soon as it has no transaction under way.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.waiting {
		c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// Cut ends the connection at once.
func (c *Conn) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Close()
}

// enlarge takes a large buffer for a message; shrink gives it back if what is left fits.
func (c *Conn) enlarge() {
	if c.big == nil {
		c.big = c.buffers.get()
		c.w = copy(c.big[:], c.window())
		c.r = 0
		c.buf = c.big[:]
	}
}

func (c *Conn) shrink() {
	if c.big != nil && c.w-c.r <= len(c.small) {
		c.w = copy(c.small, c.window())
		c.r = 0
		c.buf = c.small
		c.buffers.pool.Put(c.big)
		c.big = nil
	}
}

// ReadProxy takes the PROXY header (v1 or v2), which has to come first, and returns the address
// of the client that it names; the zero AddrPort if it names none.
func (c *Conn) ReadProxy() (netip.AddrPort, error) {
	p := proxyproto.NewConn(c.raw, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(c.timeouts.Handshake))
	header := p.ProxyHeader()
	if header == nil {
		return netip.AddrPort{}, errors.New("no valid header within the time")
	}
	c.mu.Lock()
	c.raw, c.conn = p, p
	c.mu.Unlock()
	if tcp, ok := header.SourceAddr.(*net.TCPAddr); ok && header.Command.IsProxy() {
		return tcp.AddrPort(), nil
	}
	return netip.AddrPort{}, nil
}

// StartTLS makes the handshake, as the server. After an error the connection is dead:
// there is no way back to plain text. Input that is Buffered must not be there: what came in
// the clear must not be read as if it came inside TLS (RFC 3207 §4.2).
func (c *Conn) StartTLS(ctx context.Context, config *tls.Config) (tls.ConnectionState, error) {
	if err := c.Flush(); err != nil {
		return tls.ConnectionState{}, err
	}
	conn := tls.Server(c.raw, config)
	err := c.raw.SetDeadline(time.Now().Add(c.timeouts.Handshake))
	if err == nil {
		err = conn.HandshakeContext(ctx)
	}
	if err != nil {
		c.dead = err
		return tls.ConnectionState{}, err
	}
	c.conn = conn
	return conn.ConnectionState(), c.raw.SetDeadline(time.Time{})
}

// Close ends the connection. With linger > 0 it first gives the client time to read the
// last reply, taking up to that many octets: closing a socket with unread input makes the
// kernel send a reset, which can overtake the reply.
func (c *Conn) Close(linger int64) error {
	c.Flush()
	if linger > 0 && c.dead == nil {
		c.raw.SetDeadline(time.Now().Add(c.timeouts.Linger))
		if t, ok := c.conn.(*tls.Conn); ok {
			t.CloseWrite()
		}
		if h, ok := socket(c.raw).(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
			c.enlarge()
			buf := c.buf
			for linger > 0 {
				n, err := c.raw.Read(buf)
				if linger -= int64(n); err != nil {
					break
				}
			}
		}
	}
	c.r, c.w = 0, 0
	c.shrink()
	if c.dead == nil {
		c.dead = net.ErrClosed
		return c.conn.Close()
	}
	return c.raw.Close()
}

// socket is the connection below a PROXY header.
func socket(c net.Conn) net.Conn {
	if p, ok := c.(*proxyproto.Conn); ok {
		return p.Raw()
	}
	return c
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, io.EOF)
}
