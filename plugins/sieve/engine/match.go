package engine

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// matchKind is a match type (RFC 5228 §2.7.1 and extensions).
type matchKind uint8

const (
	matchIs matchKind = iota
	matchContains
	matchMatches
	matchRegex
	matchValue
	matchCount
)

// matcher compares values with keys as the tags of a test say.
type matcher struct {
	kind matchKind
	rel  string // gt, ge, lt, le, eq, ne for matchValue and matchCount
	cmp  comparator
	vars bool // matches set the match variables
	line int
}

// matchTags are the tags of everything that matches.
func matchTags(more ...tagSpec) []tagSpec {
	return append([]tagSpec{
		{name: "comparator", value: str},
		{name: "is", group: "match type"},
		{name: "contains", group: "match type"},
		{name: "matches", group: "match type"},
		{name: "regex", group: "match type", ext: "regex"},
		{name: "value", group: "match type", value: str, ext: "relational"},
		{name: "count", group: "match type", value: str, ext: "relational"},
	}, more...)
}

// matcher takes the tags of matchTags.
func (c *compiler) matcher(b *bound) (*matcher, *Error) {
	cmp, err := c.comparator(b)
	if err != nil {
		return nil, err
	}
	m := &matcher{cmp: cmp, vars: c.has("variables"), line: b.Line}
	switch name := b.group["match type"]; name {
	case "contains", "matches", "regex":
		m.kind = map[string]matchKind{"contains": matchContains, "matches": matchMatches, "regex": matchRegex}[name]
		if cmp == asciiNumeric {
			return nil, errorAt(b.Line, "comparator 'i;ascii-numeric' compares whole numbers: it does not go with ':%s'", name)
		}
	case "value", "count":
		m.kind = map[string]matchKind{"value": matchValue, "count": matchCount}[name]
		m.rel = lowerASCII(b.tags[name].Strings[0].Text)
		switch m.rel {
		case "gt", "ge", "lt", "le", "eq", "ne":
		default:
			return nil, errorAt(b.tags[name].Line, "':%s' has to be followed by \"gt\", \"ge\", \"lt\", \"le\", \"eq\" or \"ne\", not %q", name, printable(m.rel))
		}
	}
	return m, nil
}

// keys takes the list of keys of a test. Patterns that are known now are checked now.
func (c *compiler) keys(m *matcher, a Arg) ([]text, *Error) {
	list, err := c.texts(a)
	if err != nil || m.kind != matchRegex {
		return list, err
	}
	for _, t := range list {
		if t.constant() {
			re, fault := compileRegex(t.lit, m.cmp)
			if fault != nil {
				return nil, errorAt(t.line, "the regular expression %q: %v", printable(t.lit), fault)
			}
			if c.regexSteps += re.steps; c.regexSteps > scriptRegs {
				return nil, errorAt(t.line, "the regular expressions of the script are too large together")
			}
		}
	}
	return list, nil
}

