package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// Sizes of buffers and lines, in octets.
const (
	lineMax     = 2048     // RFC 5321 §4.5.3.1.4 asks for 512; parameters need more
	authLineMax = 12288    // RFC 4954 §4
	smallBuffer = 4 << 10  // while waiting for commands
	bodyBuffer  = 32 << 10 // while reading a message
	outMax      = 4 << 10  // replies are written when there are more
)

// Why no line or no input came.
var (
	errBareLF   = errors.New("bare LF in a command")
	errLongLine = errors.New("command line is too long")
	errBinary   = errors.New("input is not SMTP")
	errDraining = errors.New("server is shutting down")
)

// bodyBuffers are shared by all servers: a session has one only while it reads a message.
type bodyBuffers struct{ pool sync.Pool }

func (b *bodyBuffers) get() *[bodyBuffer]byte {
	if v, ok := b.pool.Get().(*[bodyBuffer]byte); ok {
		return v
	}
	return new([bodyBuffer]byte)
}

// wire is the connection of one session: socket, TLS layer, input and output buffers. It
// is used by the session's goroutine; only drain and cut are for others.
type wire struct {
	raw      net.Conn // the socket, or what took the PROXY header from it
	conn     net.Conn // raw, or the TLS layer on it
	timeouts *Timeouts
	end      time.Time // of the session
	buffers  *bodyBuffers

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

func newWire(raw net.Conn, t *Timeouts, b *bodyBuffers) *wire {
	small := make([]byte, smallBuffer)
	return &wire{raw: raw, conn: raw, timeouts: t, end: time.Now().Add(t.Session), buffers: b, buf: small, small: small, waiting: true}
}

// window is the input that is buffered. It is valid until the next fill.
func (w *wire) window() []byte { return w.buf[w.r:w.w] }

func (w *wire) consume(n int) {
	w.r += n
	w.scanned = 0
}

// fill writes the replies and reads once. idle says that the session has nothing under way
// and may be told to go.
func (w *wire) fill(deadline time.Time, idle bool) error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.r > 0 {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	if deadline.After(w.end) {
		deadline = w.end
	}
	if err := w.arm(deadline, idle); err != nil {
		return err
	}
	n, err := w.conn.Read(w.buf[w.w:])
	w.w += n
	if n > 0 {
		return nil
	}
	w.mu.Lock()
	drained := w.draining && idle
	w.waiting = false
	w.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case isTimeout(err) && drained:
		return errDraining
	case !isTimeout(err):
		w.dead = err
	}
	return err
}

// arm sets the read deadline, unless the session is to go.
func (w *wire) arm(deadline time.Time, idle bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = idle
	if idle && w.draining {
		return errDraining
	}
	return w.conn.SetReadDeadline(deadline)
}

// drain asks the session to end as soon as it has no transaction under way.
func (w *wire) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	if w.waiting {
		w.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// cut ends the connection at once.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raw.Close()
}

// setRaw puts the connection that took a PROXY header in the place of the socket.
func (w *wire) setRaw(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raw, w.conn = c, c
}

// line returns the next line without its CRLF; max is its greatest length with it. The
// slice is valid until the next fill.
func (w *wire) line(max int, deadline time.Time, idle bool) ([]byte, error) {
	for {
		win := w.window()
		if i := bytes.IndexByte(win[w.scanned:], '\n'); i >= 0 {
			i += w.scanned
			switch {
			case i+1 > w.limit(max):
				return nil, errLongLine
			case i == 0 || win[i-1] != '\r':
				return nil, errBareLF
			}
			w.consume(i + 1)
			return win[:i-1], nil
		}
		w.scanned = len(win)
		limit := w.limit(max)
		switch {
		case len(win) >= limit:
			return nil, errLongLine
		case len(win) > 0 && win[0] < ' ' && win[0] != '\r':
			return nil, errBinary // a TLS ClientHello, for one
		case limit > len(w.buf):
			w.grow(limit)
		}
		if err := w.fill(deadline, idle); err != nil {
			return nil, err
		}
	}
}

// limit is max, or more for an AUTH command with its initial response.
func (w *wire) limit(max int) int {
	if win := w.window(); len(win) > 5 && bytes.EqualFold(win[:5], []byte("AUTH ")) {
		return authLineMax
	}
	return max
}

func (w *wire) grow(size int) {
	buf := make([]byte, size)
	w.w = copy(buf, w.window())
	w.r = 0
	w.buf, w.small = buf, buf
}

// enlarge takes a large buffer for a message; shrink gives it back if what is left fits.
func (w *wire) enlarge() {
	if w.big == nil {
		w.big = w.buffers.get()
		w.w = copy(w.big[:], w.window())
		w.r = 0
		w.buf = w.big[:]
	}
}

func (w *wire) shrink() {
	if w.big != nil && w.w-w.r <= len(w.small) {
		w.w = copy(w.small, w.window())
		w.r = 0
		w.buf = w.small
		w.buffers.pool.Put(w.big)
		w.big = nil
	}
}

// unread reports whether the client has sent more than was asked for, as far as that can
// be seen: inside TLS only what came in the same record.
func (w *wire) unread() bool {
	if w.r < w.w {
		return true
	}
	there, _ := pending(socket(w.conn))
	return there
}

// early reports whether the client sends something within d; with d 0, whether there is
// something now.
func (w *wire) early(d time.Duration) bool {
	if d <= 0 {
		if there, ok := pending(w.conn); ok {
			return there
		}
		d = time.Millisecond // behind TLS and PROXY there may be buffers that only Read shows
	}
	w.conn.SetReadDeadline(time.Now().Add(d))
	n, err := w.conn.Read(w.buf[w.w:])
	w.w += n
	if err != nil && !isTimeout(err) {
		w.dead = err
	}
	return n > 0
}

// flush writes the replies that are waiting.
func (w *wire) flush() error {
	if len(w.out) == 0 || w.dead != nil {
		w.out = w.out[:0]
		return w.dead
	}
	w.conn.SetWriteDeadline(time.Now().Add(w.timeouts.Write))
	_, err := w.conn.Write(w.out)
	w.out = w.out[:0]
	w.dead = err
	return err
}

// startTLS makes the handshake, as the server. After an error the connection is dead:
// there is no way back to plain text.
func (w *wire) startTLS(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	conn := tls.Server(w.raw, config)
	err := w.raw.SetDeadline(time.Now().Add(w.timeouts.Handshake))
	if err == nil {
		err = conn.HandshakeContext(ctx)
	}
	if err != nil {
		w.dead = err
		return nil, err
	}
	w.conn = conn
	return conn, w.raw.SetDeadline(time.Time{})
}

// close ends the connection. With linger > 0 it first gives the client time to read the
// last reply, taking up to that many octets: closing a socket with unread input makes the
// kernel send a reset, which can overtake the reply.
func (w *wire) close(linger int64) error {
	w.flush()
	if linger > 0 && w.dead == nil {
		w.raw.SetDeadline(time.Now().Add(w.timeouts.Linger))
		if t, ok := w.conn.(*tls.Conn); ok {
			t.CloseWrite()
		}
		if h, ok := socket(w.raw).(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
			w.enlarge()
			buf := w.buf
			for linger > 0 {
				n, err := w.raw.Read(buf)
				if linger -= int64(n); err != nil {
					break
				}
			}
		}
	}
	w.r, w.w = 0, 0
	w.shrink()
	if w.dead == nil {
		w.dead = net.ErrClosed
		return w.conn.Close()
	}
	return w.raw.Close()
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
