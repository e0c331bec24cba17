package draft

import (
	"bytes"
	"errors"
	"io"
)

// A Reader reads what a plugin wrote, and fails where it is not the wire form of a body: what
// one server takes for a line end and another does not is how mail is smuggled.
type Reader struct {
	r     io.Reader
	left  int64 // bytes
	cr    bool  // the last byte was a CR
	fault error
}

// NewReader returns a reader of a draft, or of a part of it, that has at most max bytes.
func NewReader(r io.Reader, max int64) *Reader { return &Reader{r: r, left: max} }

// Fault is what is wrong with the body so far, by which the plugin breaks the contract; nil:
// nothing.
func (r *Reader) Fault() error { return r.fault }

var (
	errBodySize = errors.New("it is larger than a message may be")
	errBareCR   = errors.New("it has a bare CR: lines end in CRLF")
	errBareLF   = errors.New("it has a bare LF: lines end in CRLF")
	errNUL      = errors.New("it has a NUL")
)

// Read returns the next bytes. It fails with the fault if there is one.
func (r *Reader) Read(p []byte) (int, error) {
	if r.fault != nil {
		return 0, r.fault
	}
	n, err := r.r.Read(p)
	r.left -= int64(n)
	switch {
	case r.left < 0:
		r.fault = errBodySize
	case n > 0:
		r.fault = r.look(p[:n])
	}
	if err == io.EOF && r.cr && r.fault == nil {
		r.fault = errBareCR
	}
	if r.fault != nil {
		return 0, r.fault
	}
	return n, err
}

// look checks one piece. A CRLF may be in two of them.
func (r *Reader) look(p []byte) error {
	if r.cr && p[0] != '\n' {
		return errBareCR
	}
	if bytes.IndexByte(p, 0) >= 0 {
		return errNUL
	}
	if r.cr {
		p = p[1:]
	}
	p, r.cr = bytes.CutSuffix(p, []byte("\r"))
	ends := bytes.Count(p, []byte("\r\n"))
	switch {
	case bytes.Count(p, []byte("\r")) > ends:
		return errBareCR
	case bytes.Count(p, []byte("\n")) > ends:
		return errBareLF
	}
	return nil
}
