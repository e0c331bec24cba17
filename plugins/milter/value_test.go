package milter

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// What a milter is shown and gives back unchanged is the same field, byte for byte.
func TestValueThereAndBack(t *testing.T) {
	for _, field := range []string{"A: b\r\n", "A:  b \r\n", "A: b\r\n\tc\r\n  d\r\n", "A: \xff\xe4\r\n", "A: " + strings.Repeat("x", 995) + "\r\n", "A: \r\n x\r\n"} {
		mail.NewHeader([]byte(field)).Fields(func(_ int, f mail.Field) bool {
			line, err := mail.FormatField("A", fromMilter("A", toMilter(f, true), true))
			if string(line) != field || err != nil {
				t.Errorf("%q became %q, %v", field, line, err)
			}
			return true
		})
	}
}

// Lines that are too long are folded, where there is white space if possible.
func TestLongLines(t *testing.T) {
	for _, v := range []string{strings.Repeat("word ", 1000) + "end", strings.Repeat("x", 5000), strings.Repeat("ä", 3000), "a " + strings.Repeat("x", 2000) + " b", strings.Repeat(" ", 3000) + "x", strings.Repeat("x", 990) + strings.Repeat(" ", 3000)} {
		got := fromMilter("X-Name", v, true)
		line, err := mail.FormatField("X-Name", got)
		if err != nil {
			t.Error(err)
		}
		for l := range strings.SplitSeq(strings.TrimSuffix(string(line), "\r\n"), "\r\n") {
			if len(l) > maxLine || strings.Trim(l, " \t") == "" {
				t.Errorf("a line of %d octets", len(l))
			}
		}
		if strings.ContainsRune(v, 'ä') && strings.ToValidUTF8(got, "") != got {
			t.Error("a character is torn")
		}
	}
	if got, want := fromMilter("X", strings.Repeat("word ", 1000)+"end", true), strings.Repeat("word ", 1000)+"end"; strings.ReplaceAll(got, "\r\n", "") != want {
		t.Error("folding at white space changed the value")
	}
}

// FuzzFromMilter: whatever a milter wants in a field is one field, and its text is kept.
func FuzzFromMilter(f *testing.F) {
	f.Add("X-Name", " a\n\tb\r\n\r\nEvil: c\rd\n", true)
	f.Add("X", strings.Repeat("x", 3000), false)
	f.Add("X", "\n\n", true)
	f.Fuzz(func(t *testing.T, name, value string, leading bool) {
		if len(name) > 255 {
			return
		}
		if _, err := mail.FormatField(name, ""); err != nil {
			return
		}
		got := fromMilter(name, value, leading)
		line, err := mail.FormatField(name, got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		h := mail.NewHeader(append(line, '\r', '\n'))
		n := 0
		for i := range h.Fields {
			n = i + 1
		}
		if n != 1 || !h.Separated() {
			t.Fatalf("%q is not one field", line)
		}
		for l := range strings.SplitSeq(strings.TrimSuffix(string(line), "\r\n"), "\r\n") {
			if len(l) > maxLine {
				t.Fatalf("a line of %d octets", len(l))
			}
		}
		bare := func(s string) string {
			return strings.NewReplacer("\r", "", "\n", "", " ", "", "\t", "", "\x00", "").Replace(s)
		}
		if bare(got) != bare(value) {
			t.Fatalf("%q became %q", value, got)
		}
	})
}

// FuzzRefusal: whatever a milter says in a reply is a status that fits its code.
func FuzzRefusal(f *testing.F) {
	f.Add(550, "5.7.1 one\r\n550-5.7.1 two %%")
	f.Add(421, "%")
	f.Fuzz(func(t *testing.T, code int, text string) {
		if code < 400 || code > 599 {
			return
		}
		s := refusal(code, text).Status
		if s.Code/100 != code/100 || s.Enhanced[0] != s.Code/100 || s.Text == "" || strings.ContainsAny(s.Text, "\r\n") {
			t.Errorf("%d %q became %v", code, text, s)
		}
	})
}
