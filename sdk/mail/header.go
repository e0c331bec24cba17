package mail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Header is a header block with its exact bytes: editing one field leaves every other
// byte alone. The zero Header is an empty header block.
//
// Block holds everything up to and with the blank line that separates the body (CRLF line
// ends). A message without that blank line keeps being one: the block then simply ends.
// Methods that change a Header replace its bytes and never write into them, so copies of
// a Header value are independent.
type Header struct {
	raw []byte // fields and the separator, if the message has one
}

// Field is one header field.
type Field struct {
	Name string // as written
	raw  []byte // with name, colon, folding and final CRLF
}

// Raw is the field as it stands in the message, with its final CRLF.
func (f Field) Raw() []byte { return f.raw }

// Value is the field's body, unfolded: line ends removed (RFC 5322 §2.2.3), outer white
// space trimmed.
func (f Field) Value() string {
	v := f.raw[len(f.Name):]
	if i := bytes.IndexByte(v, ':'); i >= 0 {
		v = v[i+1:]
	}
	v = bytes.TrimSpace(v)
	if bytes.IndexByte(v, '\n') < 0 { // most are not folded
		return string(v)
	}
	return strings.NewReplacer("\r\n", "", "\n", "").Replace(string(v))
}

// NewHeader wraps a header block, which must not be changed afterwards. It accepts any
// bytes: what does not look like a field is kept and never found by name.
func NewHeader(block []byte) Header { return Header{block} }

// Block returns the bytes of the block, with its separator. They must not be changed.
func (h Header) Block() []byte { return h.raw }

// SplitMessage cuts a whole message into its header block, with the separator, and its
// body. A message that begins with something that is not a field has an empty header.
func SplitMessage(msg []byte) (Header, []byte) {
	pos, done := scanHeader(msg, 0)
	if !done {
		pos = headerAtEOF(msg, pos)
	}
	return Header{msg[:pos:pos]}, msg[pos:]
}

// ErrHeaderTooLarge says that a header block exceeds the limit.
var ErrHeaderTooLarge = errors.New("header block is too large")

// ReadHeader reads the header block from r, the start of a message, and returns it with
// the bytes that were read beyond it. A block of more than max bytes is ErrHeaderTooLarge.
func ReadHeader(r io.Reader, max int) (h Header, rest []byte, err error) {
	buf := make([]byte, 0, 4096)
	pos := 0
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var done bool
		pos, done = scanHeader(buf, pos)
		if err == io.EOF && !done {
			pos, done = headerAtEOF(buf, pos), true
		}
		if pos > max || !done && len(buf) > max {
			return Header{}, nil, ErrHeaderTooLarge
		}
		if done {
			return Header{buf[:pos:pos]}, buf[pos:], nil
		}
		if err != nil {
			return Header{}, nil, err
		}
	}
}

// scanHeader looks for the end of the header block, beginning at the start of a line at
// pos. It returns the end, or the start of the line that is still incomplete.
func scanHeader(msg []byte, pos int) (int, bool) {
	for pos < len(msg) {
		line := msg[pos:]
		i := bytes.IndexByte(line, '\n')
		if i == 0 || i == 1 && line[0] == '\r' {
			return pos + i + 1, true
		}
		if !mayBeHeader(line, pos) || i >= 0 && !isField(line) && !isFold(line) {
			return pos, true
		}
		if i < 0 {
			return pos, false
		}
		pos += i + 1
	}
	return pos, false
}

// headerAtEOF ends a header block whose last line, at pos, has no line end.
func headerAtEOF(msg []byte, pos int) int {
	if pos < len(msg) && (isField(msg[pos:]) || pos > 0 && isFold(msg[pos:])) {
		return len(msg)
	}
	return pos
}

// mayBeHeader reports whether line, perhaps incomplete, can still turn out to be a field,
// a folded line of one, or the separator.
func mayBeHeader(line []byte, pos int) bool {
	if isFold(line) {
		return pos > 0
	}
	n := nameLen(line)
	if n == len(line) {
		return n < maxFieldName
	}
	if n == 0 {
		return line[0] == '\r' && len(line) == 1
	}
	for n < len(line) && (line[n] == ' ' || line[n] == '\t') {
		n++
	}
	return n == len(line) || line[n] == ':'
}

