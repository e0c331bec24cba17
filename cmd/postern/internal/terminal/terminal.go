// Package terminal shows what strangers said without letting it steer the terminal.
package terminal

import (
	"strings"
	"unicode"
)

// Printable keeps a terminal safe from what remote hosts and senders say, addresses too.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || Misleading(r):
			return '?'
		}
		return r
	}, s)
}

// Misleading reports whether a character turns the direction of writing, breaks lines or is a
// control character beyond ASCII.
func Misleading(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
