package bcc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func configured(t *testing.T, settings string) *Plugin {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), Postmaster: "postmaster@example.org"}); err != nil {
		t.Fatal(err)
	}
	return p
}

// copies runs the plugin and returns "target<-reverse-path" for each copy.
func copies(t *testing.T, p *Plugin, from string, to ...mail.Recipient) []string {
	t.Helper()
	m := &mail.Message{Envelope: mail.Envelope{Origin: mail.Incoming, Recipients: to}, Header: mail.NewHeader([]byte("Subject: x\r\n\r\n"))}
	if from != "" {
		m.Envelope.ReversePath = mail.MustPath(from)
	}
	v, err := sdktest.Filter(t, p, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range v.Edits {
		if e.Kind != sdk.Copy || e.Recipients != nil {
			t.Errorf("edit is %+v", e)
		}
		got = append(got, e.Path.String()+"<-"+e.ReversePath.String())
	}
	if v.Action != sdk.ActionContinue {
		t.Errorf("action is %v", v.Action)
	}
	return got
}

func rcpt(path string) mail.Recipient { return mail.Recipient{Path: mail.MustPath(path)} }

func alias(given, path string) mail.Recipient {
	return mail.Recipient{Path: mail.MustPath(path), Original: mail.MustPath(given)}
}

func TestCopies(t *testing.T) {
	p := configured(t, `
copies = {"example.org" = "archive@example.org", "Example.NET" = "journal@archive.example", "bücher.example" = "archive@example.org"}
`)
	const archive, journal = "archive@example.org<-postmaster@example.org", "journal@archive.example<-postmaster@example.org"
	tests := []struct {
		name string
		from string
		to   []mail.Recipient
		want []string
	}{
		{"received", "a@elsewhere.example", []mail.Recipient{rcpt("b@example.org")}, []string{archive}},
		{"sent", "a@example.org", []mail.Recipient{rcpt("b@elsewhere.example")}, []string{archive}},
		{"within", "a@example.org", []mail.Recipient{rcpt("b@example.org"), rcpt("c@example.org")}, []string{archive}},
		{"two domains", "a@example.org", []mail.Recipient{rcpt("b@example.net"), rcpt("c@example.net")}, []string{archive, journal}},
		{"two domains, one target", "a@example.org", []mail.Recipient{rcpt("b@xn--bcher-kva.example")}, []string{archive}},
		{"alias led away", "a@elsewhere.example", []mail.Recipient{alias("b@example.net", "b@gmail.example")}, []string{journal}},
		{"alias led here", "a@elsewhere.example", []mail.Recipient{alias("b@elsewhere.example", "b@example.net")}, []string{journal}},
		{"neither", "a@elsewhere.example", []mail.Recipient{rcpt("b@elsewhere.example")}, nil},
		{"subdomain", "a@mail.example.org", []mail.Recipient{rcpt("b@elsewhere.example")}, nil},
		{"to the archive", "a@elsewhere.example", []mail.Recipient{rcpt("Archive@example.org")}, nil},
		{"to the archive and another", "a@elsewhere.example", []mail.Recipient{rcpt("b@example.org"), rcpt("archive@example.org")}, nil},
		{"alias of the archive", "a@elsewhere.example", []mail.Recipient{alias("all@example.org", "archive@example.org")}, nil},
		{"the archive writes", "archive@example.org", []mail.Recipient{rcpt("b@elsewhere.example")}, []string{archive}},
		{"bounce", "", []mail.Recipient{rcpt("b@example.org")}, []string{"archive@example.org<-"}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, copies(t, p, tt.from, tt.to...)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// The copy comes back to the plugin as a version of its own: no copy of it is made.
func TestNoCopyOfACopy(t *testing.T) {
	p := configured(t, `copies = {"*" = "all@example.com", "example.org" = "archive@example.org"}`)
	first := copies(t, p, "a@elsewhere.example", rcpt("b@example.org"))
	if len(first) != 2 {
		t.Fatalf("copies are %v", first)
	}
	for _, target := range []string{"all@example.com", "archive@example.org"} {
		if got := copies(t, p, "postmaster@example.org", rcpt(target)); got != nil {
			t.Errorf("a copy of the copy for %s: %v", target, got)
		}
	}
}

// Copies that other plugins make are not copied.
func TestNoCopyOfOthersCopies(t *testing.T) {
	p := configured(t, `copies = {"*" = "all@example.com"}`)
	m := &mail.Message{Envelope: mail.Envelope{Recipients: []mail.Recipient{rcpt("journal@example.net")}}, Notes: map[string]string{sdk.NoteEnvelope: sdk.EnvelopeCopy}}
	if v, err := sdktest.Filter(t, p, Manifest(), m); err != nil || len(v.Edits) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestEverything(t *testing.T) {
	p := configured(t, `copies = {"*" = "all@example.com"}
bounce_to = "sender"`)
	if d := cmp.Diff([]string{"all@example.com<-a@one.example"}, copies(t, p, "a@one.example", rcpt("b@two.example"))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"all@example.com<-"}, copies(t, p, "", rcpt("b@two.example"))); d != "" {
		t.Error(d)
	}
}

func TestOrigins(t *testing.T) {
	for _, o := range Manifest().Origins {
		if o == mail.Internal || o == mail.Redirected || o == mail.Copied {
			t.Errorf("copies of %s mail", o)
		}
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		"":                                     "copies is empty",
		`copies = {"example.org" = "archive"}`: `"example.org"`,
		`copies = {"example.org" = ""}`:        "empty",
		`copies = {"exa mple" = "a@example.org"}`:                                     `"exa mple"`,
		`copies = {"example.org" = 1}`:                                                "copies",
		`copies = ["a@example.org"]`:                                                  "copies",
		"copies = {\"*\" = \"a@example.org\"}\nx=1":                                   `unknown key "x"`,
		"copies = {\"*\" = \"a@example.org\"}\nbounce_to = \"root\"":                  "bounce_to",
		`copies = {"example.org" = "a@example.org", "EXAMPLE.org" = "b@example.org"}`: "twice",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), Postmaster: "postmaster@example.org"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q", settings, err, want)
		}
	}
}