// maxFieldName ends the search for the colon of a field: no name is that long, in octets
// (RFC 5322 §2.1.1 allows lines of 998).
const maxFieldName = 1000

func isFold(line []byte) bool { return line[0] == ' ' || line[0] == '\t' }

// isField reports whether line begins with a field name and a colon (RFC 5322 §2.2,
// with the obsolete white space before the colon of §4.5).
func isField(line []byte) bool {
	i := nameLen(line)
	if i == 0 || i >= maxFieldName {
		return false
	}
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	return i < len(line) && line[i] == ':'
}

func nameLen(line []byte) int {
	i := 0
	for i < len(line) && line[i] > ' ' && line[i] < 0x7f && line[i] != ':' {
		i++
	}
	return i
}

// next returns the length of the field (or stray line) at the start of b, 0 at the end of
// the fields.
func next(b []byte) int {
	if len(b) == 0 || b[0] == '\n' || len(b) > 1 && b[0] == '\r' && b[1] == '\n' {
		return 0
	}
	pos := 0
	for {
		i := bytes.IndexByte(b[pos:], '\n')
		if i < 0 {
			return len(b)
		}
		pos += i + 1
		if pos == len(b) || !isFold(b[pos:]) {
			return pos
		}
	}
}

// Fields iterates over the fields, from the top.
func (h Header) Fields(yield func(i int, f Field) bool) {
	i := 0
	for b := h.raw; ; {
		n := next(b)
		if n == 0 {
			return
		}
		if isField(b) {
			if !yield(i, Field{string(b[:nameLen(b)]), b[:n:n]}) {
				return
			}
			i++
		}
		b = b[n:]
	}
}

// find calls yield with the byte range of every field called name.
func (h Header) find(name string, yield func(from, to int) bool) {
	pos := 0
	for {
		n := next(h.raw[pos:])
		if n == 0 {
			return
		}
		b := h.raw[pos : pos+n]
		if k := nameLen(b); k == len(name) && isField(b) && strings.EqualFold(string(b[:k]), name) {
			if !yield(pos, pos+n) {
				return
			}
		}
		pos += n
	}
}

// Get returns the value of the first field called name, "" if there is none.
func (h Header) Get(name string) string {
	v := ""
	h.find(name, func(from, to int) bool {
		v = Field{name, h.raw[from:to]}.Value()
		return false
	})
	return v
}

// Values returns the values of every field called name, from the top.
func (h Header) Values(name string) []string {
	var vs []string
	h.find(name, func(from, to int) bool {
		vs = append(vs, Field{name, h.raw[from:to]}.Value())
		return true
	})
	return vs
}

// Has reports whether there is a field called name.
func (h Header) Has(name string) bool {
	found := false
	h.find(name, func(int, int) bool { found = true; return false })
	return found
}

// Count returns the number of fields called name.
func (h Header) Count(name string) int {
	n := 0
	h.find(name, func(int, int) bool { n++; return true })
	return n
}

// Prepend adds a field at the top. The value may be folded (CRLF and white space).
func (h *Header) Prepend(name, value string) error { return h.Insert(0, name, value) }

// Append adds a field after the last one.
func (h *Header) Append(name, value string) error { return h.Insert(-1, name, value) }

// Insert adds a field before the one at index (counted over all fields, from 0); an index
// below zero or beyond the last field means after the last one.
func (h *Header) Insert(index int, name, value string) error {
	line, err := FormatField(name, value)
	if err != nil {
		return err
	}
	h.splice(h.offset(index), 0, line)
	return nil
}

// PrependRaw adds bytes made of whole fields, each with its CRLF, at the top.
func (h *Header) PrependRaw(fields []byte) { h.splice(0, 0, fields) }

// Separated reports whether the block ends with the blank line that separates it from the
// body.
func (h Header) Separated() bool {
	b := bytes.TrimSuffix(bytes.TrimSuffix(h.raw, []byte("\n")), []byte("\r"))
	return len(b) < len(h.raw) && (len(b) == 0 || b[len(b)-1] == '\n')
}

