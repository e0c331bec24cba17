package smtpd

import (
	"errors"
	"io"
	"time"
)

// Why a message did not come to its end.
var (
	errTooLarge = errors.New("message is larger than the limit")
	errDataLine = errors.New("message has a line that is longer than the limit")
	errAborted  = errors.New("client abandoned the message")
	errSlow     = errors.New("client was too slow")
	errEndless  = errors.New("client does not stop sending a refused message")
	// errEnd is the true end. It is not io.EOF, which a dying connection can say as well.
	errEnd = errors.New("end of the message")
)

// body is a message as it comes in, by DATA or BDAT. Intake reads it.
type body struct {
	s       *session
	dec     decoder
	chunked bool
	chunk   chunk // BDAT: the present chunk
	chunks  int

	size    int64         // octets given to Intake
	taken   int64         // octets of the message taken from the wire
	waited  time.Duration // time spent waiting for the client
	scratch []byte        // where swallowed octets go
	tail    bool          // the CRLF that BDAT left out is still to be given
	onEnd   func()        // called once when the end of the message was read
	err     error         // errEnd: the end was seen
}

// chunk is what a BDAT command announced (RFC 3030 §2).
type chunk struct {
	left int64
	last bool
}

// Read gives the message in wire form.
func (b *body) Read(p []byte) (int, error) {
	for b.err == nil && len(p) > 0 {
		n, err := b.step(p)
		if b.err = err; err == errEnd && b.onEnd != nil {
			b.onEnd()
		}
		if n > 0 {
			return n, nil
		}
	}
	if b.err == errEnd {
		return 0, io.EOF
	}
	if b.err == io.EOF {
		return 0, io.ErrUnexpectedEOF
	}
	return 0, b.err
}

func (b *body) step(p []byte) (int, error) {
	if b.chunked && b.chunk.left == 0 {
		if b.chunk.last {
			return b.finish(p)
		}
		return 0, b.s.nextChunk(b)
	}
	n, err := b.take(p)
	if err != nil {
		return 0, err
	}
	b.size += int64(n)
	limits := &b.s.server.opt.Limits
	switch {
	case b.size > limits.MessageSize:
		return 0, errTooLarge
	case b.dec.long+1 > limits.DataLine: // long has the CR, but not the LF
		return 0, errDataLine
	case b.dec.done:
		return n, errEnd
	}
	return n, nil
}

// take decodes what is buffered, waiting for more if there is nothing.
func (b *body) take(p []byte) (int, error) {
	w := b.s.w
	if w.r == w.w {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	src := w.window()
	if b.chunked && int64(len(src)) > b.chunk.left {
		src = src[:b.chunk.left]
	}
	n, used, err := b.dec.decode(p, src)
	w.consume(used)
	b.taken += int64(used)
	b.chunk.left -= int64(used)
	return n, err
}

// finish ends a message that came in chunks. BDAT does not ask for a line end at the end
// of a message, but every other transport does: it gets one.
func (b *body) finish(p []byte) (int, error) {
	switch {
	case b.dec.state == afterCR:
		return 0, errBareCRInData
	case b.dec.state != lineStart && !b.tail:
		b.tail = true
		p[0] = '\r'
		return 1, nil
	case b.tail:
		b.tail = false
		b.dec.state = lineStart
		p[0] = '\n'
		return 1, errEnd
	}
	return 0, errEnd
}

// fill waits for input: at most Timeouts.Data at a time, and over the whole message no
// longer than the least acceptable rate allows.
func (b *body) fill() error {
	t, limits := b.s.w.timeouts, &b.s.server.opt.Limits
	allowed := t.Grace + time.Duration(float64(b.taken)/float64(limits.MinRate)*float64(time.Second)) - b.waited
	start := time.Now()
	err := b.s.w.fill(start.Add(min(t.Data, allowed)), false)
	b.waited += time.Since(start)
	if isTimeout(err) {
		return errSlow
	}
	return err
}

// swallow takes what is left of a message, or of the present chunk, that was refused
// before its end, so that it is not read as commands. After an error the connection
// cannot be used any more.
func (b *body) swallow() error {
	switch b.err {
	case nil, errTooLarge, errDataLine:
	case errEnd, errAborted:
		return nil
	default:
		return b.err
	}
	if b.chunked {
		return b.s.skip(b.chunk.left)
	}
	if b.scratch == nil {
		b.scratch = make([]byte, smallBuffer)
	}
	most := b.taken + b.s.server.swallowMax()
	for !b.dec.done {
		if _, err := b.take(b.scratch); err != nil {
			return err
		}
		if b.taken > most {
			return errEndless
		}
	}
	return nil
}
