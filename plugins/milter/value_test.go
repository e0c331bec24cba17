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
