package mail

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever is written as xtext is one value of one parameter, and can be read again.
func FuzzAppendXtext(f *testing.F) {
	for _, s := range []string{"a+b=c d", "\r\nRSET\r\n", "\x7f\xff", `\x{41}`, "ü\U0001f4a9\ufffd"} {
		f.Add(s)
	}
	one := regexp.MustCompile(`^[!-<>-~]*$`)
	hexchar, point := regexp.MustCompile(`\+..`), regexp.MustCompile(`\\x\{([0-9A-F]+)\}`)
	f.Fuzz(func(t *testing.T, s string) {
		x := string(AppendXtext(nil, s))
		back := hexchar.ReplaceAllStringFunc(x, unhex)
		if !one.MatchString(x) || back != s {
			t.Fatalf("%q became %q", s, x)
		}
		u := string(AppendUTF8Xtext(nil, s))
		back = point.ReplaceAllStringFunc(u, func(p string) string {
			n, _ := strconv.ParseUint(p[3:len(p)-1], 16, 32)
			return string(rune(n))
		})
		if !one.MatchString(u) || strings.Contains(u, "+") || back != string([]rune(s)) {
			t.Fatalf("%q became %q", s, u)
		}
	})
}

func unhex(h string) string {
	b, _ := hex.DecodeString(h[1:])
	return string(b)
}

// Regular expressions of RFC 3461 §4 read xtext as we do, and what an address stands for can
// be written again.
func FuzzDecodeXtext(f *testing.F) {
	for _, s := range []string{"a+2Bb+3D", "+20", "+7F", "+0a", "+2", "a=b", "é", "", `a\x{FC}+2B`, `\x{1F4A9}`, `\x{D800}`, `\x{0A}`, `\x{5C}`, `\x{FFFD}`, "a@bücher.test"} {
		f.Add(s, true)
	}
	grammar, hexchar := regexp.MustCompile(`^(?:[!-*,-<>-~]|\+[0-9A-F]{2})+$`), regexp.MustCompile(`\+..`)
	f.Fuzz(func(t *testing.T, s string, raw bool) {
		want := hexchar.ReplaceAllStringFunc(s, unhex)
		ok := grammar.MatchString(s) && !strings.ContainsFunc(want, func(r rune) bool { return r < ' ' || r > '~' })
		got, err := DecodeXtext(s)
		if (err == nil) != ok || ok && got != want {
			t.Fatalf("%q became %q, %v; want %q, %t", s, got, err, want, ok)
		}
		if back, err := DecodeXtext(string(AppendXtext(nil, got))); ok && (err != nil || back != got) {
			t.Fatalf("%q became %q, and that %q, %v", s, got, back, err)
		}
		addr, err := DecodeUTF8Xtext(s, raw)
		if err != nil {
			return
		}
		if addr == "" || !utf8.ValidString(addr) || strings.ContainsFunc(addr, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' }) {
			t.Fatalf("%q became %q", s, addr)
		}
		again := string(AppendUTF8Xtext(nil, addr))
		if back, err := DecodeUTF8Xtext(again, false); err != nil || back != addr {
			t.Fatalf("%q became %q, and %q that became %q, %v", s, addr, again, back, err)
		}
	})
}

func TestAppendORCPT(t *testing.T) {
	for orcpt, want := range map[string]string{
		"rfc822;a+b=c@x.test": "rfc822;a+2Bb+3Dc@x.test",
		"rfc822;a\r\nRSET":    "rfc822;a+0D+0ARSET",
		`UTF-8;ü\@x.test`:     `UTF-8;\x{FC}\x{5C}@x.test`,
		"r 8;a":               "r+208;a",
	} {
		if got := string(AppendORCPT([]byte("ORCPT="), orcpt)); got != "ORCPT="+want {
			t.Errorf("%q: %s", orcpt, got)
		}
	}
}

func TestNotify(t *testing.T) {
	for n, want := range map[Notify]string{0: "", NotifyNever: "NEVER", NotifyDelay | NotifySuccess: "SUCCESS,DELAY", NotifySuccess | NotifyFailure | NotifyDelay: "SUCCESS,FAILURE,DELAY"} {
		if n.String() != want {
			t.Errorf("%d: %s", n, n)
		}
	}
}
