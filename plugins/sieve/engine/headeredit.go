package engine

import (
	"strings"
)

// editCommand has the commands of editheader (RFC 5293).
func editCommand(name string) (commandSpec, bool) {
	switch name {
	case "addheader":
		return commandSpec{signature{ext: "editheader", tags: []tagSpec{{name: "last"}}, pos: []kind{str, str}}, buildAddHeader}, true
	case "deleteheader":
		// :index and :last are its own here, not those of the extension index.
		tags := matchTags(tagSpec{name: "index", value: num}, tagSpec{name: "last"})
		return commandSpec{signature{ext: "editheader", tags: tags, pos: []kind{str, strList}, trail: 1}, buildDeleteHeader}, true
	}
	return commandSpec{}, false
}

// protected reports whether a field must stay as it is (RFC 5293 §6): loops are found by it.
func protected(name string) bool {
	return strings.EqualFold(name, "Received") || strings.EqualFold(name, "Auto-Submitted") || strings.EqualFold(name, "X-Sieve-Redirected-From")
}

func buildAddHeader(c *compiler, b *bound) (step, *Error) {
	names, err := c.leading(b, 2)
	if err == nil {
		err = c.headerNames(names[:1])
	}
	if err != nil {
		return nil, err
	}
	last := b.has("last")
	return stepFunc(func(x *run) error {
		name, value := x.text(names[0]), x.text(names[1])
		if !isHeaderName(name) || len(name) > 76 {
			return x.fault(b.Line, "'%s' is no name of a header field", printable(name))
		}
		if protected(name) {
			x.explain(b.Line, "  %s stays as it is", name)
			return nil
		}
		raw, ok := encodeValue(name, value)
		if !ok {
			return x.fault(b.Line, "the value of the field '%s' has characters that no header may have", name)
		}
		if x.msg.added++; x.msg.added > x.limits.HeaderEdits {
			return x.fault(b.Line, "more than %d header fields are added", x.limits.HeaderEdits)
		}
		x.msg.add(field{name: name, raw: raw}, last)
		return x.spend(perField*int64(len(x.msg.fields)), b.Line)
	}), nil
}

func buildDeleteHeader(c *compiler, b *bound) (step, *Error) {
	ix, err := c.index(b)
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	m.vars = false // it is no test
	name, err := c.text(b.pos[0].Strings[0])
	if err == nil {
		err = c.headerNames([]text{name})
	}
	if err != nil {
		return nil, err
	}
	var keys []text
	if len(b.pos) > 1 {
		if keys, err = c.keys(m, b.pos[1]); err != nil {
			return nil, err
		}
	}
	return stepFunc(func(x *run) error {
		target := x.text(name)
		if !isHeaderName(target) {
			return x.fault(b.Line, "'%s' is no name of a header field", printable(target))
		}
		if protected(target) {
			x.explain(b.Line, "  %s stays as it is", target)
			return nil
		}
		return x.deleteFields(target, ix, m, keys, len(b.pos) > 1)
	}), nil
}

// deleteFields removes the fields with a name that an index and, if matching, the keys mean.
func (x *run) deleteFields(name string, ix index, m *matcher, keys []text, matching bool) error {
	if err := x.spend(perItem*int64(len(x.msg.fields)), m.line); err != nil {
		return err
	}
	var places []int
	for i, f := range x.msg.fields {
		if strings.EqualFold(f.name, name) {
			places = append(places, i)
		}
	}
	gone := make(map[int]bool)
	wanted := x.texts(keys)
	var values []string
	for _, i := range pick(ix, places) {
		v := x.msg.value(x.msg.fields[i])
		if matching && m.kind != matchCount {
			ok, err := x.match(m, v, wanted)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
		}
		values = append(values, v)
		gone[i] = true
	}
	if matching && m.kind == matchCount {
		if ok, err := x.matchCount(m, len(values), wanted); err != nil || !ok {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	kept := make([]field, 0, len(x.msg.fields))
	for i, f := range x.msg.fields {
		if !gone[i] {
			kept = append(kept, f)
		}
	}
	x.msg.setFields(kept)
	return x.spend(perField*int64(len(kept)), m.line)
}

// headerLine is how long a line of a header should be, without its end (RFC 5322 §2.1.1).
const headerLine = 76

// encodeValue makes the raw body of a field: folded, characters beyond ASCII in encoded words (RFC 2047). It fails on
// control characters, which could begin another field.
func encodeValue(name, value string) (string, bool) {
	value = strings.TrimSpace(strings.NewReplacer("\r\n ", " ", "\r\n\t", "\t").Replace(value))
	ascii := true
	for i := range len(value) {
		switch c := value[i]; {
		case c == '\t':
		case c < ' ' || c == 0x7f:
			return "", false
		case c >= 0x80:
			ascii = false
		}
	}
	if !ascii {
		return " " + encodeWords(value), true
	}
	return " " + fold(value, len(name)+2), true
}