// Separate ends the block with the blank line that it lacks where a line that is no field
// follows it. Readers do not agree on what such a line is: some go on to look for fields
// after it. With the blank line all see the same header.
func (h *Header) Separate() {
	if !h.Separated() {
		h.raw = append(h.raw[:len(h.raw):len(h.raw)], '\r', '\n')
	}
}

// IsField reports whether a line begins as a header field does.
func IsField(line []byte) bool { return isField(line) }

// Change replaces the value of the index-th field called name (from 0). It reports
// whether there was one.
func (h *Header) Change(name string, index int, value string) (bool, error) {
	line, err := FormatField(name, value)
	if err != nil {
		return false, err
	}
	return h.replace(name, index, line), nil
}

// Remove removes the index-th field called name (from 0; all of them when index is below
// zero). It reports whether there was one.
func (h *Header) Remove(name string, index int) bool {
	if index >= 0 {
		return h.replace(name, index, nil)
	}
	// In one pass: a sender decides how many there are.
	return h.Has(name) && h.RemoveIf(func(f Field) bool { return strings.EqualFold(f.Name, name) }) > 0
}

// RemoveIf removes every field for which drop reports true and returns their number.
func (h *Header) RemoveIf(drop func(Field) bool) int {
	return h.ReplaceIf(func(f Field) ([]byte, bool) { return nil, drop(f) })
}

// ReplaceIf puts what with returns in the place of every field for which it reports true:
// whole fields, each with its CRLF, or nothing. It returns the number of fields replaced.
func (h *Header) ReplaceIf(with func(Field) ([]byte, bool)) int {
	var out []byte
	n := 0
	last := 0
	for pos := 0; ; {
		l := next(h.raw[pos:])
		if l == 0 {
			break
		}
		b := h.raw[pos : pos+l]
		if isField(b) {
			if line, ok := with(Field{string(b[:nameLen(b)]), b[:l:l]}); ok {
				out = append(out, h.raw[last:pos]...)
				out = append(out, line...)
				last = pos + l
				n++
			}
		}
		pos += l
	}
	if n > 0 {
		h.raw = append(out, h.raw[last:]...)
	}
	return n
}

func (h *Header) replace(name string, index int, line []byte) bool {
	i, done := 0, false
	h.find(name, func(from, to int) bool {
		if i == index {
			h.splice(from, to-from, line)
			done = true
			return false
		}
		i++
		return true
	})
	return done
}

func (h *Header) splice(at, remove int, insert []byte) {
	out := make([]byte, 0, len(h.raw)+len(insert)-remove+2)
	out = append(out, h.raw[:at]...)
	if at > 0 && len(insert) > 0 && out[at-1] != '\n' {
		out = append(out, '\r', '\n')
	}
	out = append(out, insert...)
	if at == 0 && len(h.raw) == 0 {
		out = append(out, '\r', '\n') // an empty header needs its separator now
	}
	h.raw = append(out, h.raw[at+remove:]...)
}

// offset is where the field at index begins.
func (h Header) offset(index int) int {
	pos, i := 0, 0
	for {
		n := next(h.raw[pos:])
		if n == 0 || i == index {
			return pos
		}
		if isField(h.raw[pos:]) {
			i++
		}
		pos += n
	}
}

// FormatField checks a field and returns it with its final CRLF. The name must be a
// field name and the value must not be able to begin another field: CRLF only before
// white space, no bare CR, LF or NUL.
func FormatField(name, value string) ([]byte, error) {
	if name == "" || nameLen([]byte(name)) != len(name) {
		return nil, fmt.Errorf("%q is not a header field name", name)
	}
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case 0:
			return nil, fmt.Errorf("value of header field %s has a NUL", name)
		case '\n':
			return nil, fmt.Errorf("value of header field %s has a bare LF", name)
		case '\r':
			if i+2 >= len(value) || value[i+1] != '\n' || value[i+2] != ' ' && value[i+2] != '\t' {
				return nil, fmt.Errorf("value of header field %s has a line end that is not folding", name)
			}
			i += 2
		}
	}
	out := make([]byte, 0, len(name)+len(value)+4)
	out = append(out, name...)
	out = append(out, ':', ' ')
	out = append(out, value...)
	return append(out, '\r', '\n'), nil
}
