package mime

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxNames = 64   // forms of a name that are kept
	maxName  = 1024 // bytes of a name
)

// Names returns every name that a reader might give the part, each once, in UTF-8: from
// the parameters filename and name of Content-Disposition and Content-Type, also where
// these are there twice, malformed, in pieces or encoded as in RFC 2231, RFC 2047 or URLs.
// The first is the one that a correct reader shows. A name may hold any character. The
// defect OddName says that there may be others.
func (p *Part) Names() ([]string, Defect) {
	n := names{seen: make(map[string]bool)}
	f, _ := contentFields(p.Header)
	for _, values := range [][]string{f.dispositions, f.types} {
		for _, v := range values {
			field := parseField(v)
			if field.odd {
				n.d |= OddName
			}
			for _, key := range [...]string{"filename", "name"} {
				n.collect(field, key)
			}
		}
	}
	return n.list, n.d
}

type names struct {
	list []string
	seen map[string]bool
	d    Defect
}

func (n *names) collect(f Field, key string) {
	for _, s := range f.extended(key) {
		n.add(s)
	}
	for _, p := range f.Params {
		if p.Name != key {
			continue
		}
		n.add(p.Value)
		for _, o := range p.Others {
			n.add(o)
		}
	}
}

// add keeps the forms of one value.
func (n *names) add(raw string) {
	if raw == "" {
		return
	}
	if len(raw) > maxValue {
		raw, n.d = raw[:maxValue], n.d|OddName
	}
	forms := []string{raw}
	if strings.Contains(raw, "=?") {
		s, unknown := DecodeWords(raw)
		if unknown {
			n.d |= OddName
		}
		forms = []string{s, raw}
	}
	if strings.IndexByte(raw, '%') >= 0 {
		forms = append(forms, percentDecoded(raw))
	}
	for _, s := range forms {
		n.keep(toUTF8(s))
	}
}

func (n *names) keep(s string) {
	if len(s) > maxName { // the end is what counts
		n.d |= OddName
		s = strings.ToValidUTF8(s[len(s)-maxName:], "")
	}
	if s == "" || n.seen[s] {
		return
	}
	if len(n.list) == maxNames {
		n.d |= OddName
		return
	}
	n.seen[s] = true
	n.list = append(n.list, s)
	if i := strings.IndexByte(s, 0); i > 0 { // the end, for programs in C
		n.keep(s[:i])
	}
}

// toUTF8 reads bytes without a charset: UTF-8 if they are, else Latin-1.
func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	r := make([]rune, len(s))
	for i := 0; i < len(s); i++ {
		r[i] = rune(s[i])
	}
	return string(r)
}

// piece is a parameter of RFC 2231: name*, name*0, name*0*.
type piece struct {
	number  int // -1: not numbered
	encoded bool
	value   string
}

func (f Field) pieces(key string) []piece {
	var list []piece
	for _, p := range f.Params {
		rest, ok := strings.CutPrefix(p.Name, key+"*")
		if !ok {
			continue
		}
		pc := piece{number: -1, encoded: true, value: p.Value}
		if rest != "" {
			num, star := strings.CutSuffix(rest, "*")
			i, err := strconv.Atoi(num)
			if err != nil || i < 0 || len(num) > 9 {
				i = 1 << 30 // after all others
			}
			pc.number, pc.encoded = i, star
		}
		list = append(list, pc)
	}
	return list
}

// extended puts RFC 2231 values together, in every way that readers do: in the order of
// the numbers (§3), up to the first gap, in the order in which they are written.
func (f Field) extended(key string) []string {
	var out []string
	var numbered []piece
	for _, p := range f.pieces(key) {
		if p.number < 0 {
			out = append(out, join([]piece{p})...)
		} else {
			numbered = append(numbered, p)
		}
	}
	if len(numbered) == 0 {
		return out
	}
	sorted := slices.Clone(numbered)
	slices.SortStableFunc(sorted, func(a, b piece) int { return a.number - b.number })
	gap := 0
	for gap < len(sorted) && sorted[gap].number == gap {
		gap++
	}
	if gap > 0 {
		out = append(out, join(sorted[:gap])...)
	}
	if gap < len(sorted) {
		out = append(out, join(sorted)...)
		unique := slices.CompactFunc(slices.Clone(sorted), func(a, b piece) bool { return a.number == b.number })
		out = append(out, join(unique)...)
	}
	if !slices.IsSortedFunc(numbered, func(a, b piece) int { return a.number - b.number }) {
		out = append(out, join(numbered)...)
	}
	return out
}

// join decodes pieces in their order. The charset is said at the start of the first
// (RFC 2231 §4.1). The second form, if any, is that of readers who decode all pieces.
func join(pieces []piece) []string {
	var b, all strings.Builder
	charset := ""
	for i, p := range pieces {
		v := p.value
		if i == 0 && p.encoded {
			if cs, rest, ok := strings.Cut(v, "'"); ok {
				if _, text, ok := strings.Cut(rest, "'"); ok {
					charset, v = cs, text
				}
			}
		}
		decoded := percentDecoded(v)
		all.WriteString(decoded)
		if p.encoded {
			v = decoded
		}
		b.WriteString(v)
	}
	out := []string{inCharset(b.String(), charset)}
	if other := inCharset(all.String(), charset); other != out[0] {
		out = append(out, other)
	}
	return out
}

func percentDecoded(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, ok := hexByte(s[i+1], s[i+2]); ok {
				b = append(b, v)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func hexByte(a, b byte) (byte, bool) {
	x, ok1 := hexDigit(a)
	y, ok2 := hexDigit(b)
	return x<<4 | y, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
