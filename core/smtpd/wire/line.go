package wire

import (
	"bytes"
	"errors"
	"time"
)

// Lengths of command lines with their CRLF, in octets.
const (
	MaxCommand = 2048  // RFC 5321 §4.5.3.1.4 asks for 512; parameters need more
	MaxAuth    = 12288 // RFC 4954 §4
)

// Why input is not a command line.
var (
	ErrCommandLF   = errors.New("bare LF in a command")
	ErrLongCommand = errors.New("command line is too long")
	ErrBinary      = errors.New("input is not SMTP")
)

// Command returns the next command line without its CRLF, waiting for the whole of it until
// wait is over. idle says that the session has nothing under way, so that Drain may end the
// wait. The slice is valid until the next read.
func (c *Conn) Command(wait time.Duration, idle bool) ([]byte, error) {
	return c.line(MaxCommand, time.Now().Add(wait), idle)
}

// Response returns the next line as Command does, where a SASL response is due.
func (c *Conn) Response(wait time.Duration) ([]byte, error) {
	return c.line(MaxAuth, time.Now().Add(wait), true)
}

func (c *Conn) line(max int, deadline time.Time, idle bool) ([]byte, error) {
	for {
		win := c.window()
		if i := bytes.IndexByte(win[c.scanned:], '\n'); i >= 0 {
			i += c.scanned
			switch {
			case i+1 > c.limit(max):
				return nil, ErrLongCommand
			case i == 0 || win[i-1] != '\r':
				return nil, ErrCommandLF
			}
			c.consume(i + 1)
			return win[:i-1], nil
		}
		c.scanned = len(win)
		limit := c.limit(max)
		switch {
		case len(win) >= limit:
			return nil, ErrLongCommand
		case len(win) > 0 && win[0] < ' ' && win[0] != '\r':
			return nil, ErrBinary // a TLS ClientHello, for one
		case limit > len(c.buf):
			c.grow(limit)
		}
		if err := c.fill(deadline, idle); err != nil {
			return nil, err
		}
	}
}

// limit is max, or more for an AUTH command with its initial response.
func (c *Conn) limit(max int) int {
	if win := c.window(); len(win) > 5 && bytes.EqualFold(win[:5], []byte("AUTH ")) {
		return MaxAuth
	}
	return max
}

func (c *Conn) grow(size int) {
	buf := make([]byte, size)
	c.w = copy(buf, c.window())
	c.r = 0
	c.buf, c.small = buf, buf
}

// Buffered reports whether there is input that was taken from the connection, but not read.
func (c *Conn) Buffered() bool { return c.r < c.w }

// Unread reports whether the client has sent more than was asked for, as far as that can
// be seen: inside TLS only what came in the same record.
func (c *Conn) Unread() bool {
	if c.Buffered() {
		return true
	}
	there, _ := pending(socket(c.conn))
	return there
}

// Early reports whether the client sends something within wait; with 0, whether there is
// something now.
func (c *Conn) Early(wait time.Duration) bool {
	if wait <= 0 {
		if there, ok := pending(c.conn); ok {
			return there
		}
		wait = time.Millisecond // behind TLS and PROXY there may be buffers that only Read shows
	}
	c.conn.SetReadDeadline(time.Now().Add(wait))
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if err != nil && !isTimeout(err) {
		c.dead = err
	}
	return n > 0
}
