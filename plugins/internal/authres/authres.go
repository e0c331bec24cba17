// Package authres formats and parses the fields Authentication-Results (RFC 8601) and
// ARC-Authentication-Results (RFC 8617 §4.1.1).
//
// What is formatted is one valid field whatever the data: nothing in it can begin another
// field, result or property, and lines are folded. What is parsed is what other servers
// really write: comments anywhere, values that should have been quoted, properties without
// a type. Both are bounded; parsing is linear. The package keeps nothing and knows nothing of
// what results mean.
package authres

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The names of the fields.
const (
	FieldName    = "Authentication-Results"
	ARCFieldName = "ARC-Authentication-Results"
)

// Header is the content of a field.
type Header struct {
	// Instance is the i= of an ARC-Authentication-Results field; 0: it is the other field.
	Instance int
	// ID is the authserv-id: who says it.
	ID string
	// Version of the format; 0 where it is not said, which means 1.
	Version int
	// Results; none stands for "no authentication was done".
	Results []Result
}

// Result is what one method found.
type Result struct {
	Method  string // "spf"; lower case
	Version int    // of the method; 0 where it is not said
	Value   string // "pass"; lower case
	// Comment follows the value in parentheses. Parsing does not return it.
	Comment string
	Reason  string
	Props   []Prop
}

// Prop is a property: what of the message the result is about.
type Prop struct {
	Type  string // "header"; lower case; "" where the writer left it out
	Name  string // "d"; lower case
	Value string
}

// Get returns the value of a result's property; "" where it has none.
func (r Result) Get(ptype, name string) string {
	for _, p := range r.Props {
		if p.Type == ptype && p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Add appends a property unless its value is empty.
func (r *Result) Add(ptype, name, value string) {
	if value != "" {
		r.Props = append(r.Props, Prop{ptype, name, value})
	}
}

// Bounds of what is formatted, in bytes: no line comes near the 998 of RFC 5322 §2.1.1.
const (
	maxValue = 300
	lineLen  = 78
)

// Format returns the value of the field, folded with CRLF.
func (h Header) Format() string {
	w := writer{col: len(FieldName) + 2}
	if h.Instance > 0 {
		w.col = len(ARCFieldName) + 2
		w.put("i=" + strconv.Itoa(h.Instance) + ";")
		w.sep()
	}
	id := quote(h.ID)
	if h.Version > 0 {
		id += " " + strconv.Itoa(h.Version)
	}
	w.put(id)
	if len(h.Results) == 0 {
		w.put("; none")
	}
	for _, r := range h.Results {
		w.put(";")
		w.newline()
		r.format(&w)
	}
	return w.b.String()
}

func (r Result) format(w *writer) {
	method := keyword(r.Method)
	if r.Version > 0 {
		method += "/" + strconv.Itoa(r.Version)
	}
	w.put(method + "=" + keyword(r.Value))
	if r.Comment != "" {
		w.sep()
		w.put("(" + escape(r.Comment, "()\\") + ")")
	}
	if r.Reason != "" {
		w.sep()
		w.put("reason=" + quote(r.Reason))
	}
	for _, p := range r.Props {
		w.sep()
		name := keyword(p.Name)
		if p.Type != "" {
			name = keyword(p.Type) + "." + name
		}
		w.put(name + "=" + quote(p.Value))
	}
}

// writer folds lines. A separator is written only when something follows it: no line is
// made of white space alone.
type writer struct {
	b    strings.Builder
	col  int
	want string
}

func (w *writer) sep()     { w.want = " " }
func (w *writer) newline() { w.want = "\r\n\t" }

func (w *writer) put(s string) {
	if w.want == " " && w.col+1+len(s) > lineLen-1 { // one more for a ";"
		w.want = "\r\n\t"
	}
	if w.want == "\r\n\t" {
		w.col = 0
	}
	w.b.WriteString(w.want)
	w.b.WriteString(s)
	w.col += len(w.want) + len(s)
	w.want = ""
}

// keyword makes s a Keyword (RFC 5321 §4.1.2: letters, digits, hyphens; the underscore is
// used as well).
func keyword(s string) string {
	out := strings.Map(func(r rune) rune {
		if isKeyChar(r) {
			return r
		}
		return -1
	}, s)
	if out == "" {
		return "x"
	}
	return out[:min(len(out), maxValue)]
}

func isKeyChar(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// quote returns a value as a token (RFC 2045 §5.1), an address, a domain with or without
// an at sign before it, or else a quoted string.
func quote(s string) string {
	if isPlain(s) {
		return s
	}
	return `"` + escape(s, `"\`) + `"`
}

// isPlain reports whether s can stand without quotes: a token, or [local-part] "@" domain.
func isPlain(s string) bool {
	if s == "" || len(s) > maxValue {
		return false
	}
	at := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '@':
			at++
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>,;:\"/[]?=`, c) >= 0:
			return false
		}
	}
	return at == 0 || at == 1 && s[len(s)-1] != '@'
}

// escape makes s safe between delimiters: one line of valid text without control characters, of
// limited length, with a backslash before each of special.
func escape(s, special string) string {
	s = strings.ToValidUTF8(cut(s), "?")
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029':
			r = '?'
		case strings.ContainsRune(special, r):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// cut bounds s, at the border of a character.
func cut(s string) string {
	if len(s) <= maxValue {
		return s
	}
	n := maxValue
	for n > maxValue-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
