package mailauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk/mail"
)

// Limits on From.
const (
	maxFrom    = 64 << 10 // bytes of all fields
	maxAuthors = 4        // domains
)

// errAuthors says that there are too many domains in From to evaluate DMARC.
var errAuthors = errors.New("too many domains in From")

// authors are the domains of the addresses in From, each once, in order: of all From fields,
// for a reader may show any of them (RFC 9989 §11.5). Where none has an address that can be
// made out, they are all that stand behind an at sign: readers mend what is malformed.
func authors(h mail.Header) ([]mail.Domain, error) {
	var list domains
	values := h.Values("From")
	size := 0
	for _, v := range values {
		if size += len(v); size > maxFrom {
			return list, fmt.Errorf("%w, or too much text", errAuthors)
		}
		for _, a := range addresses(v) {
			if err := list.add(a); err != nil {
				return list, err
			}
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	for _, v := range values {
		text, _ := mime.DecodeWords(v)
		for _, d := range afterAt(text) {
			if err := list.add(d); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

// domains are different ones, at most maxAuthors.
type domains []mail.Domain

// add takes the domain of an address, or the domain itself. What is none is left out.
func (l *domains) add(address string) error {
	d, err := mail.ParseDomain(address[strings.LastIndexByte(address, '@')+1:])
	if err != nil || slices.Contains(*l, d) {
		return nil
	}
	if len(*l) == maxAuthors {
		return errAuthors
	}
	*l = append(*l, d)
	return nil
}

// addresses finds the addresses in a From field: what stands in angle brackets, else all that
// has an at sign, of which a reader may take any. It takes what readers take, well-formed or
// not, in linear time. Those without an at sign are left out.
func addresses(v string) []string {
	var out []string
	var bare strings.Builder // of the mailbox that is being read, without comments and quotes
	angled := false
	flush := func() {
		if !angled {
			out = append(out, afterAt(bare.String())...)
		}
		bare.Reset()
		angled = false
	}
	for i := 0; i < len(v); i++ {
		switch c := v[i]; c {
		case '"':
			i = skipQuoted(v, i)
			bare.WriteByte('q') // part of a local part, or of a name
		case '(':
			i = skipComment(v, i)
		case '<':
			end := closing(v, i)
			if a := strings.TrimSpace(v[i+1 : end]); strings.Contains(a, "@") {
				out = append(out, withoutComments(a))
				angled = true
			}
			i = end
		case ',', ';':
			flush()
		case ':': // the name of a group; or an address with a port, which is none
			bare.Reset()
		default:
			bare.WriteByte(c)
		}
	}
	flush()
	return out
}

// afterAt finds what stands behind each at sign and may be a domain, with white space around
// its dots (RFC 5322 §4.4) or without.
func afterAt(s string) []string {
	var out []string
	for {
		_, rest, ok := strings.Cut(s, "@")
		if !ok {
			return out
		}
		s = rest
		var d []byte
		for rest = strings.TrimLeft(rest, " \t\r\n\""); ; rest = trimSpace(rest) {
			n := 0
			for n < len(rest) && ofDomain(rest[n]) {
				n++
			}
			d, rest = append(d, rest[:n]...), rest[n:]
			dots := len(d) > 0 && d[len(d)-1] == '.' || strings.HasPrefix(trimSpace(rest), ".")
			if rest == "" || !isSpace(rest[0]) || !dots {
				break
			}
		}
		out = append(out, strings.ToValidUTF8(string(d), ""))
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func trimSpace(s string) string { return strings.TrimLeft(s, " \t\r\n") }

// ofDomain says which bytes a domain or an address literal has, in UTF-8 too.
func ofDomain(c byte) bool {
	return c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.[]", c) >= 0
}

// skipQuoted returns the index of the closing quote, or of the last byte.
func skipQuoted(v string, i int) int {
	for i++; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(v)
}

func skipComment(v string, i int) int {
	depth := 0
	for ; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(v)
}

// closing returns the index of the ">" that belongs to the "<" at i, or the end.
func closing(v string, i int) int {
	for i++; i < len(v); i++ {
		switch v[i] {
		case '"':
			i = skipQuoted(v, i)
		case '(':
			i = skipComment(v, i)
		case '>':
			return i
		}
	}
	return len(v)
}

func withoutComments(a string) string {
	if !strings.ContainsAny(a, "( \t") {
		return a
	}
	var b strings.Builder
	for i := 0; i < len(a); i++ {
		switch a[i] {
		case '(':
			i = skipComment(a, i)
		case ' ', '\t':
		default:
			b.WriteByte(a[i])
		}
	}
	return b.String()
}
