package smtpd

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeXtext decodes xtext (RFC 3461 §4) of at most max octets. What it stands for must be
// printable ASCII: nothing that could end a line in a queue file, a report or a command.
func decodeXtext(s string, max int) (string, error) {
	if s == "" || len(s) > max {
		return "", errValue
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
				return "", errValue
			}
			v, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			c = byte(v)
			i += 2
			if c < ' ' || c > '~' {
				return "", errValue
			}
		case c <= ' ' || c > '~' || c == '=':
			return "", errValue
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func isUpperHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

// parseORCPT parses "type;address" (RFC 3461 §4.2, RFC 6533 §3) and decodes the address.
func parseORCPT(value string, smtputf8 bool) (string, error) {
	kind, text, ok := strings.Cut(value, ";")
	if !ok || !isKeyword(kind) || len(value) > 500 {
		return "", errValue
	}
	var err error
	if strings.EqualFold(kind, "utf-8") {
		text, err = decodeUTF8Address(text, smtputf8)
	} else {
		text, err = decodeXtext(text, 500)
	}
	if err != nil {
		return "", err
	}
	return kind + ";" + text, nil
}

// decodeUTF8Address decodes utf-8-addr-xtext and, with raw, utf-8-addr-unitext: "\x{HEX}"
// stands for a character.
func decodeUTF8Address(s string, raw bool) (string, error) {
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\\':
			end := strings.IndexByte(s, '}')
			if !strings.HasPrefix(s, `\x{`) || end < 5 || end > 9 {
				return "", errValue
			}
			v, err := strconv.ParseUint(s[3:end], 16, 32)
			if err != nil || !utf8.ValidRune(rune(v)) {
				return "", errValue
			}
			r, n = rune(v), end+1
			if r == '\u0020' || !printable(r) {
				return "", errValue
			}
		case r == utf8.RuneError || r == '+' || r == '=' || r == ' ' || r >= 0x80 && !raw || !printable(r):
			return "", errValue
		}
		b.WriteRune(r)
		s = s[n:]
	}
	if b.Len() == 0 {
		return "", errValue
	}
	return b.String(), nil
}

// printable excludes control characters and the line ends of Unicode.
func printable(r rune) bool {
	return r >= ' ' && (r < 0x7f || r >= 0xa0) && r != '\u2028' && r != '\u2029'
}
