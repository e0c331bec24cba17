package smtpcmd

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// FuzzCommand: no command line makes the parsers panic, what they accept is safe, and what is
// written of it is read as the same.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{`FROM:<a@b.test> SIZE=1 BODY=8BITMIME RET=HDRS ENVID=a+2Bb+20c`, `TO:<"a b"@x.test> ORCPT=rfc822;a+0A`, `TO:<@a.test:b@c.test>`, `FROM:<ü@x.test> SMTPUTF8 REQUIRETLS`,
		`TO:<postmaster> NOTIFY=NEVER`, `TO:<b@c.test> NOTIFY=DELAY,SUCCESS ORCPT=utf-8;ü\x{5C}\x{FFFD}@x`, `5 LAST`, `client.test`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		if _, _, fault := Parse([]byte(arg), false); !fault.IsZero() {
			return
		}
		if m, st := ParseMail(arg, everything); st.IsZero() {
			again, err := mail.ParsePath(m.Reverse.String())
			if err != nil || again != m.Reverse || unsafe(m.Reverse.String()) || unsafe(m.EnvelopeID) || m.Size < 0 {
				t.Fatalf("%+v", m)
			}
			if back, st := ParseMail(written(t, m.Append(nil), VerbMail), everything); !st.IsZero() || back != m {
				t.Fatalf("%+v became %+v: %v", m, back, st)
			}
		} else if st.Code < 500 {
			t.Fatalf("%+v", st)
		}
		if r, st := ParseRcpt(arg, "mx.test", true, everything); st.IsZero() {
			again, err := mail.ParsePath(r.Forward.String())
			if err != nil || again != r.Forward || r.Forward.IsZero() || unsafe(r.Forward.String()) || unsafe(r.ORCPT) {
				t.Fatalf("%+v", r)
			}
			// An address in UTF-8 is longer in ASCII than what it was read from.
			if back, st := ParseRcpt(written(t, r.Append(nil), VerbRcpt), "mx.test", true, everything); (!st.IsZero() || back != r) && len(r.ORCPT) < 500/len(`\x{10FFFF}`) {
				t.Fatalf("%+v became %+v: %v", r, back, st)
			}
		}
		if c, err := ParseBdat(arg); err == nil && c.Size < 0 {
			t.Fatalf("%+v", c)
		}
		if name, st := ParseHello(arg); st.IsZero() && (name == "" || unsafe(name) || strings.ContainsAny(name, `()<>"\ ,;`)) {
			t.Fatalf("%q", name)
		}
	})
}

// written is the argument of a command that was written.
func written(t *testing.T, line []byte, want Verb) string {
	t.Helper()
	text, ok := strings.CutSuffix(string(line), "\r\n")
	v, arg, fault := Parse([]byte(text), false)
	if !ok || v != want || !fault.IsZero() {
		t.Fatalf("%q: %v", line, fault)
	}
	return arg
}

func unsafe(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' })
}
