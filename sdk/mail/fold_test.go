package mail

import (
	"strings"
	"testing"
)

// Lines that are too long are folded, where there is white space if possible.
func TestFoldValueLongLines(t *testing.T) {
	full := maxFieldLine - len("X-Name: ")
	for _, v := range []string{strings.Repeat("word ", 1000) + "end", strings.Repeat("x", 5000), strings.Repeat("ä", 3000), "a " + strings.Repeat("x", 2000) + " b",
		strings.Repeat(" ", 3000) + "x", strings.Repeat("x", 990) + strings.Repeat(" ", 3000), strings.Repeat("x", full-1), strings.Repeat("x", full), strings.Repeat("x", full+1)} {
		got := FoldValue("X-Name", v)
		line, err := FormatField("X-Name", got)
		if err != nil {
			t.Error(err)
		}
		for l := range strings.SplitSeq(strings.TrimSuffix(string(line), "\r\n"), "\r\n") {
			if len(l) > maxFieldLine || strings.Trim(l, " \t") == "" {
				t.Errorf("a line of %d octets", len(l))
			}
		}
		if strings.ContainsRune(v, 'ä') && strings.ToValidUTF8(got, "") != got {
			t.Error("a character is torn")
		}
		if len(v) <= full && got != v {
			t.Errorf("%d octets that fit were folded", len(v))
		}
	}
	if got, want := FoldValue("X", strings.Repeat("word ", 1000)+"end"), strings.Repeat("word ", 1000)+"end"; strings.ReplaceAll(got, "\r\n", "") != want {
		t.Error("folding at white space changed the value")
	}
}

// FuzzFoldValue: whatever text comes into a field is one field, and nothing of it is lost.
func FuzzFoldValue(f *testing.F) {
	f.Add("X-Name", " a\n\tb\r\n\r\nEvil: c\rd\n")
	f.Add("X", strings.Repeat("x", 3000))
	f.Add("X", "\n\n")
	f.Add("X", "a\x00b\r\r\n \t\n c")
	f.Fuzz(func(t *testing.T, name, text string) {
		if len(name) > 255 {
			return
		}
		if _, err := FormatField(name, ""); err != nil {
			return
		}
		got := FoldValue(name, text)
		line, err := FormatField(name, got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		h := NewHeader(append(line, '\r', '\n'))
		n := 0
		for i := range h.Fields {
			n = i + 1
		}
		if n != 1 || !h.Separated() {
			t.Fatalf("%q is not one field", line)
		}
		for l := range strings.SplitSeq(strings.TrimSuffix(string(line), "\r\n"), "\r\n") {
			if len(l) > maxFieldLine {
				t.Fatalf("a line of %d octets", len(l))
			}
		}
		bare := func(s string) string {
			return strings.NewReplacer("\r", "", "\n", "", " ", "", "\t", "", "\x00", "").Replace(s)
		}
		if bare(got) != bare(text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
