package mail

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

var errXtext = errors.New("malformed value")

// AppendXtext appends s as xtext (RFC 3461 §4): ASCII, and nothing in it can end a parameter
// or a line.
func AppendXtext(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c > '~' || c == '+' || c == '=' {
			b = append(b, '+', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// AppendUTF8Xtext appends s as utf-8-addr-xtext (RFC 6533 §3), which is ASCII as well. What is
// not UTF-8 in s becomes U+FFFD.
func AppendUTF8Xtext(b []byte, s string) []byte {
	for _, r := range s {
		if r > ' ' && r <= '~' && r != '+' && r != '=' && r != '\\' {
			b = append(b, byte(r))
			continue
		}
		b = append(b, `\x{`...)
		h := strings.ToUpper(strconv.FormatInt(int64(r), 16))
		if len(h)%2 == 1 {
			b = append(b, '0')
		}
		b = append(append(b, h...), '}')
	}
	return b
}

// AppendORCPT appends the original recipient "type;address" as the value of the parameter
// ORCPT (RFC 3461 §4.2): the address in the encoding that its type asks for.
func AppendORCPT(b []byte, orcpt string) []byte {
	kind, addr, _ := strings.Cut(orcpt, ";")
	b = append(AppendXtext(b, kind), ';')
	if strings.EqualFold(kind, "utf-8") {
		return AppendUTF8Xtext(b, addr)
	}
	return AppendXtext(b, addr)
}

// DecodeXtext decodes xtext (RFC 3461 §4). What it stands for must be printable ASCII, and at
// least one octet: nothing that could end a line in a queue file, a report or a command.
func DecodeXtext(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
				return "", errXtext
			}
			v, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			c = byte(v)
			i += 2
			if c < ' ' || c > '~' {
				return "", errXtext
			}
		case c <= ' ' || c > '~' || c == '=':
			return "", errXtext
		}
		b.WriteByte(c)
	}
	if b.Len() == 0 {
		return "", errXtext
	}
	return b.String(), nil
}

func isUpperHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

// DecodeUTF8Xtext decodes utf-8-addr-xtext and, with raw, utf-8-addr-unitext (RFC 6533 §3):
// "\x{HEX}" stands for a character. It must be printable.
func DecodeUTF8Xtext(s string, raw bool) (string, error) {
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\\':
			end := strings.IndexByte(s, '}')
			if !strings.HasPrefix(s, `\x{`) || end < 5 || end > 9 {
				return "", errXtext
			}
			v, err := strconv.ParseUint(s[3:end], 16, 32)
			if err != nil || !utf8.ValidRune(rune(v)) {
				return "", errXtext
			}
			r, n = rune(v), end+1
			if r == ' ' || !printable(r) {
				return "", errXtext
			}
		case r == utf8.RuneError || r == '+' || r == '=' || r == ' ' || r >= 0x80 && !raw || !printable(r):
			return "", errXtext
		}
		b.WriteRune(r)
		s = s[n:]
	}
	if b.Len() == 0 {
		return "", errXtext
	}
	return b.String(), nil
}

// printable excludes control characters and the line ends of Unicode.
func printable(r rune) bool {
	return r >= ' ' && (r < 0x7f || r >= 0xa0) && r != '\u2028' && r != '\u2029'
}
