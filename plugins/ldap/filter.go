package ldap

import (
	"errors"
	"fmt"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/sdk/mail"
)

// filter is a filter with gaps (RFC 4515), in turn: text, then a letter for what comes into
// the gap. The last letter is 0.
type filter []struct {
	text string
	gap  byte
}

// parseFilter parses a filter with %a, %u and %d, of which one of the first two is needed.
// %% is a percent sign.
func parseFilter(s string) (filter, error) {
	var f filter
	var text strings.Builder
	about := false
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			text.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return nil, errors.New("ends in %")
		}
		switch c := s[i]; c {
		case '%':
			text.WriteByte('%')
		case 'a', 'u', 'd':
			f = append(f, struct {
				text string
				gap  byte
			}{text.String(), c})
			text.Reset()
			about = about || c != 'd'
		default:
			return nil, fmt.Errorf("%%%c is not known: %%a is the address, %%u its local part, %%d its domain", c)
		}
	}
	f = append(f, struct {
		text string
		gap  byte
	}{text: text.String()})
	if !about {
		return nil, errors.New("asks for no address: %a is the address, %u its local part")
	}
	if _, err := goldap.CompileFilter(f.about(mail.MustPath("user@example.org"))); err != nil {
		return nil, errors.New("is not a filter (RFC 4515)")
	}
	return f, nil
}

// about fills the gaps. What comes into them has no meaning in a filter.
func (f filter) about(p mail.Path) string {
	p = p.Fold()
	var b strings.Builder
	for _, part := range f {
		b.WriteString(part.text)
		switch part.gap {
		case 'a':
			b.WriteString(goldap.EscapeFilter(p.String()))
		case 'u':
			b.WriteString(goldap.EscapeFilter(p.Local))
		case 'd':
			b.WriteString(goldap.EscapeFilter(p.Domain.String()))
		}
	}
	return b.String()
}
