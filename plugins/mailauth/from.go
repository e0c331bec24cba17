package mailauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
// for a reader may show any of them (RFC 9989 §11.5).
func authors(h mail.Header) ([]mail.Domain, error) {
	var out []mail.Domain
	size := 0
	for _, v := range h.Values("From") {
		if size += len(v); size > maxFrom {
			return out, fmt.Errorf("%w, or too much text", errAuthors)
		}
		for _, a := range addresses(v) {
			d, err := mail.ParseDomain(a[strings.LastIndexByte(a, '@')+1:])
			if err != nil || slices.Contains(out, d) {
				continue
			}
			if len(out) == maxAuthors {
				return out, errAuthors
			}
			out = append(out, d)
		}
	}
	return out, nil
}

// addresses finds the addresses in a From field: what stands in angle brackets, else what
// has an at sign. It takes what readers take, well-formed or not, in linear time. Those
// without an at sign are left out.
func addresses(v string) []string {
	var out []string
	var bare strings.Builder // of the mailbox that is being read, without comments and quotes
	angled := false
	flush := func() {
		if s := bare.String(); !angled && strings.Contains(s, "@") {
			out = append(out, strings.TrimSpace(s))
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
