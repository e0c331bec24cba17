package mime

import (
	"io"
)

// decoder decodes a transfer encoding as it is read. Errors are those of the reader under
// it: what is malformed is passed over, as readers of mail do, and noted.
type decoder struct {
	r     io.Reader
	step  func(d *decoder, in []byte, eof bool) // appends to out
	in    [8 << 10]byte
	out   []byte
	at    int // of out, what has been read
	err   error
	state decodeState
}

type decodeState struct {
	bits   uint32 // base64: what has come of a quantum
	chars  int    // how many characters of it
	padded bool   // base64: the end has come
	hold   []byte // quoted-printable: an escape that is not complete
	odd    bool
}

// newDecoder returns a reader of what is decoded. state.odd says, at the end, whether
// there was something that readers of mail do not agree about.
func newDecoder(r io.Reader, e Encoding) *decoder {
	d := &decoder{r: r, step: (*decoder).base64}
	if e == QuotedPrintable {
		d.step = (*decoder).quotedPrintable
	}
	return d
}

func (d *decoder) Read(p []byte) (int, error) {
	for d.at == len(d.out) {
		if d.err != nil {
			return 0, d.err
		}
		d.out, d.at = d.out[:0], 0
		n, err := d.r.Read(d.in[:])
		d.step(d, d.in[:n], err == io.EOF)
		d.err = err
	}
	n := copy(p, d.out[d.at:])
	d.at += n
	return n, nil
}

// base64 characters: their value, or one of these.
const (
	b64Space = 0x40 + iota
	b64Pad
	b64Other
)

// base64 decodes by RFC 2045 §6.8. What follows the padding is decoded as well, and odd.
func (d *decoder) base64(in []byte, eof bool) {
	s := &d.state
	for _, c := range in {
		v := base64Value(c)
		switch {
		case v < 0x40:
			if s.padded {
				s.padded, s.odd = false, true
			}
			s.bits = s.bits<<6 | uint32(v)
			if s.chars++; s.chars == 4 {
				d.out = append(d.out, byte(s.bits>>16), byte(s.bits>>8), byte(s.bits))
				s.bits, s.chars = 0, 0
			}
		case v == b64Pad:
			d.rest()
			s.padded = true
		case v == b64Other:
			s.odd = true
		}
	}
	if eof {
		d.rest()
	}
}

// rest decodes a quantum that is not complete.
func (d *decoder) rest() {
	s := &d.state
	switch s.chars {
	case 2:
		d.out = append(d.out, byte(s.bits>>4))
	case 3:
		d.out = append(d.out, byte(s.bits>>10), byte(s.bits>>2))
	}
	s.bits, s.chars = 0, 0
}

func base64Value(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A'
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26
	case c >= '0' && c <= '9':
		return c - '0' + 52
	case c == '+':
		return 62
	case c == '/':
		return 63
	case c == '\r', c == '\n', c == ' ', c == '\t':
		return b64Space
	case c == '=':
		return b64Pad
	}
	return b64Other
}

// maxHold bounds white space after a soft line break's "=", which is to be passed over.
const maxHold = 1000

// quotedPrintable decodes by RFC 2045 §6.7. An escape that is none is left as it is.
func (d *decoder) quotedPrintable(in []byte, eof bool) {
	hold := d.state.hold
	for _, c := range in {
		if len(hold) == 0 {
			if c == '=' {
				hold = append(hold, c)
			} else {
				d.out = append(d.out, c)
			}
			continue
		}
		hold = append(hold, c)
		hold = d.escape(hold)
	}
	if eof && len(hold) > 1 {
		d.out = append(d.out, hold...)
		hold = hold[:0]
	}
	d.state.hold = hold
}

// escape decodes what begins with "=" if it is complete, and returns what is not.
func (d *decoder) escape(hold []byte) []byte {
	c := hold[len(hold)-1]
	blank := len(hold) > 2 && (hold[1] == ' ' || hold[1] == '\t')
	switch {
	case c == '\n':
		return hold[:0]
	case c == '\r' && (len(hold) == 2 || blank):
		return hold
	case len(hold) == 2:
		if _, ok := hexDigit(c); ok || c == ' ' || c == '\t' {
			return hold
		}
	case blank && (c == ' ' || c == '\t') && len(hold) < maxHold:
		return hold
	case len(hold) == 3:
		if v, ok := hexByte(hold[1], c); ok {
			d.out = append(d.out, v)
			return hold[:0]
		}
	}
	d.state.odd = true
	if c == '=' { // another one begins
		d.out = append(d.out, hold[:len(hold)-1]...)
		return append(hold[:0], '=')
	}
	d.out = append(d.out, hold...)
	return hold[:0]
}
