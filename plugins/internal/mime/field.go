package mime

import (
	"strings"
)

// Bounds on what is taken from one part's header.
const (
	maxFields = 10       // fields of one name
	maxValue  = 64 << 10 // bytes of a value
	maxParams = 2000     // parameters of a field, the pieces of RFC 2231 included
)

// Field is a structured field: a value and parameters (RFC 2045 §5.1).
type Field struct {
	Value  string // without comments, as written
	Params []Param

	odd       bool // not well-formed in a way that matters
	commented bool // there was a comment in the value
}

// Param is one parameter as it stands: pieces and encodings of RFC 2231 are not put
// together (for names see [Part.Names]).
type Param struct {
	Name  string // in lower case
	Value string
	// Others are what readers that are stricter, or less strict, make of the value.
	Others []string
}

// Get returns the value of the first parameter of that name, "" if there is none.
func (f Field) Get(name string) string {
	for _, p := range f.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// parseField parses a value. What is malformed is read as most readers do.
func parseField(s string) Field {
	var f Field
	if len(s) > maxValue {
		s, f.odd = s[:maxValue], true
	}
	first, rest, more := cutSegment(s)
	f.Value = strings.TrimSpace(withoutComments(first))
	f.commented = strings.IndexByte(first, '(') >= 0
	for more {
		var seg string
		seg, rest, more = cutSegment(rest)
		if seg = strings.TrimSpace(seg); seg == "" {
			continue
		}
		if len(f.Params) == maxParams {
			f.odd = true
			break
		}
		f.Params = append(f.Params, parseParam(seg))
	}
	return f
}

// cutSegment cuts at the first semicolon that is not in a quoted string.
func cutSegment(s string) (segment, rest string, more bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			quoted = !quoted
		case '\\':
			if quoted {
				i++
			}
		case ';':
			if !quoted {
				return s[:i], s[i+1:], true
			}
		}
	}
	return s, "", false
}

// parseParam reads one parameter. Its segment is not empty.
func parseParam(seg string) Param {
	name, v, _ := strings.Cut(seg, "=")
	p := Param{Name: strings.ToLower(strings.TrimSpace(withoutComments(name)))}
	v = strings.TrimSpace(v)
	if v == "" || v[0] != '"' {
		p.Value = v
		if i := strings.IndexAny(v, " \t"); i >= 0 {
			p.Others = append(p.Others, v[:i])
		}
		if strings.IndexByte(v, '(') >= 0 {
			p.Others = append(p.Others, strings.TrimSpace(withoutComments(v)))
		}
		return p
	}
	value, rest := unquote(v)
	p.Value = value
	if strings.IndexByte(v, '\\') >= 0 { // paths of DOS, written without care
		p.Others = append(p.Others, strings.Trim(v, `"`))
	}
	if rest = strings.TrimSpace(rest); rest != "" {
		p.Others = append(p.Others, value+strings.ReplaceAll(rest, `"`, ""))
	}
	// A semicolon in the quotes is the end for readers that do not know quotes.
	if i := strings.IndexByte(value, ';'); i >= 0 {
		p.Others = append(p.Others, value[:i])
	}
	return p
}

// unquote reads the quoted string at the start of s; one that does not end is all of s.
func unquote(s string) (value, rest string) {
	if i := strings.IndexAny(s[1:], `"\`); i >= 0 && s[1+i] == '"' { // nothing escaped
		return s[1 : 1+i], s[2+i:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// withoutComments removes comments (RFC 5322 §3.2.2), nested ones too.
func withoutComments(s string) string {
	if strings.IndexByte(s, '(') < 0 {
		return s
	}
	var b strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// boundary returns the boundary, and whether readers might take another one.
func (f Field) boundary() (string, Defect) {
	b, d := "", Defect(0)
	found := 0
	for _, p := range f.Params {
		switch {
		case p.Name == "boundary":
			if found++; found == 1 {
				b = p.Value
			} else if p.Value != b {
				d |= DuplicateBoundary
			}
			if len(p.Others) > 0 {
				d |= MalformedField
			}
		case strings.HasPrefix(p.Name, "boundary*"): // few put a boundary together
			d |= MalformedField
			if found == 0 && (p.Name == "boundary*" || p.Name == "boundary*0" || p.Name == "boundary*0*") {
				b = f.joined("boundary")
			}
		}
	}
	if strings.Contains(b, "=?") && strings.Contains(b, "?=") || f.commented {
		d |= MalformedField
	}
	trimmed := strings.TrimRight(b, " \t")
	if trimmed != b {
		d |= MalformedField // RFC 2046 §5.1.1: it does not end in white space
	}
	return trimmed, d
}

func (f Field) joined(name string) string {
	if all := f.extended(name); len(all) > 0 {
		return all[0]
	}
	return ""
}
