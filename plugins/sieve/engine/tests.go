package engine

import (
	"slices"
	"strings"
)

// messageTest has the tests of the message and its envelope (RFC 5228 §5).
func messageTest(name string) (testSpec, bool) {
	switch name {
	case "header":
		return testSpec{signature{tags: matchTags(append(indexTags(), mimeTags()...)...), pos: []kind{strList, strList}}, buildHeader}, true
	case "address":
		return testSpec{signature{tags: matchTags(slices.Concat(addressTags(), indexTags(), mimeTags()[:2])...), pos: []kind{strList, strList}}, buildAddress}, true
	case "envelope":
		return testSpec{signature{ext: "envelope", tags: matchTags(addressTags()...), pos: []kind{strList, strList}}, buildEnvelope}, true
	case "exists":
		return testSpec{signature{tags: mimeTags()[:2], pos: []kind{strList}}, buildExists}, true
	case "size":
		return testSpec{signature{tags: []tagSpec{{name: "over", value: num, group: "side"}, {name: "under", value: num, group: "side"}}}, buildSize}, true
	}
	return testSpec{}, false
}

// matching is what "header", "address" and their like have in common.
type matching struct {
	m     *matcher
	names []text
	keys  []text
	line  int
}

func (c *compiler) matching(b *bound) (t matching, err *Error) {
	t.line = b.Line
	if t.m, err = c.matcher(b); err != nil {
		return t, err
	}
	if t.names, err = c.texts(b.pos[0]); err != nil {
		return t, err
	}
	t.keys, err = c.keys(t.m, b.pos[1])
	return t, err
}

// headerNames checks the names of fields that a script makes or deletes. Tests take any name: none that is invalid
// matches (RFC 5228 §2.4.2.2).
func (c *compiler) headerNames(list []text) *Error {
	for _, t := range list {
		if t.constant() && !isHeaderName(t.lit) {
			return errorAt(t.line, "'%s' is no name of a header field", printable(t.lit))
		}
	}
	return nil
}

// isHeaderName reports whether s can be the name of a field (RFC 5322 §2.2).
func isHeaderName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == ':' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

func buildHeader(c *compiler, b *bound) (cond, *Error) {
	t, err := c.matching(b)
	if err != nil {
		return nil, err
	}
	ix, err := c.index(b)
	if err != nil {
		return nil, err
	}
	o, err := c.mimeOptions(b)
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		var values []string
		fields, err := x.fieldsNamed(o, ix, x.texts(t.names), b.Line)
		if err != nil {
			return false, err
		}
		for _, f := range fields {
			values = append(values, x.values(o, f)...)
		}
		return x.matchValues(t.m, values, x.texts(t.keys))
	}), nil
}

func buildExists(c *compiler, b *bound) (cond, *Error) {
	names, err := c.texts(b.pos[0])
	if err != nil {
		return nil, err
	}
	o, err := c.mimeOptions(b)
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		for _, n := range names {
			fields, err := x.fieldsNamed(o, index{}, []string{x.text(n)}, b.Line)
			if err != nil || len(fields) == 0 {
				return false, err
			}
		}
		return true, nil
	}), nil
}

func buildSize(_ *compiler, b *bound) (cond, *Error) {
	side, ok := b.group["side"]
	if !ok {
		return nil, errorAt(b.Line, "'size' takes ':over' or ':under' and a number")
	}
	limit := b.tags[side].Number
	return condFunc(func(x *run) (bool, error) {
		if side == "over" {
			return x.msg.source.Size() > limit, nil
		}
		return x.msg.source.Size() < limit, nil
	}), nil
}

func buildEnvelope(c *compiler, b *bound) (cond, *Error) {
	t, err := c.matching(b)
	if err != nil {
		return nil, err
	}
	part, err := c.addressPart(b)
	if err != nil {
		return nil, err
	}
	for _, n := range t.names {
		if n.constant() && envelopePart(n.lit) == "" {
			return nil, errorAt(n.line, "the envelope has no part '%s': it has \"from\", \"to\" and \"auth\"", printable(n.lit))
		}
	}
	return condFunc(func(x *run) (bool, error) {
		var values []string
		for _, n := range t.names {
			name := envelopePart(x.text(n))
			if name == "" {
				return false, x.fault(n.line, "the envelope has no part '%s'", printable(x.text(n)))
			}
			if v, ok := x.envelopeValue(name, part); ok {
				values = append(values, v)
			}
		}
		return x.matchValues(t.m, values, x.texts(t.keys))
	}), nil
}

func envelopePart(s string) string {
	switch s = strings.ToLower(s); s {
	case "from", "to", "auth":
		return s
	}
	return ""
}

func (x *run) envelopeValue(name string, part addressPart) (string, bool) {
	switch name {
	case "auth":
		return x.env.Auth, x.env.Auth != ""
	case "from":
		if x.env.From == "" { // the null reverse-path is empty, whatever part is asked for (RFC 5228 §5.4)
			return "", true
		}
		return part.of(address{full: x.env.From}, x.delimiter())
	}
	return part.of(address{full: x.env.To}, x.delimiter())
}

func (x *run) delimiter() string {
	if x.env.Delimiter == "" {
		return "+"
	}
	return x.env.Delimiter
}
