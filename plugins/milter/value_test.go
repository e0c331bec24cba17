package milter

import (
	"strings"
	"testing"

	"github.com/emersion/go-milter"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/wire"
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

// Whatever a milter wants changed, what is asked of the gateway keeps to the contract.
func FuzzEdit(f *testing.F) {
	for _, code := range []milter.ModifyActCode{milter.ActAddHeader, milter.ActInsertHeader, milter.ActChangeHeader, milter.ActAddRcpt, milter.ActDelRcpt, milter.ActChangeFrom, milter.ActQuarantine} {
		f.Add(byte(code), uint32(1), "X-A", "a\r\n\r\nb")
		f.Add(byte(code), uint32(1<<31), "x", "<bob@example.org>")
	}
	f.Fuzz(func(t *testing.T, code byte, index uint32, name, text string) {
		m := message("X-A: 1\r\nX-A: 2\r\n\r\nbody\r\n", "bob@example.org")
		d := &dialogue{m: m, v: sdk.Continue(), session: &milter.ClientSession{}, here: []int{0}, hidden: map[string]int{"x-a": 1}}
		var n tally
		if err := d.edit(milter.ModifyAction{Code: milter.ModifyActCode(code), HeaderIndex: index, HeaderName: name, HeaderValue: text, Rcpt: text, From: text, Reason: text}, &n); err != nil {
			return
		}
		if err := wire.CheckDraft(d.v, Manifest(), &m.Envelope, ""); err != nil {
			t.Fatal(err)
		}
		h := m.Header
		if err := sdktest.Apply(d.v, &h); err != nil {
			t.Fatal(err)
		}
		count := func(h mail.Header) (n int) {
			for range h.Fields {
				n++
			}
			return n
		}
		if delta := count(h) - count(m.Header); delta < -1 || delta > 1 || !h.Separated() {
			t.Fatalf("%q", h.Block())
		}
	})
}
