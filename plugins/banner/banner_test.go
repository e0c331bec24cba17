package banner

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func configured(t testing.TB, settings string) *Plugin {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings)}); err != nil {
		t.Fatal(err)
	}
	return p
}

// run gives a message to the plugin and returns what becomes of it for the recipients that
// all edits are for.
func run(t testing.TB, p *Plugin, origin mail.Origin, msg string) (string, *sdk.Verdict) {
	t.Helper()
	h, body := mail.SplitMessage([]byte(msg))
	m := &mail.Message{Envelope: mail.Envelope{Origin: origin, ReversePath: mail.MustPath("a@example.org"),
		Recipients: []mail.Recipient{{Path: mail.MustPath("b@example.org")}, {Path: mail.MustPath("c@example.net")}}},
		Header: h, Body: mail.InlineBody(body)}
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	if v.Action != sdk.ActionContinue {
		t.Errorf("action %v", v.Action)
	}
	if err := sdktest.Apply(v, &h); err != nil {
		t.Fatal(err)
	}
	if b, ok := sdktest.Body(t, v); ok {
		body = b
	}
	return string(h.Block()) + string(body), v
}

func TestSubject(t *testing.T) {
	long := strings.Repeat("x", 950)
	for _, tt := range []struct{ prefix, in, want string }{
		{"[EXT]", "Subject: hello\r\n", "Subject: [EXT] hello\r\n"},
		{"[EXT]", "SUBJECT:hello \r\n", "Subject: [EXT] hello \r\n"},
		{"[EXT]", "Subject: two\r\n\tlines\r\n", "Subject: [EXT] two\r\n\tlines\r\n"},
		{"[EXT]", "Subject:\r\n folded\r\n", "Subject: [EXT] \r\n folded\r\n"},
		{"[EXT]", "Subject:\r\n", "Subject: [EXT] \r\n"},
		{"[EXT]", "To: y\r\n", "To: y\r\nSubject: [EXT]\r\n"},
		{"[EXT]", "Subject: Re: [EXT] hello\r\n", "Subject: Re: [EXT] hello\r\n"},
		{"[EXT]", "Subject: =?utf-8?q?=5BEXT=5D_hello?=\r\n", "Subject: =?utf-8?q?=5BEXT=5D_hello?=\r\n"},
		{"[EXT]", "Subject: =?utf-8?q?=C3=A4?=\r\n", "Subject: [EXT] =?utf-8?q?=C3=A4?=\r\n"},
		{"[Außen]", "Subject: =?utf-8?q?=C3=A4?=\r\n", "Subject: =?utf-8?q?[Au=C3=9Fen]_?= =?utf-8?q?=C3=A4?=\r\n"},
		{"[Außen]", "Subject: Re: =?utf-8?b?W0F1w59lbl0=?= x\r\n", "Subject: Re: =?utf-8?b?W0F1w59lbl0=?= x\r\n"},
		{"[EXT]", "Subject: one\r\nSubject: two\r\n", "Subject: [EXT] one\r\nSubject: [EXT] two\r\n"},
		{"[EXT]", "Subject: [EXT] one\r\nTo: y\r\nSubject: two\r\n", "Subject: [EXT] one\r\nTo: y\r\nSubject: [EXT] two\r\n"},
		{"[EXT]", strings.Repeat("Subject: x\r\n", 25), strings.Repeat("Subject: [EXT] x\r\n", 10) + strings.Repeat("Subject: x\r\n", 5) + strings.Repeat("Subject: [EXT] x\r\n", 10)},
		{"[EXT]", "Subject: Re: AW: Fwd: Re: Re: Re: Re: [EXT] x\r\n", "Subject: Re: AW: Fwd: Re: Re: Re: Re: [EXT] x\r\n"},
		{"[EXT]", "Subject: from the boss" + strings.Repeat(" ", 100) + "[EXT]\r\n", "Subject: [EXT] from the boss" + strings.Repeat(" ", 100) + "[EXT]\r\n"},
		{"[EXT]", "Subject: " + strings.Repeat("x\r\n ", maxSubject/4+1) + "\r\nSubject: y\r\n", "Subject: " + strings.Repeat("x\r\n ", maxSubject/4+1) + "\r\nSubject: [EXT] y\r\n"},
		{"[EXT]", "Subject: " + long + "\r\n", "Subject: [EXT]\r\n " + long + "\r\n"},
		{"[EXT]", "Subject: raw \xe4\r\n", "Subject: [EXT] raw \xe4\r\n"},
	} {
		p := configured(t, "mail = \"incoming\"\nsubject_prefix = \""+tt.prefix+"\"")
		if got, _ := run(t, p, mail.Incoming, tt.in+"\r\nbody"); got != tt.want+"\r\nbody" {
			t.Errorf("%q: %q", tt.in, got)
		}
	}
}

