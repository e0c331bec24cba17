package smtpd

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// Regular expressions of RFC 3461 §4 read xtext as we do, and what an address stands for can
// be written again.
func FuzzXtext(f *testing.F) {
	for _, s := range []string{"a+2Bb+3D", "+20", "+7F", "+0a", "+2", "a=b", "é", `a\x{FC}+2B`, `\x{1F4A9}`, `\x{D800}`, `\x{0A}`, `\x{5C}`, "a@bücher.test"} {
		f.Add(s, true)
	}
	grammar, hexchar := regexp.MustCompile(`^(?:[!-*,-<>-~]|\+[0-9A-F]{2})+$`), regexp.MustCompile(`\+..`)
	f.Fuzz(func(t *testing.T, s string, raw bool) {
		want := hexchar.ReplaceAllStringFunc(s, func(h string) string {
			b, _ := hex.DecodeString(h[1:])
			return string(b)
		})
		ok := len(s) <= 500 && grammar.MatchString(s) && !strings.ContainsFunc(want, func(r rune) bool { return r < ' ' || r > '~' })
		if got, err := decodeXtext(s, 500); (err == nil) != ok || ok && got != want {
			t.Fatalf("%q became %q, %v; want %q, %t", s, got, err, want, ok)
		}
		addr, err := decodeUTF8Address(s, raw)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, r := range addr {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
				t.Fatalf("%q became %q", s, addr)
			}
			if r > '~' || strings.ContainsRune(`+=\`, r) {
				fmt.Fprintf(&again, `\x{%02X}`, r)
			} else {
				again.WriteRune(r)
			}
		}
		if back, err := decodeUTF8Address(again.String(), false); err != nil || back != addr || !utf8.ValidString(addr) {
			t.Fatalf("%q became %q, and %q that became %q, %v", s, addr, again.String(), back, err)
		}
	})
}
