package journal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func configured(t *testing.T, settings string) *Plugin {
	t.Helper()
	p := New()
	p.now = func() time.Time { return time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC) }
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), Hostname: "mx.example.org", Postmaster: "postmaster@example.org"}); err != nil {
		t.Fatal(err)
	}
	return p
}

func message(from string, to ...string) *mail.Message {
	h, body := mail.SplitMessage([]byte("Subject: hello\r\nMessage-ID: <1@a.test>\r\n\r\nline\r\n--no boundary\r\ncaf\xc3\xa9\r\n"))
	m := &mail.Message{Envelope: mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming}, Header: h, Body: mail.InlineBody(body)}
	if from != "" {
		m.Envelope.ReversePath = mail.MustPath(from)
	}
	for _, r := range to {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(r)})
	}
	return m
}

// copies returns "target<-reverse-path" for each report, and the verdict.
func copies(t *testing.T, p *Plugin, m *mail.Message) ([]string, *sdk.Verdict) {
	t.Helper()
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range v.Edits {
		if e.Kind != sdk.Copy || e.BodyDraft == "" {
			t.Errorf("edit %+v", e)
		}
		got = append(got, e.Path.String()+"<-"+e.ReversePath.String())
	}
	return got, v
}

// parts parses a report as any reader does.
func parts(t *testing.T, v *sdk.Verdict) (header netmail.Header, text, original string) {
	t.Helper()
	body, ok := sdktest.Body(t, v)
	if !ok {
		t.Fatal("there is no report")
	}
	return parse(t, v.Edits[0].Value+string(body))
}

func parse(t *testing.T, raw string) (header netmail.Header, text, original string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	var all []string
	for i, kind := range []string{"text/plain; charset=utf-8", "message/rfc822"} {
		p, err := r.NextPart() // decodes quoted-printable
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if i == 1 && p.Header.Get("Content-Transfer-Encoding") == "base64" {
			kind = "application/octet-stream"
			b, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b)))
		}
		if err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), kind) {
			t.Errorf("part %q, %v", p.Header, err)
		}
		all = append(all, string(b))
	}
	if _, err := r.NextPart(); err != io.EOF {
		t.Errorf("there is more: %v", err)
	}
	return m.Header, all[0], all[1]
}

// A report has all that the envelope, the session and the plugins before have to say, and the
// message to the byte.
func TestReport(t *testing.T) {
	p := configured(t, `to = "archive@example.com"`)
	m := message("alice@a.test", "bob@example.org")
	m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath("carol@example.org"), Original: mail.MustPath("all@example.org"), ORCPT: "rfc822;sales@b.test"})
	m.Envelope.EnvelopeID = "QQ314159"
	m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Port: 25, Helo: "mx.a.test", Host: "mx.a.test", User: "alice@a.test", Protocol: "ESMTPSA",
		TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", Listener: "submission", Class: mail.Authenticated}
	m.Scores = map[string]float64{"spam/score": 4.5}
	m.Notes = map[string]string{"mailauth/dmarc": "pass", "odd/note": "line\r\nRecipient: forged@x.test", "postern/allowed": "0"}
	got, v := copies(t, p, m)
	if d := cmp.Diff([]string{"archive@example.com<-postmaster@example.org"}, got); d != "" {
		t.Error(d)
	}
	header, text, original := parts(t, v)
	want := strings.ReplaceAll(`Queue-Id: 0c1f3k9w2m4xq
Gateway: mx.example.org
Time: 2026-11-22T14:00:00Z
Origin: incoming
Sender: <alice@a.test>
Envelope-Id: QQ314159
Auth-User: alice@a.test
Client: 192.0.2.1
Client-Class: authenticated
Client-Name: mx.a.test
Helo: mx.a.test
Protocol: ESMTPSA
TLS: TLS1.3 TLS_AES_128_GCM_SHA256
Listener: submission
Message-Id: <1@a.test>
Subject: hello
Size: 70
Recipient: bob@example.org
Recipient: carol@example.org
 Given: all@example.org
 ORCPT: rfc822;sales@b.test
Score: spam/score = 4.5
Note: mailauth/dmarc = pass
Note: odd/note = line  Recipient: forged@x.test
`, "\n", "\r\n")
	if d := cmp.Diff(want, text); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if whole := string(m.Header.Block()) + string(m.Body.Inline); original != whole {
		t.Errorf("original %q", original)
	}
	if header.Get("From") != "Journal <postmaster@example.org>" || header.Get("To") != "<archive@example.com>" || header.Get("Subject") != "Journal report 0c1f3k9w2m4xq" || !strings.HasPrefix(header.Get("X-Journal-Report"), "0c1f3k9w2m4xq ") {
		t.Errorf("header %v", header)
	}
	if _, err := header.Date(); err != nil {
		t.Error(err)
	}
}

