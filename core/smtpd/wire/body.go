package wire

import (
	"errors"
	"io"
	"time"
)

// Why a message did not come to its end; see also [ErrSlow], [ErrBareCR], [ErrBareLF] and [ErrNUL].
var (
	ErrTooLarge = errors.New("message is larger than the limit")
	ErrDataLine = errors.New("message has a line that is longer than the limit")
	ErrAborted  = errors.New("client abandoned the message")
	ErrEndless  = errors.New("client does not stop sending a refused message")
	// ErrEnd is the true end. It is not io.EOF, which a dying connection can say as well.
	ErrEnd = errors.New("end of the message")
)

// Limits bound a message. All of them count.
type Limits struct {
	Size    int64         // octets of the message
	Line    int           // octets of a line with its CRLF
	Refused int64         // octets that are taken of what is left of a message that was refused
	Pause   time.Duration // between two parts
	Grace   time.Duration // before Rate counts
	Rate    int           // octets a second, on average
}

// Body is a message as it comes in, by DATA or BDAT. It is in wire form, without the dots that
// DATA asks for.
type Body struct {
	c      *Conn
	limits *Limits
	dec    decoder
	next   func() error // BDAT: waits for the next chunk
	left   int64        // BDAT: octets of the present chunk
	last   bool         // BDAT: it is the last one

	size   int64         // octets given to the reader
	taken  int64         // octets of the message taken from the wire
	waited time.Duration // time spent waiting for the client
	tail   bool          // the CRLF that BDAT left out is still to be given
	onEnd  func()
	err    error // ErrEnd: the end was seen
}

// Data begins a message that ends with a line of one dot (RFC 5321 §4.1.1.4).
func (c *Conn) Data(l *Limits) *Body { return &Body{c: c, limits: l, dec: decoder{dots: true}} }

// Chunks begins a message in chunks (RFC 3030 §2). When the present one is used up and was not
// the last, next has to wait for another and announce it with [Body.Chunk]; an error ends the
// message, [ErrAborted] if the client does not want to go on.
func (c *Conn) Chunks(l *Limits, next func() error) *Body {
	return &Body{c: c, limits: l, next: next}
}

// Chunk announces a chunk. One that the message has no more room for is the fault of the message.
func (b *Body) Chunk(size int64, last bool) {
	b.left, b.last = size, last
	if size > b.limits.Size-b.size {
		b.err = ErrTooLarge
	}
}

// Chunked reports whether the message comes in chunks.
func (b *Body) Chunked() bool { return b.next != nil }

// Size is how much of the message was read, in octets.
func (b *Body) Size() int64 { return b.size }

// Err is how reading ended: nil if it did not yet, ErrEnd if the end was seen, otherwise the
// fault.
func (b *Body) Err() error { return b.err }

// OnEnd has f called once when the end of the message was read.
func (b *Body) OnEnd(f func()) { b.onEnd = f }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	b.c.enlarge()
	for b.err == nil && len(p) > 0 {
		n, err := b.step(p)
		if b.err = err; err == ErrEnd && b.onEnd != nil {
			b.onEnd()
		}
		if n > 0 {
			return n, nil
		}
	}
	if b.err == ErrEnd {
		return 0, io.EOF
	}
	if b.err == io.EOF {
		return 0, io.ErrUnexpectedEOF
	}
	return 0, b.err
}

func (b *Body) step(p []byte) (int, error) {
	if b.Chunked() && b.left == 0 {
		if b.last {
			return b.finish(p)
		}
		if err := b.next(); err != nil {
			return 0, err
		}
		return 0, b.err
	}
	n, err := b.take(p)
	if err != nil {
		return 0, err
	}
	b.size += int64(n)
	switch {
	case b.size > b.limits.Size:
		return 0, ErrTooLarge
	case b.dec.long+1 > b.limits.Line: // long has the CR, but not the LF
		return 0, ErrDataLine
	case b.dec.done:
		return n, ErrEnd
	}
	return n, nil
}

// take decodes what is buffered, waiting for more if there is nothing.
func (b *Body) take(p []byte) (int, error) {
	if !b.c.Buffered() {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	src := b.c.window()
	if b.Chunked() && int64(len(src)) > b.left {
		src = src[:b.left]
	}
	n, used, err := b.dec.decode(p, src)
	b.c.consume(used)
	b.taken += int64(used)
	b.left -= int64(used)
	return n, err
}

// finish ends a message that came in chunks. BDAT does not ask for a line end at the end
// of a message, but every other transport does: it gets one.
func (b *Body) finish(p []byte) (int, error) {
	switch {
	case b.dec.state == afterCR:
		return 0, ErrBareCR
	case b.dec.state != lineStart && !b.tail:
		b.tail = true
		p[0] = '\r'
		return 1, nil
	case b.tail:
		b.tail = false
		b.dec.state = lineStart
		p[0] = '\n'
		return 1, ErrEnd
	}
	return 0, ErrEnd
}

// fill waits for input: at most Pause at a time, and over the whole message no longer than
// the least acceptable rate allows.
func (b *Body) fill() error {
	l := b.limits
	allowed := l.Grace + time.Duration(float64(b.taken)/float64(l.Rate)*float64(time.Second)) - b.waited
	start := time.Now()
	err := b.c.fill(start.Add(min(l.Pause, allowed)), false)
	b.waited += time.Since(start)
	return err
}

// Skip takes what is left of a message, or of the present chunk, that was refused before its
// end, so that it is not read as commands. After an error the connection cannot be used any
// more.
func (b *Body) Skip() error {
	switch b.err {
	case nil, ErrTooLarge, ErrDataLine:
	case ErrEnd, ErrAborted:
		return nil
	default:
		return b.err
	}
	if b.Chunked() {
		return b.c.Skip(b.left, b.limits)
	}
	scratch := make([]byte, smallBuffer)
	most := b.taken + b.limits.Refused
	for !b.dec.done {
		if _, err := b.take(scratch); err != nil {
			return err
		}
		if b.taken > most {
			return ErrEndless
		}
	}
	return nil
}

// Skip takes n octets that belong to a refused chunk.
func (c *Conn) Skip(n int64, l *Limits) error {
	if n > l.Refused {
		return ErrEndless
	}
	b := Body{c: c, limits: l}
	for n > 0 {
		if !c.Buffered() {
			if err := b.fill(); err != nil {
				return err
			}
		}
		k := min(n, int64(c.w-c.r))
		c.consume(int(k))
		b.taken += k
		n -= k
	}
	return nil
}

// Release gives back the buffer that the message was read with.
func (b *Body) Release() { b.c.shrink() }
