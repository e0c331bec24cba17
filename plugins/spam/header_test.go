package spam

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
)

// lines of a field, which has to be one.
func lines(t *testing.T, name, value string) []string {
	t.Helper()
	field, err := mail.FormatField(name, value)
	if err != nil {
		t.Fatalf("%q: %v", value, err)
	}
	return strings.Split(strings.TrimSuffix(string(field), "\r\n"), "\r\n")
}

// A subject is ASCII in lines that every server takes, and says what the engine said.
func TestRewrittenSubject(t *testing.T) {
	long := strings.Repeat("word ", 179) + "e" // 896 bytes
	word := "=?utf-8?B?" + strings.Repeat("QUFB", 15) + "?="
	for text, want := range map[string]string{
		"[spam] one":                                  "[spam] one",
		"[spam] K\u00e4se":                            "[spam] K\u00e4se",
		"a\r\nBcc: x\x00\x7fy\u0085z":                 "a  Bcc: x  y z",
		"K\xe4se":                                     "K?se",
		" a  b ":                                      "a  b",
		strings.Repeat("\u00e4", 450):                 strings.Repeat("\u00e4", 450),
		strings.Repeat("\u00e4", 451):                 strings.Repeat("\u00e4", 450),
		strings.Repeat("\u20ac", 2000):                strings.Repeat("\u20ac", 300),
		strings.Repeat("x", 899):                      strings.Repeat("x", 899),
		strings.Repeat("x", 900):                      strings.Repeat("x", 900),
		strings.Repeat("x", 901):                      strings.Repeat("x", 900),
		long + "nd":                                   long + "nd",
		long + "ndless words":                         strings.TrimSuffix(long, " e"),
		strings.Repeat(word+" ", 12):                  strings.TrimSpace(strings.Repeat("AAA", 15*12)), // 12 of them fit whole
		strings.Repeat(word+" ", 40):                  strings.TrimSpace(strings.Repeat("AAA", 15*12)),
		"=?utf-8?q?" + strings.Repeat("\u00e4", 1000): "=?utf-8?q?" + strings.Repeat("\u00e4", 445),
	} {
		value := encodeSubject(text)
		for i, l := range lines(t, "Subject", value) {
			limit := 998
			if strings.Contains(l, "=?utf-8?q?=") && i > 0 {
				limit = 76 // RFC 2047 §2
			}
			if len(l) > limit || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r >= utf8.RuneSelf }) {
				t.Errorf("%.40q: line %d has %d octets: %.100q", text, i, len(l), l)
			}
		}
		got, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(value, "\r\n", ""))
		if err != nil || got != want {
			t.Errorf("%.40q, %d bytes:\n got %q, %v\nwant %q", text, len(text), got, err, want)
		}
	}
}

// FuzzSubject: whatever the engine says, and so its sender, the field is one of ASCII.
func FuzzSubject(f *testing.F) {
	f.Add("[spam] K\u00e4se\r\n x")
	f.Add(strings.Repeat("\u20ac =?", 500))
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range lines(t, "Subject", encodeSubject(text)) {
			if len(l) > 998 || strings.ContainsFunc(l, func(r rune) bool { return r != '\t' && r < ' ' || r >= utf8.RuneSelf }) {
				t.Errorf("%q", l)
			}
		}
	})
}

// A field that the engine adds has no line that the next server would refuse.
func TestLongEngineField(t *testing.T) {
	for _, value := range []string{strings.Repeat("x", 8000), strings.Repeat("rule(1.5) ", 800), strings.Repeat("\u00e4", 20_000)} {
		for _, l := range lines(t, "X-Spamd-Result", cleanValue("X-Spamd-Result", value)) {
			if len(l) > 998 || !utf8.ValidString(l) {
				t.Errorf("a line of %d octets: %.50q", len(l), l)
			}
		}
	}
}
