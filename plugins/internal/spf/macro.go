package spf

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// macroRE is one macro-expand (RFC 7208 §7.1).
var macroRE = regexp.MustCompile(`^(?:%[%_-]|%\{([slodiphcrtvSLODIPHCRTV])([0-9]*)([rR]?)([-.+,/_=]*)\})`)

// explanatory are the letters for explanations only.
const explanatory = "crtCRT"

// scan calls macro for each macro of s and literal for what is between them. It reports
// whether s is a macro-string.
func scan(s string, literal func(string), macro func(m []string)) bool {
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i != 0 {
			if i < 0 {
				i = len(s)
			}
			literal(s[:i])
			s = s[i:]
			continue
		}
		m := macroRE.FindStringSubmatch(s)
		if m == nil {
			return false
		}
		macro(m)
		s = s[len(m[0]):]
	}
	return true
}

// isMacroString checks the syntax; all says whether the letters for explanations are allowed.
func isMacroString(s string, all bool) bool {
	ok := true
	return scan(s, func(lit string) {
		for i := 0; i < len(lit); i++ {
			ok = ok && lit[i] > ' ' && lit[i] <= '~'
		}
	}, func(m []string) {
		if m[1] != "" && strings.Contains(explanatory, m[1]) && !all {
			ok = false
		}
		if n, err := strconv.Atoi(m[2]); m[2] != "" && (err != nil || n == 0) {
			ok = false // RFC 7208 §7.1: the number is not zero
		}
	}) && ok
}

// macroAtEnd reports whether a macro-string ends in a macro.
func macroAtEnd(s string) bool {
	end := false
	scan(s, func(string) { end = false }, func([]string) { end = true })
	return end
}

// target expands a domain-spec. What is too long for a name loses labels on the left
// (RFC 7208 §7.3).
func (e *evaluation) target(spec, domain string) (string, error) {
	s, err := e.expand(spec, domain)
	if err != nil {
		return "", err
	}
	s = strings.TrimSuffix(s, ".")
	for len(s) > 253 {
		_, rest, found := strings.Cut(s, ".")
		if !found {
			return "", permanent("a name of %d bytes", len(s))
		}
		s = rest
	}
	return s, nil
}

// expand expands a macro-string.
func (e *evaluation) expand(s, domain string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	scan(s, func(lit string) { b.WriteString(lit) }, func(m []string) {
		if b.Len() > maxExpansion {
			return
		}
		switch m[0] {
		case "%%":
			b.WriteByte('%')
		case "%_":
			b.WriteByte(' ')
		case "%-":
			b.WriteString("%20")
		default:
			v := transform(e.value(m[1][0]|0x20, domain), m[2], m[3] != "", m[4])
			if m[1][0] < 'a' {
				v = escapeURL(v)
			}
			b.WriteString(v)
		}
	})
	if b.Len() > maxExpansion {
		return "", permanent("a macro expands to more than %d bytes", maxExpansion)
	}
	return b.String(), nil
}

// value of a macro letter (RFC 7208 §7.2).
func (e *evaluation) value(letter byte, domain string) string {
	switch letter {
	case 's':
		return e.q.Local + "@" + e.sender
	case 'l':
		return e.q.Local
	case 'o':
		return e.sender
	case 'd':
		return domain
	case 'i':
		return dotted(e.q.IP)
	case 'p':
		return e.clientName(domain)
	case 'v':
		if e.q.IP.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return e.q.Helo
	case 'c':
		return e.q.IP.String()
	case 'r':
		if e.q.Receiver == "" {
			return "unknown"
		}
		return e.q.Receiver
	}
	now := e.q.Now // t
	if now.IsZero() {
		now = time.Now()
	}
	return strconv.FormatInt(now.Unix(), 10)
}

// clientName is the validated name of the client: the domain itself, else one below it, else
// any, else "unknown".
func (e *evaluation) clientName(domain string) string {
	names, _ := e.clientNames(false)
	best, rank := "unknown", 0
	for _, n := range names {
		r := 1
		if strings.EqualFold(n, domain) {
			r = 3
		} else if under(n, domain) {
			r = 2
		}
		if r > rank {
			best, rank = n, r
		}
	}
	return best
}

// dotted is an address as a name: the octets, or the nibbles.
func dotted(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, 63)
	for i, b := range ip.As16() {
		if i > 0 {
			out = append(out, '.')
		}
		out = append(out, hex[b>>4], '.', hex[b&15])
	}
	return string(out)
}

// transform splits v at the delimiters, reverses the parts, keeps the rightmost.
func transform(v, digits string, reverse bool, delimiters string) string {
	if delimiters == "" {
		if digits == "" && !reverse {
			return v
		}
		delimiters = "."
	}
	parts := splitAny(v, delimiters)
	if reverse {
		slices.Reverse(parts)
	}
	if n, err := strconv.Atoi(digits); err == nil && n > 0 && n < len(parts) {
		parts = parts[len(parts)-n:]
	}
	return strings.Join(parts, ".")
}

// splitAny splits at each of the delimiters, keeping empty parts.
func splitAny(v, delimiters string) []string {
	var parts []string
	for {
		i := strings.IndexAny(v, delimiters)
		if i < 0 {
			return append(parts, v)
		}
		parts = append(parts, v[:i])
		v = v[i+1:]
	}
}

// escapeURL encodes all but the unreserved characters of RFC 3986.
func escapeURL(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)+0x100, 16)[1:]))
	}
	return b.String()
}

// explain fetches the explanation (RFC 7208 §6.2). Whatever is wrong with it, there is none.
func (e *evaluation) explain() string {
	name, err := e.target(e.exp, e.expDomain)
	if err != nil || !wellFormed(name) {
		return ""
	}
	txts, err := e.r.LookupTXT(e.ctx, name)
	if err != nil || len(txts) != 1 || len(txts[0]) > maxRecord {
		return ""
	}
	for word := range strings.SplitSeq(txts[0], " ") {
		if !isMacroString(word, true) { // plain text: no control characters, nothing beyond ASCII
			return ""
		}
	}
	text, err := e.expand(txts[0], e.expDomain)
	if err != nil {
		return ""
	}
	return text
}