func TestWhichMail(t *testing.T) {
	for settings, want := range map[string]map[mail.Origin]bool{
		"mail = \"incoming\"":                                 {mail.Incoming: true, mail.Fetched: true, mail.Submitted: false},
		"mail = \"submitted\"":                                {mail.Incoming: false, mail.Fetched: false, mail.Submitted: true},
		"mail = \"submitted\"\ndomains = [\"other.example\"]": {mail.Submitted: false},
		"mail = \"submitted\"\ndomains = [\"example.org\"]":   {mail.Submitted: true},
		"mail = \"incoming\"\ndomains = [\"other.example\"]":  {mail.Incoming: false},
	} {
		p := configured(t, settings+"\nheader = true\ntext = \"T\"")
		for origin, marked := range want {
			if got, _ := run(t, p, origin, "Subject: x\r\n\r\nbody\r\n"); strings.HasPrefix(got, "X-External: yes\r\n") != marked || strings.Contains(got, "T\r\n") != marked {
				t.Errorf("%s, %v: %q", settings, origin, got)
			}
		}
	}
	// Only some of the recipients are.
	p := configured(t, "mail = \"incoming\"\ndomains = [\"example.org\"]\nheader = true\nsubject_prefix = \"E\"\ntext = \"T\"")
	_, v := run(t, p, mail.Incoming, "Subject: x\r\n\r\nbody\r\n")
	if len(v.Edits) != 3 {
		t.Errorf("%+v", v.Edits)
	}
	for _, e := range v.Edits {
		if len(e.Recipients) != 1 || e.Recipients[0] != 0 {
			t.Errorf("%+v", e)
		}
	}
	// The mark is ours where it means something.
	for settings, want := range map[string]string{
		"mail = \"incoming\"\ndomains = [\"x.example\"]\nheader = true": "X-External",
		"mail = \"incoming\"\ntext = \"T\"":                             "",
		"mail = \"submitted\"\nheader = true":                           "",
	} {
		if got := strings.Join(configured(t, settings).Owns(), " "); got != want {
			t.Errorf("%s: it owns %q", settings, got)
		}
	}
}

