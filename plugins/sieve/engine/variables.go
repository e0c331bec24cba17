package engine

import (
	"strings"
	"unicode/utf8"
)

// variableCommand has "set" (RFC 5229 §4).
func variableCommand(name string) (commandSpec, bool) {
	if name != "set" {
		return commandSpec{}, false
	}
	return commandSpec{signature{ext: "variables", tags: modifierTags(), pos: []kind{str, str}}, buildSet}, true
}

func modifierTags() []tagSpec {
	return []tagSpec{
		{name: "lower", group: "case"}, {name: "upper", group: "case"},
		{name: "lowerfirst", group: "case of the first"}, {name: "upperfirst", group: "case of the first"},
		{name: "quotewildcard", group: "quoting"}, {name: "quoteregex", group: "quoting", ext: "regex"},
		{name: "encodeurl", group: "encoding", ext: "enotify"},
		{name: "length", group: "length"},
	}
}

func buildSet(c *compiler, b *bound) (step, *Error) {
	target := b.pos[0].Strings[0]
	if isNumber(target.Text) {
		return nil, errorAt(target.Line, "match variable '%s' cannot be set", target.Text)
	}
	space, name, err := c.splitName(target.Text, target.Line)
	if err != nil {
		return nil, err
	}
	if space == "" && !c.global[name] {
		c.set[name] = true
	}
	value, err := c.text(b.pos[1].Strings[0])
	if err != nil {
		return nil, err
	}
	return stepFunc(func(x *run) error {
		v := modify(b, x.text(value))
		x.explain(b.Line, "  %s = %q", name, v)
		return x.set(space, name, v, b.Line)
	}), nil
}

// modify applies the modifiers, the highest precedence first (RFC 5229 §4.1, RFC 5435 §6). Only the letters of ASCII
// have a case (RFC 5229 §4.1.3).
func modify(b *bound, v string) string {
	switch {
	case b.has("lower"):
		v = lowerASCII(v)
	case b.has("upper"):
		v = upperASCII(v)
	}
	if v != "" {
		switch {
		case b.has("lowerfirst"):
			v = lowerASCII(v[:1]) + v[1:]
		case b.has("upperfirst"):
			v = upperASCII(v[:1]) + v[1:]
		}
	}
	switch {
	case b.has("quotewildcard"):
		v = quote(v, `*?\`)
	case b.has("quoteregex"):
		v = quote(v, `\.[]{}()*+?^$|`)
	}
	if b.has("encodeurl") {
		v = encodeURL(v)
	}
	if b.has("length") {
		v = itoa(utf8.RuneCountInString(v))
	}
	return v
}

func quote(s, special string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// encodeURL percent-encodes all but the unreserved characters (RFC 3986 §2.3).
func encodeURL(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if isDigit(c) || isLetter(c) || c == '-' || c == '.' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// cut shortens s to n bytes at most, at a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// variable returns the value of a variable; "" if it has none.
func (x *run) variable(space, name string) string {
	if space == "global" || x.frame.globals[name] {
		return x.globals[name]
	}
	return x.frame.vars[name]
}

// set gives a variable a value, cut where it is too long (RFC 5229 §6).
func (x *run) set(space, name, value string, line int) error {
	vars := x.globals
	if space != "global" && !x.frame.globals[name] {
		if x.frame.vars == nil {
			x.frame.vars = make(map[string]string)
		}
		vars = x.frame.vars
	}
	if _, ok := vars[name]; !ok && len(vars) >= x.limits.Variables {
		return x.fault(line, "more than %d variables", x.limits.Variables)
	}
	vars[name] = cut(value, x.limits.VariableSize)
	return x.spend(int64(len(value)), line)
}

// variableTest has "string" (RFC 5229 §5).
func variableTest(name string) (testSpec, bool) {
	if name != "string" {
		return testSpec{}, false
	}
	return testSpec{signature{ext: "variables", tags: matchTags(), pos: []kind{strList, strList}}, func(c *compiler, b *bound) (cond, *Error) {
		t, err := c.matching(b)
		if err != nil {
			return nil, err
		}
		return condFunc(func(x *run) (bool, error) {
			values := x.texts(t.names)
			if t.m.kind == matchCount { // empty strings do not count
				n := 0
				for _, v := range values {
					if v != "" {
						n++
					}
				}
				return x.matchCount(t.m, n, x.texts(t.keys))
			}
			return x.matchValues(t.m, values, x.texts(t.keys))
		}), nil
	}}, true
}