// Messages that are hardly any come through as they are.
func TestOddMessages(t *testing.T) {
	p := configured(t, `to = "archive@example.com"`)
	for _, raw := range []string{"", "\r\n", "Subject: x\r\n", "body only", "\r\n\r\n\r\n", "Subject: x\r\n\r\n" + strings.Repeat("y", 5000) + "\r\n", "Subject: \xff\xfe\r\n\t\xe9\r\n\r\n\xff",
		"Subject: x\r\n\r\na\nb\rc\x00", "Subject: x\r\n\r\n\r", strings.Repeat("Subject: x\n\n.\n", 5000)} {
		m := message("alice@a.test", "bob@example.org")
		h, body := mail.SplitMessage([]byte(raw))
		m.Header, m.Body = h, mail.InlineBody(body)
		_, v := copies(t, p, m)
		if _, _, original := parts(t, v); original != raw {
			t.Errorf("%q: %q", raw, original)
		}
	}
}

// A message is reported to whom it concerns, once, and what is a report is not.
func TestTargets(t *testing.T) {
	p := configured(t, `domains = {"example.org" = "archive@one.test", "example.net" = "Archive@two.test", "bücher.example" = "archive@one.test"}
bounce_to = "journal@example.org"`)
	const one, two = "archive@one.test<-journal@example.org", "Archive@two.test<-journal@example.org"
	fates := func(fs ...sdk.Fate) string {
		b, err := json.Marshal(fs)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	split := fates(sdk.Fate{To: "b@example.org", Given: "b@example.org"}, sdk.Fate{To: "c@x.test", Given: "c@example.net", Becomes: "quarantine", Why: "plugin spam: odd"})
	for name, tt := range map[string]struct {
		m    *mail.Message
		note string
		want []string
	}{
		"received":           {message("a@a.test", "b@example.org"), "", []string{one}},
		"sent":               {message("a@example.org", "b@b.test"), "", []string{one}},
		"within":             {message("a@example.org", "b@example.org", "c@xn--bcher-kva.example"), "", []string{one}},
		"two archives":       {message("a@example.net", "b@example.org"), "", []string{two, one}},
		"nobody's":           {message("a@a.test", "b@b.test"), "", nil},
		"split":              {message("a@a.test", "b@example.org"), split, []string{one, two}},
		"split, again":       {message("a@a.test", "c@x.test"), sdk.EnvelopeAsked, nil},
		"a copy":             {message("a@a.test", "b@example.org"), sdk.EnvelopeCopy, nil},
		"to archives":        {message("a@example.org", "ARCHIVE@one.test", "archive@two.test"), "", nil},
		"to one and others":  {message("a@example.org", "archive@one.test", "b@b.test"), "", []string{one}},
		"bounce":             {message("", "b@example.org"), "", []string{"archive@one.test<-"}},
		"bounce of a report": {message("", "Journal@example.org"), "", nil},
		"mail to the same":   {message("a@a.test", "journal@example.org"), "", []string{one}},
	} {
		if tt.note != "" {
			tt.m.Notes = map[string]string{sdk.NoteEnvelope: tt.note}
		}
		got, v := copies(t, p, tt.m)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
		if tt.note == split {
			if _, text, _ := parts(t, v); !strings.Contains(text, "Recipient: b@example.org\r\nRecipient: c@x.test\r\n Given: c@example.net\r\n Becomes: quarantine: plugin spam: odd\r\n") {
				t.Errorf("text\n%s", text)
			}
		}
	}
}

// A large message is read in pieces from its file.
func TestDamagedBody(t *testing.T) {
	p := configured(t, `to = "archive@example.com"`)
	m := message("a@a.test", "b@example.org")
	m.Body = mail.Body{Path: t.TempDir() + "/gone", Size: 1000}
	if _, err := sdktest.Filter(t, p, Manifest(), m); err == nil {
		t.Error("a body that is not there was reported")
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		"":                                    "nobody gets reports",
		`to = "archive"`:                      `to: "archive"`,
		`to = "bücher@example.org"`:           "ASCII",
		`domains = {"x y" = "a@b.test"}`:      `"x y"`,
		`domains = {"x.test" = ""}`:           "in ASCII",
		"to = \"a@b.test\"\nbounce_to = \"\"": "bounce_to",
		"to = \"a@b.test\"\nfoo = 1":          `unknown key "foo"`,
		`domains = {"x.test" = "a@b.test", "X.test" = "c@b.test"}`: "twice",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), Postmaster: "postmaster@example.org"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", settings, err, want)
		}
	}
}