// The text goes where it is shown, in the charset and encoding that are there, and every
// other byte stays.
func TestText(t *testing.T) {
	const q = "Content-Transfer-Encoding: quoted-printable\r\n"
	flowed := "Content-Type: text/plain; charset=us-ascii; format=flowed\r\n"
	for name, tt := range map[string]struct{ settings, in, want string }{
		"no MIME":            {"", "To: x\r\n\r\nbody\r\n", "To: x\r\n\r\nbody\r\n\r\nFrom us.\r\nRead it.\r\n"},
		"no line end":        {"", "To: x\r\n\r\nbody", "To: x\r\n\r\nbody\r\n\r\nFrom us.\r\nRead it."},
		"top":                {"position = \"top\"", "To: x\r\n\r\nbody", "To: x\r\n\r\nFrom us.\r\nRead it.\r\n\r\nbody"},
		"utf-8":              {"text = \"ä\"", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nö\r\n", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nö\r\n\r\nä\r\n"},
		"latin 1":            {"text = \"ä\"", "Content-Type: text/plain; charset=ISO-8859-1\r\n\r\n\xf6\r\n", "Content-Type: text/plain; charset=ISO-8859-1\r\n\r\n\xf6\r\n\r\n\xe4\r\n"},
		"qp":                 {"text = \"ä = b\"", "Content-Type: text/plain; charset=utf-8\r\n" + q + "\r\n=C3=B6 soft=\r\n line=20\r\n", "Content-Type: text/plain; charset=utf-8\r\n" + q + "\r\n=C3=B6 soft=\r\n line=20\r\n\r\n=C3=A4 =3D b\r\n"},
		"qp, top":            {"text = \"ä\"\nposition = \"top\"", "Content-Type: text/plain; charset=latin1\r\n" + q + "\r\n=F6", "Content-Type: text/plain; charset=latin1\r\n" + q + "\r\n=E4\r\n\r\n=F6"},
		"base64":             {"text = \"ä\"", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nYm9keQ0K\r\n", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nYm9keQ0KDQrDpA0K\r\n"},
		"ASCII cannot":       {"text = \"ä\"", flowed + "X: y\r\n\r\nbody\r\n", "Content-Type: text/plain; charset=utf-8; format=flowed\r\nX: y\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\nbody\r\n\r\n=C3=A4\r\n"},
		"latin 1 cannot":     {"text = \"日\"", "Content-Type: text/plain; charset=ISO-8859-1\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xf6\r\n", "Content-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=B6\r\n\r\n=E6=97=A5\r\n"},
		"stateful charset":   {"", "Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$BF|\x1b(B\r\n", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n=E6=97=A5\r\n\r\nFrom us.\r\nRead it.\r\n"},
		"unknown charset":    {"", "Content-Type: text/plain; charset=x-none\r\n\r\nbody\r\n", ""},
		"raw bytes in ASCII": {"text = \"ä\"", "Content-Type: text/plain\r\n\r\n\xf6\r\n", ""},
		"garbage in base64":  {"", "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nYm9*keQ0K\r\n", ""},
		"HTML":               {"", "Content-Type: text/html\r\n\r\n<html><!-- </body> --><body>x</body></html>\r\n", "Content-Type: text/html\r\n\r\n<html><!-- </body> --><body>x\r\n<p>From &#8364;</p>\r\n</body></html>\r\n"},
		"HTML, top":          {"position = \"top\"", "Content-Type: text/html\r\n\r\n<html><head><title><body></title></head><BODY bgcolor='>'>x", "Content-Type: text/html\r\n\r\n<html><head><title><body></title></head><BODY bgcolor='>'>\r\n<p>From &#8364;</p>\r\nx"},
		"HTML, not closed":   {"", "Content-Type: text/html\r\n\r\n<p>x", "Content-Type: text/html\r\n\r\n<p>x\r\n<p>From &#8364;</p>\r\n"},
		"HTML in qp":         {"", "Content-Type: text/html; charset=utf-8\r\n" + q + "\r\n<p style=3D'x'>y</bo=\r\ndy></html>", "Content-Type: text/html; charset=utf-8\r\n" + q + "\r\n<p style=3D'x'>y\r\n<p>From &#8364;</p>\r\n</bo=\r\ndy></html>"},
		"signed with PGP":    {"", "To: x\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\n", ""},
		"S/MIME":             {"", "Content-Type: application/pkcs7-mime\r\n\r\nMII\r\n", ""},
		"attachment":         {"", "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx\r\n", ""},
		"picture":            {"", "Content-Type: image/png\r\n\r\nx\r\n", ""},
		"no body":            {"", "To: x\r\n\r\n", ""},
		"no blank line":      {"", "To: x\r\n", ""},
		"servers' fields":    {"", "Received: x\r\n\r\nbody\r\n", ""},
		"no header":          {"", "\r\nbody\r\n", ""},
		"nothing":            {"", "", ""},
		"two types":          {"", "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx\r\n", ""},
	} {
		settings := tt.settings
		if !strings.Contains(settings, "text =") {
			settings += "\ntext = \"\"\"\nFrom us.  \nRead it.\n\"\"\"\nhtml = \"<p>From €</p>\""
		}
		plugin := configured(t, "mail = \"submitted\"\n"+settings)
		if tt.want == "" {
			tt.want = tt.in
		}
		got, v := run(t, plugin, mail.Submitted, tt.in)
		if got != tt.want {
			t.Errorf("%s:\n%q\nwant\n%q", name, got, tt.want)
		}
		if (tt.want == tt.in) != (v.Notes["skipped"] != "") {
			t.Errorf("%s: notes %v", name, v.Notes)
		}
	}
}

const (
	page  = "Content-Type: text/html; charset=utf-8\r\n\r\n<body>H</body>"
	plain = "Content-Type: text/plain; charset=utf-8\r\n\r\nP"
)

func multipart(kind, boundary string, parts ...string) string {
	s := "Content-Type: multipart/" + kind + "; boundary=" + boundary + "\r\n\r\npreamble\r\n"
	for _, p := range parts {
		s += "--" + boundary + "\r\n" + p + "\r\n"
	}
	return s + "--" + boundary + "--\r\n"
}

// Of a multipart, what is shown is marked: + stands for the text, # for the HTML.
func TestParts(t *testing.T) {
	const file = "Content-Type: text/plain\r\nContent-Disposition: attachment; filename=x.txt\r\n\r\nfile"
	const P, H = plain + "+", "Content-Type: text/html; charset=utf-8\r\n\r\n<body>H#</body>"
	forwarded := "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nother"
	for name, tt := range map[string]struct{ in, want string }{
		"alternative":         {multipart("alternative", "a", plain, page), multipart("alternative", "a", P, H)},
		"mixed":               {multipart("mixed", "m", plain, file), multipart("mixed", "m", P, file)},
		"alternative in it":   {multipart("mixed", "m", multipart("alternative", "a", plain, page), file), multipart("mixed", "m", multipart("alternative", "a", P, H), file)},
		"related":             {multipart("alternative", "a", plain, multipart("related", "r", page, file)), multipart("alternative", "a", P, multipart("related", "r", H, file))},
		"two texts":           {multipart("mixed", "m", plain, file, plain), multipart("mixed", "m", plain, file, P)},
		"forwarded":           {multipart("mixed", "m", plain, forwarded), multipart("mixed", "m", P, forwarded)},
		"signed":              {multipart("signed", "s", plain, "Content-Type: application/pgp-signature\r\n\r\nx"), ""},
		"signed and a footer": {multipart("mixed", "m", multipart("signed", "s", plain, "Content-Type: application/pgp-signature\r\n\r\nx"), plain), ""},
		"encrypted":           {multipart("encrypted", "e", "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", "Content-Type: application/octet-stream\r\n\r\nx"), ""},
		"report":              {multipart("report", "r", plain, "Content-Type: message/delivery-status\r\n\r\nx"), ""},
		"files only":          {multipart("mixed", "m", file, file), ""},
		"ambiguous":           {strings.Replace(multipart("mixed", "m", plain, file), "boundary=m", "boundary=m; boundary=x", 1), ""},
	} {
		p := configured(t, "mail = \"submitted\"\ntext = \"T\"\nhtml = \"<i>\"")
		if tt.want == "" {
			tt.want = tt.in
		}
		want := strings.NewReplacer("P+", "P\r\n\r\nT", "#", "\r\n<i>\r\n").Replace(tt.want)
		got, v := run(t, p, mail.Submitted, "MIME-Version: 1.0\r\n"+tt.in)
		if got != "MIME-Version: 1.0\r\n"+want {
			t.Errorf("%s:\n%q\nwant\n%q", name, got, want)
		}
		if (tt.want == tt.in) != (v.Notes["skipped"] != "") {
			t.Errorf("%s: notes %v", name, v.Notes)
		}
	}
	// In a part, too, the charset gives way.
	p := configured(t, "mail = \"submitted\"\ntext = \"ä\"")
	got, _ := run(t, p, mail.Submitted, multipart("mixed", "m", "Content-Type: text/plain\r\nX: y\r\n\r\nP", file))
	want := multipart("mixed", "m", "Content-Type: text/plain; charset=utf-8\r\nX: y\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nP\r\n\r\n=C3=A4", file)
	if got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}

func TestTooLarge(t *testing.T) {
	p := configured(t, "mail = \"submitted\"\ntext = \"T\"")
	for n, marked := range map[int]bool{maxPart - 1: true, maxPart: true, maxPart + 1: false} {
		msg := "To: x\r\n\r\n" + strings.Repeat("x", n)
		if got, v := run(t, p, mail.Submitted, msg); (got != msg) != marked || (v.Notes["skipped"] == "") != marked {
			t.Errorf("%d: %v", n, v.Notes)
		}
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		"":                           `mail: ""`,
		"mail = \"all\"":             `"all"`,
		"mail = \"incoming\"":        "nothing to add",
		"mail = \"incoming\"\nx = 1": `unknown key "x"`,
		"mail = \"incoming\"\nheader = true\ndomains = [\"a b\"]":          "domains",
		"mail = \"incoming\"\nsubject_prefix = \"a\\nb\"":                  "one line",
		"mail = \"incoming\"\ntext = \"x\"\nposition = \"left\"":           "position",
		"mail = \"incoming\"\nheader = true\nhtml = \"x\"":                 "html goes with text",
		"mail = \"incoming\"\ntext = \"" + strings.Repeat("x", 901) + "\"": "break it",
		"mail = \"incoming\"\ntext = \"\\u0000\"":                          "NUL",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", settings, err, want)
		}
	}
}

