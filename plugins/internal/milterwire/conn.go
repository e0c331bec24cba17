package milterwire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/emersion/go-milter"
)

// Limits of what a milter may send.
const (
	MaxPacket  = 1 << 20 // bytes of one packet; the protocol knows no more than 64 KiB
	MaxChanges = 999     // changes of one message, pieces of a body not counted
	maxBytes   = 4 << 20 // bytes of all changes of one message, without the body
)

// MaxField is how many bytes a header field may have for a milter: libmilter refuses packets
// of more than 65535 bytes.
const MaxField = 65535 - 2

// What is offered in the negotiation: all changes that there are, and every part of the
// protocol that has to be offered, but not recipients that the gateway itself refused: there
// are none.
const (
	Actions  = milter.OptAction(0x1ff)
	Protocol = milter.OptProtocol(0x1fffff) &^ milter.OptRcptRej
)

// ProtocolError says that what a milter sent is against the protocol.
type ProtocolError string

func (e ProtocolError) Error() string { return "milter protocol: " + string(e) }

func protocolErrorf(format string, args ...any) error {
	return ProtocolError(fmt.Sprintf(format, args...))
}

// Step is what may be answered to the command that is sent next.
type Step uint8

// The steps.
const (
	Negotiation Step = iota
	Plain            // one answer
	Content          // a piece of the body: one answer, or skip
	End              // the end of the message: changes, then one answer
)

// Conn is one connection to a milter. Its zero value is not usable.
type Conn struct {
	net.Conn
	w *bufio.Writer
	r *bufio.Reader

	step    Step
	timeout time.Duration
	buf     bytes.Buffer // the packet that came last
	in      []byte       // what is left of the one that is being handed to the client
	changes int
	bytes   int

	// Body takes a new body, piece by piece. Nil: there must be none.
	Body func(piece []byte) error
	// Macros are the lists of macros that the milter asked for, by stage.
	Macros map[milter.Stage]string
	// Version is the milter's version of the protocol.
	Version uint32

	// Skipped says that the milter wants no more of the body.
	Skipped bool
	// Gone says that the milter wants the connection ended; the client was told "not now".
	Gone bool
	// Parameters counts added recipients whose ESMTP parameters were left out.
	Parameters int
	// Replaced says that the milter sent a new body, which may be empty.
	Replaced bool
}

// New wraps a connection.
func New(c net.Conn) *Conn {
	return &Conn{Conn: c, w: bufio.NewWriterSize(c, 16<<10), r: bufio.NewReaderSize(c, 4<<10)}
}

// Begin says which command comes, and how long each packet of its answer may take.
func (c *Conn) Begin(s Step, timeout time.Duration) { c.step, c.timeout = s, timeout }

// Write collects what the client sends.
func (c *Conn) Write(p []byte) (int, error) {
	if c.w.Available() < len(p) {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return 0, err
		}
	}
	return c.w.Write(p)
}

func (c *Conn) flush() error {
	if c.w.Buffered() == 0 {
		return nil
	}
	if c.r.Buffered() > 0 { // it would be taken for the answer to what is sent now
		return protocolErrorf("an answer to nothing")
	}
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	return c.w.Flush()
}

// goodbye is how long the last words may take: nobody waits for them.
const goodbye = time.Second

// Close sends what is still to be sent, and closes.
func (c *Conn) Close() error {
	c.timeout = min(c.timeout, goodbye)
	c.flush()
	return c.Conn.Close()
}

// Abandon closes the connection at once. It may be called from any goroutine, at any time.
func (c *Conn) Abandon() { c.Conn.Close() }

// Read gives the client the next packet that it understands.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.in) == 0 {
		code, data, err := c.packet()
		if err != nil {
			return 0, err
		}
		out, ok, err := c.translate(code, data)
		if err != nil {
			return 0, err
		}
		if ok {
			c.in = out
		}
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// packet reads one packet, whatever it is. The data is good until the next one.
func (c *Conn) packet() (code byte, data []byte, err error) {
	if err := c.flush(); err != nil {
		return 0, nil, err
	}
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, nil, err
	}
	if c.step == End && c.r.Buffered() == 0 {
		quickAck(c.Conn) // the kernel forgets it after a while
	}
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, lost(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxPacket {
		return 0, nil, protocolErrorf("a packet of %d bytes", n)
	}
	c.buf.Reset() // grows with what comes, not with what was announced
	if _, err := io.CopyN(&c.buf, c.r, int64(n)); err != nil {
		return 0, nil, lost(err)
	}
	return c.buf.Bytes()[0], c.buf.Bytes()[1:], nil
}

// ErrLost says that the milter ended the connection in the middle of a message.
var ErrLost = errors.New("milter: connection lost")

func lost(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrLost
	}
	return err
}

func frame(code byte, data []byte) []byte {
	b := make([]byte, 5, 5+len(data))
	binary.BigEndian.PutUint32(b, uint32(len(data)+1))
	b[4] = code
	return append(b, data...)
}
