package wire

import (
	"bytes"
	"errors"
)

// Faults of the line ends in a message.
var (
	ErrBareCR = errors.New("bare CR in a message")
	ErrBareLF = errors.New("bare LF in a message")
	ErrNUL    = errors.New("NUL in a message")
)

// decoder checks the line ends of a message (RFC 5321 §2.3.8) and, with dots, undoes
// dot-stuffing and finds its end (§4.5.2). Its zero value is at the start of a message.
type decoder struct {
	dots  bool
	state decoderState
	line  int // octets of the present line
	long  int // octets of the longest line
	done  bool
}

type decoderState uint8

const (
	lineStart decoderState = iota
	inLine
	afterCR
	afterDot   // "." at the start of a line
	afterDotCR // ".CR" at the start of a line
)

// decode copies from src to dst until one of them is used up, or the end of the message or
// a fault is found. It returns how many octets it wrote and how many it used.
func (d *decoder) decode(dst, src []byte) (n, used int, err error) {
	for used < len(src) && n < len(dst) && !d.done {
		c := src[used]
		switch d.state {
		case lineStart:
			d.state = inLine
			if d.dots && c == '.' {
				d.state = afterDot
				used++
			}
		case afterDot:
			// A dot that is not the whole line was put there by the client: drop it.
			d.state = inLine
			if c == '\r' {
				d.state = afterDotCR
				used++
			}
		case afterDotCR:
			if c != '\n' {
				return n, used, ErrBareCR
			}
			used++
			d.done = true
		case afterCR:
			if c != '\n' {
				return n, used, ErrBareCR
			}
			dst[n] = c
			n++
			used++
			d.state = lineStart
			d.line = 0
		case inLine:
			k, cr, err := d.run(dst[n:], src[used:])
			n += k
			used += k
			if err != nil {
				return n, used, err
			}
			if cr {
				d.state = afterCR
			}
		}
	}
	return n, used, nil
}

// run copies octets of a line, up to and with its CR.
func (d *decoder) run(dst, src []byte) (n int, cr bool, err error) {
	if len(src) > len(dst) {
		src = src[:len(dst)]
	}
	if i := bytes.IndexByte(src, '\r'); i >= 0 {
		src, cr = src[:i+1], true
	}
	if bytes.IndexByte(src, '\n') >= 0 {
		return 0, false, ErrBareLF
	}
	if bytes.IndexByte(src, 0) >= 0 {
		return 0, false, ErrNUL
	}
	d.line += len(src)
	d.long = max(d.long, d.line)
	return copy(dst, src), cr, nil
}
