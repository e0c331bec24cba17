package engine

import (
	stdmime "mime"
	"strings"
)

// mimeTags are those of RFC 5703 §4 for the test "header"; "address" and "exists" have the first two.
func mimeTags() []tagSpec {
	return []tagSpec{
		{name: "mime", ext: "mime"}, {name: "anychild", ext: "mime"},
		{name: "type", ext: "mime", group: "mime option"}, {name: "subtype", ext: "mime", group: "mime option"},
		{name: "contenttype", ext: "mime", group: "mime option"}, {name: "param", value: strList, ext: "mime", group: "mime option"},
	}
}

// mimeOptions are what a test says with mimeTags.
type mimeOptions struct {
	mime, children bool
	option         string // type, subtype, contenttype, param or ""
	params         []text
}

func (c *compiler) mimeOptions(b *bound) (o mimeOptions, err *Error) {
	o = mimeOptions{mime: b.has("mime"), children: b.has("anychild"), option: b.group["mime option"]}
	if !o.mime && (o.children || o.option != "") {
		return o, errorAt(b.Line, "':anychild', ':type', ':subtype', ':contenttype' and ':param' need ':mime'")
	}
	if a, ok := b.tags["param"]; ok {
		o.params, err = c.texts(a)
	}
	return o, err
}

// headers returns the headers that the options mean: the message's, or with :mime those of the part that the loop is
// at, and with :anychild of the parts in it.
func (x *run) headers(o mimeOptions, line int) ([][]field, error) {
	if !o.mime || x.part == nil && !o.children {
		return [][]field{x.msg.fields}, nil
	}
	p := x.part
	if p == nil {
		tree, err := x.msg.parts()
		if err != nil {
			return nil, err
		}
		p = tree.Root
	}
	list := [][]field{fieldsOf(p.Header)}
	if o.children {
		for _, child := range below(p) {
			if err := x.spend(perPart+4*int64(len(child.Header.Block())), line); err != nil {
				return nil, err
			}
			list = append(list, fieldsOf(child.Header))
		}
	}
	return list, nil
}

// fieldsNamed returns the fields that a test looks at, in the order of the names, those of one name in the order of the
// headers. So counts their index (RFC 5260 §6).
func (x *run) fieldsNamed(o mimeOptions, ix index, names []string, line int) ([]field, error) {
	headers, err := x.headers(o, line)
	if err != nil {
		return nil, err
	}
	var list []field
	for _, n := range names {
		for _, h := range headers {
			list = append(list, named(h, n)...)
			x.work += perItem * int64(len(h))
		}
	}
	list = pick(ix, list)
	return list, x.spend(perField*int64(len(list)), line)
}

// values are what a field says under the options.
func (x *run) values(o mimeOptions, f field) []string {
	if o.option == "" {
		return []string{x.msg.value(f)}
	}
	if o.option != "param" && !strings.EqualFold(f.name, "Content-Type") && !strings.EqualFold(f.name, "Content-Disposition") {
		return []string{""} // RFC 5703 §4.1: other fields have no type
	}
	raw := withoutComments(unfold(f.raw))
	value, _, _ := strings.Cut(raw, ";")
	value = strings.TrimSpace(value)
	kind, sub, _ := strings.Cut(value, "/")
	switch o.option {
	case "type":
		return []string{kind}
	case "subtype":
		return []string{sub}
	case "contenttype":
		return []string{value}
	}
	_, params, _ := stdmime.ParseMediaType(raw) // what cannot be read has no parameters
	var list []string
	for _, p := range o.params {
		if v, ok := params[strings.ToLower(x.text(p))]; ok {
			list = append(list, v)
		}
	}
	return list
}

// withoutComments drops comments (RFC 5322 §3.2.2).
func withoutComments(s string) string {
	if strings.IndexByte(s, '(') < 0 {
		return strings.TrimSpace(s)
	}
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && (quoted || depth > 0) && i+1 < len(s):
			if i++; depth == 0 {
				b.WriteString(s[i-1 : i+1])
			}
			continue
		case c == '"' && depth == 0:
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
			continue
		case c == ')' && depth > 0:
			depth--
			continue
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}
