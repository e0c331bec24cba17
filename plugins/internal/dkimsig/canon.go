package dkimsig

import (
	"bytes"
	"errors"
	"strings"
)

// Canon is a canonicalization (RFC 6376 §3.4).
type Canon uint8

// The canonicalizations.
const (
	Simple Canon = iota
	Relaxed
)

// String is the name in c=.
func (c Canon) String() string {
	if c == Relaxed {
		return "relaxed"
	}
	return "simple"
}

// parseCanon reads c=. The body is simple where only the header is said (RFC 6376 §3.5).
func parseCanon(s string) (header, body Canon, err error) {
	h, b, both := strings.Cut(s, "/")
	var canons [2]Canon
	for i, name := range []string{h, b} {
		switch {
		case name == "relaxed":
			canons[i] = Relaxed
		case name == "simple", i == 1 && !both:
		default:
			return 0, 0, errors.New("tag c has an unknown canonicalization")
		}
	}
	return canons[0], canons[1], nil
}

// appendField appends a canonicalized field with its CRLF. raw is the field as it stands.
func appendField(dst, raw []byte, c Canon) []byte {
	if c == Simple {
		dst = append(dst, raw...)
		if !bytes.HasSuffix(raw, []byte("\r\n")) {
			dst = append(dst, "\r\n"...)
		}
		return dst
	}
	i := bytes.IndexByte(raw, ':')
	dst = append(dst, bytes.ToLower(bytes.TrimRight(raw[:i], " \t"))...)
	dst = append(dst, ':')
	start, white := len(dst), false
	for v := raw[i+1:]; len(v) > 0; {
		switch {
		case v[0] == ' ' || v[0] == '\t':
			white = true
		case v[0] == '\r' && len(v) > 1 && v[1] == '\n':
			v = v[1:]
		default:
			n := run(v)
			if white && len(dst) > start {
				dst = append(dst, ' ')
			}
			white = false
			dst = append(dst, v[:n]...)
			v = v[n:]
			continue
		}
		v = v[1:]
	}
	return append(dst, "\r\n"...)
}

// run is how many bytes at the start of v, at least one, stay as they are.
func run(v []byte) int {
	n := 1
	for n < len(v) && v[n] != ' ' && v[n] != '\t' && v[n] != '\r' {
		n++
	}
	return n
}

// WithoutValue returns a signature's field with the value of b= and the white space around
// it removed, as it is when it is signed (RFC 6376 §3.5). It reports whether there is a b=.
func WithoutValue(raw []byte) ([]byte, bool) {
	pos := bytes.IndexByte(raw, ':') + 1
	for {
		end := len(raw)
		if i := bytes.IndexByte(raw[pos:], ';'); i >= 0 {
			end = pos + i
		}
		if i := bytes.IndexByte(raw[pos:end], '='); i >= 0 && string(bytes.Trim(raw[pos:pos+i], fws)) == "b" {
			out := append([]byte{}, raw[:pos+i+1]...)
			if end == len(raw) {
				return append(out, "\r\n"...), true
			}
			return append(out, raw[end:]...), true
		}
		if end == len(raw) {
			return nil, false
		}
		pos = end + 1
	}
}
