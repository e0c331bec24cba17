package mime

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postern-mail/postern/sdk/mail"
)

type runtimeStats struct{ runtime.MemStats }

func (s *runtimeStats) read() { runtime.ReadMemStats(&s.MemStats) }

func decode(t testing.TB, e Encoding, in string) (string, bool) {
	t.Helper()
	d := newDecoder(strings.NewReader(in), e)
	out, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	slow := newDecoder(iotest.OneByteReader(strings.NewReader(in)), e)
	if again, err := io.ReadAll(slow); err != nil || !bytes.Equal(again, out) || slow.state.odd != d.state.odd {
		t.Fatalf("%q: byte by byte %q, at once %q, %v", in, again, out, err)
	}
	return string(out), d.state.odd
}

func TestBase64(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"QUJD":                     "ABC",
		"QUI=":                     "AB",
		"QQ==\r\n":                 "A",
		"QU\r\nJD\r\n":             "ABC",
		"QQ":                       "A", // no padding
		"QUI":                      "AB",
		"Q":                        "",
		" Q U J D ":                "ABC",
		"Q*UJD":                    "ABC!",
		"QQ==QUI=":                 "AAB!", // goes on after the end
		"QQ==\r\n--\r\nfooter\r\n": "A" + "~\x8a(\xb5\xea" + "!",
		"====":                     "",
	} {
		want, wantOdd := strings.CutSuffix(want, "!")
		got, odd := decode(t, Base64, in)
		if in == "QQ==\r\n--\r\nfooter\r\n" {
			got, want = got[:1], want[:1] // what it is does not matter
		}
		if got != want || odd != wantOdd {
			t.Errorf("%q: %q %v, want %q %v", in, got, odd, want, wantOdd)
		}
	}
}

func TestQuotedPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		"a=3Db=e4":       "a=b\xe4",
		"a=\r\nb":        "ab",
		"a= \t\r\nb":     "ab",
		"a=\nb":          "ab",
		"a\r\nb":         "a\r\nb",
		"a=zz":           "a=zz!",
		"a==3D":          "a==!",
		"a=3":            "a=3",
		"a=":             "a",
		"a=\rb":          "a=\rb!",
		"=3=3D":          "=3=!",
		"trailing  \r\n": "trailing  \r\n",
	} {
		want, wantOdd := strings.CutSuffix(want, "!")
		if got, odd := decode(t, QuotedPrintable, in); got != want || odd != wantOdd {
			t.Errorf("%q: %q %v, want %q %v", in, got, odd, want, wantOdd)
		}
	}
}

// What the standard library encodes comes back.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("a\r\n=\xff "), "Q=U\r\nJD==x")
	f.Fuzz(func(t *testing.T, b []byte, junk string) {
		decode(t, Base64, junk)
		decode(t, QuotedPrintable, junk)
		if got, odd := decode(t, Base64, base64.StdEncoding.EncodeToString(b)); got != string(b) || odd {
			t.Fatalf("base64: %q", got)
		}
		var qp strings.Builder
		w := quotedprintable.NewWriter(&qp)
		w.Binary = true
		w.Write(b)
		w.Close()
		if got, odd := decode(t, QuotedPrintable, qp.String()); got != string(b) || odd {
			t.Fatalf("quoted-printable: %q for %q", got, b)
		}
	})
}

func TestTextCharsets(t *testing.T) {
	for charset, tt := range map[string]struct {
		raw, want string
		known     bool
	}{
		"utf-8":       {"\xc3\xa4", "ä", true},
		"ISO-8859-1":  {"\xe4", "ä", true},
		"iso-2022-jp": {"\x1b$BF|K\\\x1b(B", "日本", true},
		"utf-7":       {"+AOQ-", "+AOQ-", false},
		"x-none":      {"\xe4", "\xe4", false},
		"":            {"\xe4", "ä", true},
	} {
		h := "Content-Type: text/plain; charset=\"" + charset + "\"\r\n\r\n"
		tree, err := Walk(mail.NewHeader([]byte(h)), mail.InlineBody([]byte(tt.raw)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		r, known, err := tree.Text(tree.Root)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != tt.want || known != tt.known {
			t.Errorf("%s: %q %v %v", charset, got, known, err)
		}
	}
}