// Whatever a message says, a report is two parts, and the second one is the message.
func FuzzReport(f *testing.F) {
	f.Add("Subject: x\r\n\r\nbody\r\n", "note")
	f.Add("\r\n--journal-\r\n", "a\r\nb")
	f.Fuzz(func(t *testing.T, raw, note string) {
		h, body := mail.SplitMessage([]byte(raw))
		m := message("a@a.test", "b@example.org")
		m.Header, m.Body, m.Notes = h, mail.InlineBody(body), map[string]string{"x/y": note}
		m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Helo: note}
		r := report{m: m, fates: sdk.WholeEnvelope(m), hostname: "mx.example.org", from: mail.MustPath("p@example.org"), time: time.Unix(1e9, 0), boundary: boundary()}
		var b bytes.Buffer
		b.Write(r.header(mail.MustPath("archive@example.com")).Block())
		if err := r.write(&b); err != nil {
			t.Fatal(err)
		}
		_, text, original := parse(t, b.String())
		if original != raw {
			t.Errorf("%q became %q", raw, original)
		}
		if n := strings.Count(text, "\nNote: "); n != 1 || strings.Count(text, "\nRecipient: ") != 1 {
			t.Errorf("text %q", text)
		}
	})
}

// Where the pieces end in which a message is read does not matter.
func TestWireForm(t *testing.T) {
	for _, size := range []int{32<<10 - 2, 32<<10 - 1, 32 << 10, 32<<10 + 1} {
		for end, want := range map[string]bool{"\r\n": true, "\r\nx": true, "\r": false, "\rx": false, "\nx": false, "x\r\r\n": false, "\x00": false} {
			m := &mail.Message{Body: mail.InlineBody([]byte(strings.Repeat("x", size-1) + end))}
			if got, err := wireForm(m); got != want || err != nil {
				t.Errorf("%d and %q: %v, %v", size, end, got, err)
			}
		}
	}
}

// A report that comes back, from an archive that forwards it say, is not reported, by whatever
// process; a field that looks like ours is no way around the journal.
func TestReportComesBack(t *testing.T) {
	dir := t.TempDir()
	process := func(dir string) *Plugin {
		p := New()
		if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(`to = "archive@example.com"`), DataDir: dir, Postmaster: "postmaster@example.org"}); err != nil {
			t.Fatal(err)
		}
		return p
	}
	_, v := copies(t, process(dir), message("a@a.test", "b@example.org"))
	back := message("postmaster@example.org", "b@example.org")
	back.Header = mail.NewHeader([]byte("Received: from archive\r\n" + v.Edits[0].Value))
	if got, _ := copies(t, process(dir), back); got != nil {
		t.Errorf("a report of a report: %v", got)
	}
	if got, _ := copies(t, process(t.TempDir()), back); len(got) != 1 {
		t.Error("another gateway's report was not reported")
	}
	for _, forged := range []string{"", "x", "0c1f3k9w2m4xq", "0c1f3k9w2m4xq 00000000000000000000000000000000", back.Header.Get(sealField) + "0", "1" + back.Header.Get(sealField)} {
		m := message("a@a.test", "b@example.org")
		m.Header = mail.NewHeader([]byte(sealField + ": " + forged + "\r\n\r\n"))
		if got, _ := copies(t, process(dir), m); len(got) != 1 {
			t.Errorf("%q is a way around the journal", forged)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "journal", "key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "journal", "key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sdktest.Filter(t, process(dir), Manifest(), back); err == nil || !strings.Contains(err.Error(), "is not a key") {
		t.Errorf("an empty key: %v", err)
	}
}