// matchValues reports whether a value fits a key; or, for :count, whether their number does.
func (x *run) matchValues(m *matcher, values, keys []string) (bool, error) {
	if m.kind == matchCount {
		return x.matchCount(m, len(values), keys)
	}
	for _, v := range values {
		if ok, err := x.match(m, v, keys); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (x *run) matchCount(m *matcher, n int, keys []string) (bool, error) {
	count := strconv.Itoa(n)
	for _, k := range keys {
		if related(m.cmp.compare(count, k), m.rel) {
			x.explain(m.line, "  %s is %s %q", count, m.rel, k)
			return true, nil
		}
	}
	return false, nil
}

func related(order int, rel string) bool {
	switch rel {
	case "gt":
		return order > 0
	case "ge":
		return order >= 0
	case "lt":
		return order < 0
	case "le":
		return order <= 0
	case "eq":
		return order == 0
	}
	return order != 0
}

// match reports whether a value fits one of the keys.
func (x *run) match(m *matcher, value string, keys []string) (bool, error) {
	for _, k := range keys {
		if err := x.spend(m.cmp.cost(value)+m.cmp.cost(k), m.line); err != nil {
			return false, err
		}
		ok, err := x.matchOne(m, value, k)
		if err != nil {
			return false, err
		}
		if ok {
			x.explain(m.line, "  %q fits %q", value, k)
			return true, nil
		}
	}
	return false, nil
}

func (x *run) matchOne(m *matcher, value, key string) (bool, error) {
	switch m.kind {
	case matchIs:
		return m.cmp.compare(value, key) == 0, nil
	case matchContains:
		return strings.Contains(m.cmp.key(value), m.cmp.key(key)), nil
	case matchValue:
		return related(m.cmp.compare(value, key), m.rel), nil
	case matchMatches:
		return x.glob(m, value, key)
	case matchRegex:
		re, err := x.regex(key, m)
		if err != nil {
			return false, err
		}
		if err := x.spend(int64(len(value))*re.steps, m.line); err != nil {
			return false, err
		}
		found := re.FindStringSubmatchIndex(value)
		if found != nil && m.vars {
			captures := make([]string, len(found)/2)
			for i := range captures {
				if found[2*i] >= 0 {
					captures[i] = value[found[2*i]:found[2*i+1]]
				}
			}
			x.frame.matches = captures
		}
		return found != nil, nil
	}
	return false, nil
}

// glob matches with "*" and "?" (RFC 5228 §2.7.1). Each "*" takes as little as it can, which is what match variables
// are told (RFC 5229 §3.2), so a piece between two of them never has to be looked for again.
func (x *run) glob(m *matcher, value, pattern string) (bool, error) {
	pieces := m.cmp.globPieces(pattern)
	g := globber{x: x, m: m, value: value}
	pos := 0
	for i, p := range pieces {
		last := i == len(pieces)-1
		at, ok, err := g.place(p, pos, i == 0, last)
		if !ok || err != nil {
			return false, err
		}
		if i > 0 {
			g.captures = append(g.captures, value[pos:at])
		}
		pos = g.take(p, at)
	}
	if pos != len(value) {
		return false, nil
	}
	if m.vars {
		x.frame.matches = append([]string{value}, g.captures...)
	}
	return true, nil
}

// wild stands for "?" in a piece.
const wild = -1

// character returns the first character of s, and its length: an octet, but for i;unicode-casemap (RFC 5228 §2.7.1).
func (c comparator) character(s string) (rune, int) {
	switch {
	case s == "":
		return 0, 0
	case c == unicodeCasemap:
		return utf8.DecodeRuneInString(s)
	}
	return rune(s[0]), 1
}

// globPieces cuts a pattern at its "*".
func (c comparator) globPieces(pattern string) [][]rune {
	pieces := [][]rune{nil}
	for i := 0; i < len(pattern); {
		r, n := c.character(pattern[i:])
		i += n
		last := &pieces[len(pieces)-1]
		switch {
		case r == '*':
			pieces = append(pieces, nil)
		case r == '?':
			*last = append(*last, wild)
		case r == '\\' && i < len(pattern):
			r, n = c.character(pattern[i:])
			i += n
			*last = append(*last, r)
		default:
			*last = append(*last, r)
		}
	}
	return pieces
}

type globber struct {
	x        *run
	m        *matcher
	value    string
	captures []string
}

// place finds the first place at pos or after where a piece fits: pos itself for the first one, the end for the last.
func (g *globber) place(p []rune, pos int, first, last bool) (int, bool, error) {
	if first {
		n, ok := g.fits(p, pos)
		return pos, ok && (!last || pos+n == len(g.value)), nil
	}
	if last {
		at := g.before(len(p))
		if at < pos {
			return 0, false, nil
		}
		n, ok := g.fits(p, at)
		return at, ok && at+n == len(g.value), nil
	}
	for at := pos; ; {
		if err := g.x.spend(int64(len(p)), g.m.line); err != nil {
			return 0, false, err
		}
		if _, ok := g.fits(p, at); ok {
			return at, true, nil
		}
		if at >= len(g.value) {
			return 0, false, nil
		}
		_, n := g.m.cmp.character(g.value[at:])
		at += n
	}
}

// before is where the last n characters begin; below 0 if there are not as many.
func (g *globber) before(n int) int {
	if g.m.cmp != unicodeCasemap {
		return len(g.value) - n
	}
	at := len(g.value)
	for range n {
		if at == 0 {
			return -1
		}
		_, size := utf8.DecodeLastRuneInString(g.value[:at])
		at -= size
	}
	return at
}

// fits reports whether a piece fits at a place, and how long it is there.
func (g *globber) fits(p []rune, at int) (int, bool) {
	start := at
	for _, want := range p {
		if at >= len(g.value) {
			return 0, false
		}
		r, n := g.m.cmp.character(g.value[at:])
		if want != wild && r != want && !g.m.cmp.same(r, want) {
			return 0, false
		}
		at += n
	}
	return at - start, true
}

// take records what the "?" of a piece stand for, and returns where it ends.
func (g *globber) take(p []rune, at int) int {
	for _, want := range p {
		_, n := g.m.cmp.character(g.value[at:])
		if want == wild {
			g.captures = append(g.captures, g.value[at:at+n])
		}
		at += n
	}
	return at
}

// same compares single characters.
func (c comparator) same(a, b rune) bool {
	switch {
	case c == octet:
		return a == b
	case a < utf8.RuneSelf && b < utf8.RuneSelf:
		return a == b || a|0x20 == b|0x20 && isLetter(byte(a|0x20)) && a != '_' && b != '_'
	case c == unicodeCasemap:
		return unicodeKey(string(a)) == unicodeKey(string(b))
	}
	return a == b
}
