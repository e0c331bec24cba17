package smtpfilter

import (
	"bufio"
	"bytes"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// stuff writes text in pieces of n bytes.
func stuff(text []byte, n int) ([]byte, error) {
	var b bytes.Buffer
	s := &stuffing{w: &b, begin: true}
	for len(text) > 0 {
		k := min(n, len(text))
		if _, err := s.Write(text[:k]); err != nil {
			return nil, err
		}
		text = text[k:]
	}
	err := s.end()
	return b.Bytes(), err
}

// The way out keeps to the rules of the way in (S-17): only CRLF, no NUL, dots doubled, and
// one end.
func TestS17Stuffing(t *testing.T) {
	for text, want := range map[string]string{
		"":                        ".\r\n",
		"a\r\n":                   "a\r\n.\r\n",
		"a":                       "a\r\n.\r\n",
		".\r\n":                   "..\r\n.\r\n",
		"a\r\n.\r\nb\r\n":         "a\r\n..\r\nb\r\n.\r\n",
		"a\r\n..x\r\n\r\n.":       "a\r\n...x\r\n\r\n..\r\n.\r\n",
		"a.b\r\n .\r\n":           "a.b\r\n .\r\n.\r\n",
		"a\n":                     "",
		"a\r":                     "",
		"a\rb\r\n":                "",
		"a\r\r\n":                 "",
		"\n":                      "",
		"\r\n\n":                  "",
		"a\x00\r\n":               "",
		"a\n.\r\nMAIL FROM:<x>\r": "",
	} {
		for n := 1; n <= len(text)+1; n++ {
			got, err := stuff([]byte(text), n)
			if want == "" && !errors.Is(err, notWire) || want != "" && (err != nil || string(got) != want) {
				t.Errorf("%q in pieces of %d: %q, %v", text, n, got, err)
			}
		}
	}
}

func FuzzStuffing(f *testing.F) {
	f.Add([]byte("a\r\n.\r\n..b\r\n"), 3)
	f.Add([]byte("a\n.\r\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		if n < 1 || n > 1000 || len(text) > 1000 {
			return
		}
		got, err := stuff(text, n)
		crlf := bytes.Count(text, []byte("\r\n"))
		wire := bytes.Count(text, []byte("\r")) == crlf && bytes.Count(text, []byte("\n")) == crlf && bytes.IndexByte(text, 0) < 0
		if (err == nil) != wire {
			t.Fatalf("%q: %v", text, err)
		}
		if err != nil {
			return
		}
		body, ok := bytes.CutSuffix(got, []byte(".\r\n"))
		if bytes.Contains(body, []byte("\r\n.\r\n")) || bytes.HasPrefix(body, []byte(".\r\n")) || !ok {
			t.Fatalf("%q became %q", text, got)
		}
		plain := bytes.TrimPrefix(bytes.ReplaceAll(append([]byte("\r\n"), body...), []byte("\r\n."), []byte("\r\n")), []byte("\r\n"))
		if !bytes.Equal(plain, text) && !bytes.Equal(plain, append(bytes.Clone(text), "\r\n"...)) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func reply(text string) (mail.Status, error) {
	c := &conn{r: bufio.NewReaderSize(strings.NewReader(text), maxLine)}
	st, _, err := c.read()
	return st, err
}

func TestReplies(t *testing.T) {
	for text, want := range map[string]string{
		"250 2.1.0 Ok\r\n":                     "250 2.1.0 Ok",
		"250\r\n":                              "250 2.0.0 ",
		"550-5.7.1 no,\r\n550 5.7.1 never\r\n": "550 5.7.1 no, never",
		"550 4.7.1 odd\r\n":                    "550 5.0.0 4.7.1 odd",
		"451 4.99999.1 x\n":                    "451 4.0.0 4.99999.1 x",
		"554 \x1b[1mred\xff\r\n":               "554 5.0.0 ?[1mred?",
		"599 x\r\n":                            "554 5.0.0 x", // no reply code of ours
		"354 go\r\n":                           "354 3.0.0 go",
		"250-a\r\n251 b\r\n":                   "",
		"150 x\r\n":                            "",
		"650 x\r\n":                            "",
		"25 x\r\n":                             "",
		"250x\r\n":                             "",
		"":                                     "",
		"250 x":                                "",
		"\r\n":                                 "",
		strings.Repeat("250-x\r\n", maxLines):  "",
		"250 " + strings.Repeat("x", maxLine):  "",
		"250 " + strings.Repeat("x", 999) + "\r\n": "250 2.0.0 " + strings.Repeat("x", 400),
	} {
		st, err := reply(text)
		if got := st.Error(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%.50q: %q, %v", text, got, err)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add("550-5.7.1 no,\r\n550 5.7.1 never\r\n")
	f.Add("250\n")
	f.Fuzz(func(t *testing.T, text string) {
		st, err := reply(text)
		if err != nil {
			return
		}
		if st.Code < 200 || st.Code > 599 || st.Enhanced[0] != st.Code/100 || len(st.Text) > 400 || strings.ContainsAny(st.Text, "\r\n\x00\x1b") {
			t.Fatalf("%q became %+v", text, st)
		}
	})
}

func TestXtext(t *testing.T) {
	if got := xtext("a+b=c d\xff\r\n"); got != "a+2Bb+3Dc+20d+FF+0D+0A" {
		t.Error(got)
	}
	if got := xtext(strings.Repeat("\n", 1000)); len(got) > 255 {
		t.Errorf("%d octets", len(got))
	}
}

// Whatever a client calls itself is one attribute of one command, cut if need be.
func FuzzXtext(f *testing.F) {
	f.Add("a+b=c d\r\nRSET\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		x := xtext(s)
		back, err := url.PathUnescape(strings.ReplaceAll(strings.ReplaceAll(x, "%", "%25"), "+", "%"))
		if strings.ContainsFunc(x, func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }) || len(x) > 252 || err != nil || !strings.HasPrefix(s, back) || len(x) < 250 && back != s {
			t.Fatalf("%q became %q: %q, %v", s, x, back, err)
		}
	})
}
