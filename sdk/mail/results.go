package mail

import (
	"io"
	"mime"
	"regexp"
	"strings"
	"unicode"
)

// ClaimsResults reports whether the value of an Authentication-Results field can be taken for one
// of host: whoever writes such fields in the name of host removes all others that say so (RFC 8601
// §5). It is wider than RFC 8601 §2.2, for readers that are: host may be a word anywhere before the
// first semicolon, or the first one after another; where a comment or quoted string does not end it
// may be a word anywhere; it may be spelled with white space around its dots (RFC 5322 §4.4), in
// encoded words (RFC 2047) or in U-labels. A longer name is another host.
func ClaimsResults(value, host string) bool {
	own, err := ParseDomain(host)
	if err != nil {
		return false
	}
	if claims(value, own) {
		return true
	}
	if !strings.Contains(value, "=?") {
		return false
	}
	// Of other charsets the ASCII in them is enough.
	words := mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
	decoded, err := words.DecodeHeader(value)
	return err == nil && claims(decoded, own)
}

func claims(value string, own Domain) bool {
	text, ends := visible(value)
	if !ends {
		return mentions(value, own)
	}
	for i, part := range strings.Split(text, ";") {
		if i > 0 {
			part = firstWord(part)
		}
		if mentions(part, own) {
			return true
		}
	}
	return false
}

// visible is a value without its comments and the quotes and semicolons of quoted strings. ends
// says whether each of them does.
func visible(value string) (text string, ends bool) {
	b := make([]byte, 0, len(value))
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		c := value[i]
		escaped := c == '\\' && (quoted || depth > 0) && i+1 < len(value)
		if escaped {
			i++
			c = value[i]
		}
		switch {
		case depth > 0:
			if !escaped && c == '(' {
				depth++
			} else if !escaped && c == ')' {
				depth--
			}
		case c == '"' && !escaped:
			quoted = !quoted
		case quoted && c == ';':
			b = append(b, ',')
		case c == '(' && !quoted:
			depth++
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return string(b), depth == 0 && !quoted
}

// aroundDot is white space where the obsolete syntax of domains allows it.
var aroundDot = regexp.MustCompile(`\s*\.\s*`)

// mentions reports whether own is among the words of a text.
func mentions(text string, own Domain) bool {
	for _, t := range []string{text, aroundDot.ReplaceAllString(text, ".")} {
		for word := range strings.FieldsFuncSeq(t, outside) {
			if isHost(word, own) {
				return true
			}
		}
	}
	return false
}

// firstWord cuts off what follows the first word of a text, with the white space around its dots.
func firstWord(text string) string {
	text = aroundDot.ReplaceAllString(strings.TrimLeftFunc(text, outside), ".")
	if i := strings.IndexFunc(text, outside); i >= 0 {
		return text[:i]
	}
	return text
}

// outside reports whether a character is no part of host names.
func outside(r rune) bool {
	return !unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number) && !strings.ContainsRune("-_.\u3002\uff0e\uff61", r)
}

func isHost(word string, own Domain) bool {
	word = strings.Trim(word, ".")
	if strings.EqualFold(word, own.name) {
		return true
	}
	if strings.IndexFunc(word, func(r rune) bool { return r > unicode.MaxASCII }) < 0 {
		return false
	}
	d, err := ParseDomain(word)
	return err == nil && d == own
}
