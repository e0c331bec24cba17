package smtpclient

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever is written as xtext is one argument of one command, and can be read again.
func FuzzXtext(f *testing.F) {
	for _, s := range []string{"a+b=c d", "\r\nRSET\r\n", "\x7f\xff", `\x{41}`, "ü\U0001f4a9"} {
		f.Add(s)
	}
	one := regexp.MustCompile(`^[!-<>-~]*$`)
	hexchar, point := regexp.MustCompile(`\+..`), regexp.MustCompile(`\\x\{([0-9A-F]+)\}`)
	f.Fuzz(func(t *testing.T, s string) {
		x := string(appendXtext(nil, s))
		back := hexchar.ReplaceAllStringFunc(x, func(h string) string {
			b, _ := hex.DecodeString(h[1:])
			return string(b)
		})
		if !one.MatchString(x) || back != s {
			t.Fatalf("%q became %q", s, x)
		}
		u := string(appendUTF8Xtext(nil, s))
		back = point.ReplaceAllStringFunc(u, func(p string) string {
			n, _ := strconv.ParseUint(p[3:len(p)-1], 16, 32)
			return string(rune(n))
		})
		want := strings.Map(func(r rune) rune {
			if r == utf8.RuneError {
				return '?'
			}
			return r
		}, s)
		if !one.MatchString(u) || strings.Contains(u, "+") || back != want {
			t.Fatalf("%q became %q", s, u)
		}
	})
}
