package engine

import (
	"bytes"
	"slices"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk/mail"
)

// field is a header field. raw is its body as it stands in the message, folded, without the line end.
type field struct {
	name, raw string
	line      []byte // as it stands; nil for one that the script has added
}

// view is the message as it is at some point of a run.
type view struct {
	source    *Message
	fields    []field
	body      mail.Body
	limits    Limits
	edited    bool // the fields are no longer the source's
	rewritten bool // the body is no longer the source's
	bodies    int  // how many bodies it has had since
	added     int
	decoded   map[string]string // values by raw ones
	tree      *mime.Tree        // of this header and body; nil: not known
	shot      *Message          // the snapshot of this state
}

func newView(m *Message, l Limits) *view {
	return &view{source: m, fields: fieldsOf(m.Header), body: m.Body, limits: l, decoded: make(map[string]string)}
}

func fieldsOf(h mail.Header) []field {
	var list []field
	for _, f := range h.Fields {
		_, value, _ := bytes.Cut(f.Raw(), []byte(":"))
		list = append(list, field{f.Name, string(bytes.TrimSuffix(value, []byte("\r\n"))), f.Raw()})
	}
	return list
}

// all returns the fields with a name, from the top.
func (v *view) all(name string) []field { return named(v.fields, name) }

func named(fields []field, name string) []field {
	var list []field
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			list = append(list, f)
		}
	}
	return list
}

// setFields replaces the header, setBody the body.
func (v *view) setFields(fields []field) {
	v.fields, v.edited, v.tree, v.shot = fields, true, nil, nil
}

func (v *view) setBody(b []byte) {
	v.body, v.rewritten, v.tree, v.shot = mail.InlineBody(b), true, nil, nil
	v.bodies++
}

// add puts a field at the top, or at the end.
func (v *view) add(f field, last bool) {
	if last {
		v.setFields(append(slices.Clone(v.fields), f))
	} else {
		v.setFields(append([]field{f}, v.fields...))
	}
}

// header is that of the message as it is now. Fields that the script left alone keep their bytes.
func (v *view) header() mail.Header {
	if !v.edited {
		return v.source.Header
	}
	var b bytes.Buffer
	for _, f := range v.fields {
		if f.line != nil {
			b.Write(bytes.TrimSuffix(f.line, []byte("\r\n")))
		} else {
			b.WriteString(f.name + ":" + f.raw)
		}
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	return mail.NewHeader(b.Bytes())
}

// snapshot is the message as it is now; nil if it is still the source.
func (v *view) snapshot() *Message {
	if !v.edited && !v.rewritten {
		return nil
	}
	if v.shot == nil {
		v.shot = &Message{Header: v.header(), Body: v.body}
	}
	return v.shot
}

// parts walks the message as it is now.
func (v *view) parts() (*mime.Tree, error) {
	if v.tree != nil {
		return v.tree, nil
	}
	tree, err := mime.Walk(v.header(), v.body, mime.Limits{})
	v.tree = tree
	return tree, err
}

// value decodes the body of a field: unfolded, encoded words decoded (RFC 2047), trimmed.
func (v *view) value(f field) string {
	if s, ok := v.decoded[f.raw]; ok {
		return s
	}
	s, _ := mime.DecodeWords(unfold(f.raw))
	s = strings.TrimSpace(s)
	v.decoded[f.raw] = s
	return s
}

// unfold removes line ends (RFC 5322 §2.2.3).
func unfold(s string) string {
	if strings.IndexByte(s, '\n') < 0 && strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(s)
}
