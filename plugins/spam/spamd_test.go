package spam

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

const spamdAnswer = "SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA,B\r\n"

// What spamd is sent, and what comes of its answer.
func TestSpamd(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	address := raw(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		got <- string(b)
		io.WriteString(c, spamdAnswer)
	})
	p := plugin(t, fmt.Sprintf("engine = \"spamassassin\"\naddress = %q\nuser = \"bob\"", address))
	m := message(text)
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != fmt.Sprintf("SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\nUser: bob\r\n\r\nReturn-Path: <a@example.net>\r\n%s", len(text)+len("Return-Path: <a@example.net>\r\n"), text) {
		t.Errorf("sent %q", s)
	}
	want := "continue\nX-Spam-Flag: YES\r\nX-Spam-Score: 7.5\r\nX-Spam-Level: *******\r\nX-Spam-Status: Yes, score=7.5 required=5.0\r\n\ttests=A,B\r\n" + original
	if s := show(t, v, m, 0); s != want {
		t.Errorf("\n got %q\nwant %q", s, want)
	}
}

// A spamd that lies is a failure, never a pass.
func TestSpamdLies(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"nothing":           "",
		"half":              spamdAnswer[:40],
		"short":             spamdAnswer[:len(spamdAnswer)-1],
		"long":              spamdAnswer + "x",
		"two":               spamdAnswer + spamdAnswer,
		"no verdict":        "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n",
		"no length":         "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.0 / 5.0\r\n\r\n",
		"two lengths":       "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nContent-length: 0\r\nSpam: False ; 1.0 / 5.0\r\n\r\n",
		"negative length":   "SPAMD/1.1 0 EX_OK\r\nContent-length: -1\r\nSpam: False ; 1.0 / 5.0\r\n\r\n",
		"two verdicts":      "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; 1.0 / 5.0\r\nSpam: False ; 1.0 / 5.0\r\n\r\n",
		"no numbers":        "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; nan / inf\r\n\r\n",
		"failure":           "SPAMD/1.0 76 Bad header line\r\nContent-length: 0\r\nSpam: False ; 1.0 / 5.0\r\n\r\n",
		"another protocol":  "220 mx.example.org ESMTP\r\n\r\n",
		"giant":             strings.Repeat("SPAMD/1.1 0 EX_OK\r\n", 1<<16),
		"control character": "SPAMD/1.1 0 E\x00\xff\r\n\r\n",
	} {
		address := raw(t, func(c net.Conn) { io.Copy(io.Discard, c); io.WriteString(c, answer) })
		p := plugin(t, fmt.Sprintf("engine = \"spamassassin\"\naddress = %q", address))
		v, err := sdktest.Filter(t, p, Manifest(), message(text))
		if err == nil {
			t.Errorf("%s: %s", name, show(t, v, message(text), 0))
		} else if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 500 {
			t.Errorf("%s: error %q", name, err)
		}
	}
	address := raw(t, func(c net.Conn) {
		io.Copy(io.Discard, c)
		io.WriteString(c, "SPAMD/1.0 79 Timeout: (30 second timeout while trying to SYMBOLS)\r\n")
	})
	p := plugin(t, fmt.Sprintf("engine = \"spamassassin\"\naddress = %q", address))
	if v, err := sdktest.Filter(t, p, Manifest(), message(text)); err != nil || v.Action != sdk.ActionUnscanned || v.Reason != "timeout" {
		t.Errorf("%v %v", v, err)
	}
}

func FuzzParseSpamd(f *testing.F) {
	f.Add([]byte(spamdAnswer))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseSpamd(b)
		if err == nil {
			checkFields(t, r)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(judged("rewrite subject", 1, `,"subject":"x","milter":{"remove_headers":{"X":[1]},"add_headers":{"X":{"value":"a\n\tb","order":1}}}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseAnswer(b)
		if err == nil {
			checkFields(t, r)
		}
	})
}

// checkFields: whatever an engine says, fields are fields.
func checkFields(t *testing.T, r *result) {
	values := []string{status("Yes", r, 5), encodeSubject(r.subject)}
	for _, f := range r.add {
		values = append(values, f.value)
	}
	for _, v := range values {
		line, err := mail.FormatField("X", v)
		if err != nil {
			t.Fatalf("%q: %v", v, err)
		}
		h := mail.NewHeader(append(line, "\r\n"...))
		n := 0
		for range h.Fields {
			n++
		}
		if n != 1 {
			t.Errorf("%q is %d fields", v, n)
		}
	}
}
