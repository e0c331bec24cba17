package engine

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// text is a string of a script, ready to be expanded.
type text struct {
	lit   string
	parts []part // nil: lit is all there is
	line  int
}

// part is a piece of a string: text or a reference (RFC 5229 §3).
type part struct {
	lit   string
	space string // namespace, "" for none
	name  string // of a variable, in lower case; "" for none
	match int    // number of a match variable, if name is "" and lit is ""
}

// constant reports whether the text is the same in every run.
func (t text) constant() bool { return t.parts == nil }

// text compiles a string: encoded characters (RFC 5228 §2.4.2.4), then variables.
func (c *compiler) text(s Str) (text, *Error) {
	t := text{lit: s.Text, line: s.Line}
	if !strings.Contains(s.Text, "${") {
		return t, nil
	}
	if c.has("encoded-character") {
		decoded, ok := decodeCharacters(s.Text)
		if !ok {
			return t, errorAt(s.Line, "the string has an encoded character that does not exist")
		}
		t.lit = decoded
	}
	if !c.has("variables") {
		return t, nil
	}
	var fault *Error
	t.parts, fault = c.references(t.lit, s.Line)
	if len(t.parts) == 1 && t.parts[0].lit != "" {
		t.parts = nil
	}
	return t, fault
}

func (c *compiler) texts(a Arg) ([]text, *Error) {
	list := make([]text, len(a.Strings))
	for i, s := range a.Strings {
		var err *Error
		if list[i], err = c.text(s); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// references finds the variables in a string. What only looks like one is text.
func (c *compiler) references(s string, line int) ([]part, *Error) {
	var parts []part
	lit := 0 // where the text before begins
	flush := func(to int) {
		if to > lit {
			parts = append(parts, part{lit: s[lit:to]})
		}
	}
	for i := 0; i < len(s); {
		n := strings.Index(s[i:], "${")
		if n < 0 {
			break
		}
		i += n
		name, length := reference(s[i:])
		if length == 0 {
			i++
			continue
		}
		p, err := c.variable(name, line)
		if err != nil {
			return nil, err
		}
		flush(i)
		parts = append(parts, p)
		i += length
		lit = i
	}
	flush(len(s))
	return parts, nil
}

// reference returns the name in "${name}" at the start of s and the length of all that; 0 if there is none.
func reference(s string) (name string, length int) {
	end := closing(s)
	if end < 0 {
		return "", 0
	}
	name = s[2:end]
	if isNumber(name) {
		return name, end + 1
	}
	for i, id := range strings.Split(name, ".") {
		if !isIdentifier(id) && (i == 0 || !isNumber(id)) {
			return "", 0
		}
	}
	return name, end + 1
}

// closing finds the brace that closes the "${" at the start of s; below 0 if another "$" comes before it. Nothing is
// looked at twice.
func closing(s string) int {
	n := strings.IndexAny(s[2:], "}$")
	if n < 0 || s[2+n] == '$' {
		return -1
	}
	return 2 + n
}

// variable is the part for a name.
func (c *compiler) variable(name string, line int) (part, *Error) {
	if isNumber(name) {
		n, err := strconv.Atoi(name)
		if err != nil || n > 1<<20 {
			n = 1 << 20 // there is no such match: empty
		}
		return part{match: n}, nil
	}
	space, name, err := c.splitName(name, line)
	return part{space: space, name: name}, err
}

// splitName checks the name of a variable.
func (c *compiler) splitName(full string, line int) (space, name string, err *Error) {
	name = strings.ToLower(full)
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		space, name = name[:i], name[i+1:]
		if space != "global" || !c.has("include") {
			return "", "", errorAt(line, "variable '%s' is in the unknown namespace '%s'", printable(full), printable(space))
		}
	}
	if !isIdentifier(name) {
		return "", "", errorAt(line, "'%s' is no name of a variable", printable(full))
	}
	return space, name, nil
}

func isIdentifier(s string) bool {
	for i := range len(s) {
		if !isLetter(s[i]) && (i == 0 || !isDigit(s[i])) {
			return false
		}
	}
	return s != ""
}

func isNumber(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// decodeCharacters decodes ${hex: ...} and ${unicode: ...}. It fails on code points that do not exist; anything else
// that does not fit the grammar is text. Octets need not make UTF-8.
func decodeCharacters(s string) (string, bool) {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), true
		}
		b.WriteString(s[:i])
		s = s[i:]
		decoded, length, ok := encodedCharacter(s)
		if !ok {
			return "", false
		}
		if length == 0 {
			b.WriteString("$")
			s = s[1:]
			continue
		}
		b.WriteString(decoded)
		s = s[length:]
	}
}

// encodedCharacter decodes one at the start of s; length 0: there is none.
func encodedCharacter(s string) (decoded string, length int, ok bool) {
	end := closing(s)
	if end < 0 {
		return "", 0, true
	}
	kind, digits, found := strings.Cut(s[2:end], ":")
	kind = strings.ToLower(kind)
	list := strings.FieldsFunc(digits, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' })
	if !found || kind != "hex" && kind != "unicode" || len(list) == 0 {
		return "", 0, true
	}
	var b strings.Builder
	for _, d := range list {
		n, err := strconv.ParseUint(d, 16, 32)
		if kind == "hex" {
			if err != nil || len(d) > 2 {
				return "", 0, true
			}
			b.WriteByte(byte(n))
			continue
		}
		if strings.Trim(d, "0123456789abcdefABCDEF") != "" {
			return "", 0, true
		}
		if err != nil || n > utf8.MaxRune || n >= 0xD800 && n <= 0xDFFF {
			return "", 0, false
		}
		b.WriteRune(rune(n))
	}
	return b.String(), end + 1, true
}
