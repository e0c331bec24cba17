package engine

import (
	stdmime "mime"
	"strings"
)

// mimeTags are those of RFC 5703 §4 for the tests "header" and "address"; "exists" has the first two.
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
			if err := x.spend(int64(len(child.Header.Block())), line); err != nil {
				return nil, err
			}
			list = append(list, fieldsOf(child.Header))
		}
	}
	return list, nil
}

// fieldsNamed returns the fields that a test looks at. Their index counts in the order of the names (RFC 5260 §6), in
// each header of its own.
func (x *run) fieldsNamed(o mimeOptions, ix index, names []string, line int) ([]field, error) {
	headers, err := x.headers(o, line)
	if err != nil {
		return nil, err
	}
	var list []field
	for _, h := range headers {
		var fields []field
		for _, n := range names {
			fields = append(fields, named(h, n)...)
		}
		list = append(list, pick(ix, fields)...)
	}
	return list, nil
}

// values are what a field says under the options.
func (x *run) values(o mimeOptions, f field) []string {
	if o.option == "" {
		return []string{x.msg.value(f)}
	}
	raw := strings.TrimSpace(unfold(f.raw))
	value, params, err := stdmime.ParseMediaType(raw)
	if err != nil { // what it begins with is good all the same
		value, _, _ = strings.Cut(raw, ";")
		value = strings.ToLower(strings.TrimSpace(value))
	}
	kind, sub, _ := strings.Cut(value, "/")
	switch o.option {
	case "type":
		return []string{kind}
	case "subtype":
		return []string{sub}
	case "contenttype":
		return []string{value}
	}
	var list []string
	for _, p := range o.params {
		if v, ok := params[strings.ToLower(x.text(p))]; ok {
			list = append(list, v)
		}
	}
	return list
}