// Whatever the message is, it stays a message with the same parts, and the content of each
// is there still.
func FuzzBanner(f *testing.F) {
	f.Add(multipart("mixed", "m", multipart("alternative", "a", plain, page), plain))
	f.Add("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=3D=\r\n b")
	f.Add("Content-Type: text/html; charset=iso-2022-jp\r\nContent-Transfer-Encoding: base64\r\n\r\nPGJvZHk+\r\n")
	plugins := []*Plugin{configured(f, "mail = \"submitted\"\ntext = \"Grüße\"\nposition = \"top\""), configured(f, "mail = \"submitted\"\ntext = \"bye\"")}
	f.Fuzz(func(t *testing.T, msg string) {
		msg = strings.ReplaceAll(strings.NewReplacer("\r", "", "\x00", "").Replace(msg), "\n", "\r\n")
		h, body := mail.SplitMessage([]byte(msg))
		for _, p := range plugins {
			tree, err := mime.Walk(h, mail.InlineBody(body), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			parts, _ := p.pick(tree.Root)
			for _, part := range parts {
				e, reason, err := p.insert(tree, part)
				if err != nil {
					t.Fatal(err)
				}
				if reason == "" {
					inserted(t, tree, part, h, e, msg)
				}
			}
		}
	})
}

// inserted makes an edit and looks at the outcome.
func inserted(t testing.TB, tree *mime.Tree, part *mime.Part, h mail.Header, e *edit, msg string) {
	t.Helper()
	var out bytes.Buffer
	if err := tree.Rewrite(&out, []mime.Replacement{e.replace}); err != nil {
		t.Fatal(err)
	}
	if part == tree.Root {
		for _, f := range e.fields {
			h.Remove(f[0], -1)
			if err := h.Append(f[0], f[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := string(h.Block()) + out.String()
	before, after := contents(t, msg), contents(t, got)
	if len(before) != len(after) {
		t.Fatalf("%d parts became %d:\n%q\n%q", len(before), len(after), msg, got)
	}
	i := 0
	for p := range tree.All {
		if len(p.Children) == 0 && p != part && before[i] != after[i] {
			t.Fatalf("another part has changed:\n%q\n%q", msg, got)
		}
		if p == part && len(after[i]) <= len(before[i]) {
			t.Fatalf("nothing was added:\n%q\n%q", msg, got)
		}
		i++
	}
}

func contents(t testing.TB, msg string) []string {
	h, body := mail.SplitMessage([]byte(msg))
	tree, err := mime.Walk(h, mail.InlineBody(body), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for part := range tree.All {
		r, _, err := tree.Text(part)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		io.Copy(&b, r)
		r.Close()
		all = append(all, b.String())
	}
	return all
}
