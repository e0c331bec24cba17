package engine

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// comparator is one of RFC 4790, by its name.
type comparator string

const (
	octet          comparator = "i;octet"
	asciiCasemap   comparator = "i;ascii-casemap"
	asciiNumeric   comparator = "i;ascii-numeric"
	unicodeCasemap comparator = "i;unicode-casemap"
)

// comparator takes the value of the tag :comparator (RFC 5228 §2.7.3).
func (c *compiler) comparator(b *bound) (comparator, *Error) {
	a, ok := b.tags["comparator"]
	if !ok {
		return asciiCasemap, nil
	}
	name := strings.ToLower(a.Strings[0].Text)
	switch comparator(name) {
	case octet, asciiCasemap:
		return comparator(name), nil
	case asciiNumeric, unicodeCasemap:
		if !c.has("comparator-" + name) {
			return "", unknownAt(a.Line, "comparator '%s' needs the extension 'comparator-%s': add it to 'require'", name, name)
		}
		return comparator(name), nil
	}
	return "", unknownAt(a.Line, "unknown comparator '%s'", printable(name))
}

// key maps a string to one that can be compared octet by octet. Not for i;ascii-numeric.
func (c comparator) key(s string) string {
	switch c {
	case asciiCasemap:
		return lowerASCII(s)
	case unicodeCasemap:
		return unicodeKey(s)
	}
	return s
}

// cost is the work of comparing a string.
func (c comparator) cost(s string) int64 {
	n := int64(len(s))
	if c == unicodeCasemap {
		for i := range len(s) {
			if s[i] >= utf8.RuneSelf {
				n += 16
			}
		}
	}
	return n
}

// compare orders two strings: below 0, 0 or above.
func (c comparator) compare(a, b string) int {
	if c != asciiNumeric {
		return strings.Compare(upperASCIIKey(c, a), upperASCIIKey(c, b))
	}
	// RFC 4790 §9.1.1: what does not begin with a digit is positive infinity.
	a, b = leadingNumber(a), leadingNumber(b)
	switch {
	case a == "" && b == "":
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// upperASCIIKey is key, but i;ascii-casemap orders by upper case (RFC 4790 §9.2.1): it tells where "_" stands.
func upperASCIIKey(c comparator, s string) string {
	if c != asciiCasemap {
		return c.key(s)
	}
	return upperASCII(s)
}

func leadingNumber(s string) string {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return s[:n]
}

// lowerASCII lowers the letters of ASCII, and nothing else.
func lowerASCII(s string) string { return mapASCII(s, 'A', 'Z') }

// upperASCII is the other way round.
func upperASCII(s string) string { return mapASCII(s, 'a', 'z') }

// mapASCII flips the case of the bytes from first to last.
func mapASCII(s string, first, last byte) string {
	for i := range len(s) {
		if s[i] >= first && s[i] <= last {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if b[j] >= first && b[j] <= last {
					b[j] ^= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

// unicodeKey maps as i;unicode-casemap does (RFC 5051 §2): title case, then compatibility decomposition.
func unicodeKey(s string) string {
	return norm.NFKD.String(strings.Map(unicode.ToTitle, s))
}
