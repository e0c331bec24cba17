package engine

import (
	"io"
	"mime"
	"slices"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// view is the message as it is at some point of a run.
type view struct {
	source  *Message
	fields  []Field
	edited  bool // the fields are no longer the source's
	limits  Limits
	added   int
	decoded map[string]string // by raw value
	body    []byte            // replaced, or read
	read    bool
	altered bool // the body is no longer the source's
}

func newView(m *Message, l Limits) *view {
	return &view{source: m, fields: m.Header, limits: l, decoded: make(map[string]string)}
}

// all yields the fields with a name, from the top.
func (v *view) all(name string) []Field {
	var list []Field
	for _, f := range v.fields {
		if strings.EqualFold(f.Name, name) {
			list = append(list, f)
		}
	}
	return list
}

// own makes the fields ones that may be changed.
func (v *view) own() {
	if !v.edited {
		v.fields, v.edited = slices.Clone(v.fields), true
	}
}

// value decodes the body of a field: unfolded, encoded words decoded (RFC 2047), trimmed.
func (v *view) value(f Field) string {
	if s, ok := v.decoded[f.Raw]; ok {
		return s
	}
	s := strings.TrimSpace(decodeWords(unfold(f.Raw)))
	v.decoded[f.Raw] = s
	return s
}

// unfold removes line ends (RFC 5322 §2.2.3).
func unfold(s string) string {
	if strings.IndexByte(s, '\n') < 0 && strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(s)
}

// decodeWords decodes encoded words, in any charset that is known; what cannot be decoded stays.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	d := mime.WordDecoder{CharsetReader: charsetReader}
	if decoded, err := d.DecodeHeader(s); err == nil {
		return decoded
	}
	// One word that cannot be decoded must not hide the others.
	var b strings.Builder
	for i, word := range strings.Split(s, " ") {
		if i > 0 {
			b.WriteByte(' ')
		}
		if w, err := d.Decode(word); err == nil {
			word = w
		}
		b.WriteString(word)
	}
	return b.String()
}

func charsetReader(charset string, in io.Reader) (io.Reader, error) {
	e, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err
	}
	return e.NewDecoder().Reader(in), nil
}
