package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

func textOf(t testing.TB, message string) string {
	t.Helper()
	h, body := mail.SplitMessage([]byte(message))
	text := firstText(h, mail.InlineBody(body))
	if len(text) > 4*maxTextShown || !utf8.ValidString(text) {
		t.Errorf("%d bytes, valid: %v", len(text), utf8.ValidString(text))
	}
	return text
}

// The beginning of the text shows as its reader would see it, and what cannot be understood
// as it stands.
func TestFirstText(t *testing.T) {
	part := func(fields, body string) string { return "--b\r\n" + fields + "\r\n" + body + "\r\n" }
	multi := "Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n"
	for message, want := range map[string]string{
		"Subject: x\r\n\r\nplain\r\n": "plain\r\n",
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ==\r\n":                   "Grüße",
		"Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe":           "Grüße",
		"Content-Type: text/plain; charset=windows-1251\r\n\r\n\xcf\xf0\xe8\xe2\xe5\xf2":                                         "Привет",
		"Content-Type: text/plain; charset=unheard-of\r\n\r\nabc":                                                                "abc",
		"Content-Type: text/plain\r\n\r\nabc\xff":                                                                                "abc\uFFFD",
		"Content-Type: nonsense;;;\r\n\r\nabc":                                                                                   "abc",
		"Content-Type: application/pdf\r\n\r\n%PDF":                                                                              "%PDF",
		"Content-Transfer-Encoding: base64\r\n\r\n!!!":                                                                           "",
		multi + "preamble\r\n" + part("Content-Type: image/png\r\n", "x") + part("Content-Type: text/html\r\n", "<p>") + "--b--": "<p>",
		multi + part("Content-Type: multipart/alternative; boundary=c\r\n", "--c\r\n\r\ninner\r\n--c--") + "--b--":               "inner",
		multi + "no part": "no part",
		"":                "",
	} {
		if got := textOf(t, message); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
}

// What is hostile costs no more than a look at its beginning.
func TestFirstTextOfHostileMail(t *testing.T) {
	var nested strings.Builder
	for range 20_000 {
		nested.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n")
	}
	textOf(t, nested.String())
	textOf(t, "Content-Type: multipart/mixed; boundary=b\r\n\r\n"+strings.Repeat("--b\r\nContent-Type: image/png\r\n\r\n", 200_000))
	textOf(t, "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"+strings.Repeat("=\r\n", 2_000_000))
	textOf(t, "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"+strings.Repeat("\r\n", 5_000_000))
	textOf(t, "\r\n"+strings.Repeat("\xff", 5_000_000))
	textOf(t, "Content-Type: multipart/mixed; boundary="+strings.Repeat("b", 100_000)+"\r\n\r\n--"+strings.Repeat("b", 100_000))
	if got := words(strings.Repeat("=?utf-8?q?x?= ", 100_000)); len(got) > maxWords {
		t.Errorf("%d bytes", len(got))
	}
	if got := words("=?utf-8?q?K=C3=A4se?= =?iso-8859-1?Q?_J=FC?= =?unheard-of?q?x?= \xff"); !strings.HasPrefix(got, "Käse Jü") || !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
}

func FuzzFirstText(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-7\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--")
	f.Add("Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B")
	f.Fuzz(func(t *testing.T, message string) {
		textOf(t, message)
		words(message)
	})
}

// What is in quarantine is found by what is shown of it, and is shown as it is.
func FuzzSearch(f *testing.F) {
	f.Add("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= x\r\nFrom: \"\xff\" <a@b.test>\r\nMessage-ID: <\x1b>\r\n\r\n", "grü")
	f.Add("Subject: =?iso-2022-jp?b?GyRC?=\r\nsubject:\r\n\r\n", "\u0130")
	f.Fuzz(func(t *testing.T, header, text string) {
		e := &queue.Entry{Header: mail.NewHeader([]byte(header)), Run: queue.Run{Notes: map[string]string{queue.QuarantineNote: "spam"}},
			Envelope: mail.Envelope{Recipients: []mail.Recipient{{Path: mail.MustPath("Bob@example.org")}}}}
		h, ok := describeHeld(e, []queue.Record{{State: queue.Held, Expires: time.Unix(1e9, 0), Reason: "r"}})
		if !ok {
			t.Fatal("not held")
		}
		encoded, err := json.Marshal(h)
		var back Quarantined
		if err != nil || json.Unmarshal(encoded, &back) != nil || back.Subject != h.Subject || back.Author != h.Author || back.MessageID != h.MessageID {
			t.Fatalf("%+v became %+v, %v", h, back, err)
		}
		for _, s := range []Search{{Text: h.Subject, From: h.Author}, {Text: h.MessageID}, {Text: h.ID, Recipient: "bob@EXAMPLE", Plugin: "spam"}} {
			if !s.match(&h) {
				t.Fatalf("%+v does not find %+v", s, h)
			}
		}
		found := (&Search{Text: text}).match(&h)
		if strings.Contains(h.Subject, text) && utf8.ValidString(text) && !found {
			t.Fatalf("%q does not find %q", text, h.Subject)
		}
	})
}
