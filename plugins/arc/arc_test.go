package arc

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/internal/arcchain"
	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// zone is a DNS with texts by name.
type zone struct {
	texts map[string]string
	err   error
}

func (z *zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	if v, ok := z.texts[name]; ok && z.err == nil {
		return []string{v}, nil
	}
	if z.err != nil {
		return nil, z.err
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

type rig struct {
	*Plugin
	dns *zone
}

func newRig(t testing.TB, settings string) *rig {
	t.Helper()
	data := t.TempDir()
	_, record, err := dkimkey.Generate(filepath.Join(data, "dkim"), mail.MustDomain("relay.test"), "arc", "rsa")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{New(), &zone{texts: map[string]string{record.Name: record.Value}}}
	r.resolver = r.dns
	if err := r.Configure(t.Context(), sdk.Config{Settings: []byte("domain = 'relay.test'\n" + settings), DataDir: data, Hostname: "MX.relay.test"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// run has the plugin look at a message with these notes, and returns what leaves.
func (r *rig) run(t testing.TB, wire string, notes map[string]string) (string, map[string]string) {
	t.Helper()
	h, body := mail.SplitMessage([]byte(wire))
	m := &mail.Message{Envelope: mail.Envelope{Origin: mail.Incoming}, Header: h, Body: mail.InlineBody(body), Notes: notes}
	v, err := sdktest.Filter(t, r, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := sdktest.Apply(v, &m.Header); err != nil {
		t.Fatal(err)
	}
	return string(m.Header.Block()) + string(body), v.Notes
}

func (r *rig) validate(t testing.TB, wire string) *arcchain.Chain {
	t.Helper()
	h, body := mail.SplitMessage([]byte(wire))
	v, err := arcchain.New(arcchain.Options{Resolver: r.dns})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Validate(t.Context(), &mail.Message{Header: h, Body: mail.InlineBody(body)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	plain   = "From: Ann <ann@example.org>\r\nSubject: hello\r\n\r\nHello.\r\n"
	results = "Authentication-Results: mx.RELAY.test; spf=pass (a comment) smtp.mailfrom=ann@example.org; arc=none\r\n"
)

func TestSeals(t *testing.T) {
	r := newRig(t, "")
	other := "Authentication-Results: other.test; dkim=pass header.d=eve.test\r\n"
	one, notes := r.run(t, results+other+plain, nil)
	c := r.validate(t, one)
	if c.State != arcchain.Pass || c.Instances != 1 || notes["sealed"] != "i=1 cv=none d=relay.test s=arc" {
		t.Fatalf("%+v, notes %v\n%s", c, notes, one)
	}
	if got := c.Last().Results; !strings.Contains(got, "smtp.mailfrom=ann@example.org") || strings.Contains(got, "eve") || !strings.HasPrefix(got, "i=1; MX.relay.test") {
		t.Errorf("the results are %q", got)
	}
	if !strings.HasPrefix(one, "ARC-Seal: ") || !strings.HasSuffix(one, results+other+plain) {
		t.Errorf("the message is\n%s", one)
	}
	two, notes := r.run(t, one, nil)
	if c := r.validate(t, two); c.State != arcchain.Pass || c.Instances != 2 || notes["sealed"] != "i=2 cv=pass d=relay.test s=arc" {
		t.Errorf("%+v, notes %v", c, notes)
	}
}

// What the chain was when the message arrived counts, not what our changes made of it.
func TestStateOfArrival(t *testing.T) {
	r := newRig(t, "")
	one, _ := r.run(t, results+plain, nil)
	changed := strings.Replace(one, "Hello.", "[external] Hello.", 1)
	for note, want := range map[string]string{
		"pass": "i=2 cv=pass d=relay.test s=arc", "fail": "i=2 cv=fail d=relay.test s=arc", "": "i=2 cv=fail d=relay.test s=arc", "none": "i=2 cv=fail d=relay.test s=arc",
	} {
		out, notes := r.run(t, changed, map[string]string{"mailauth/arc": note})
		if notes["sealed"] != want {
			t.Errorf("%q: %v", note, notes)
		}
		if c := r.validate(t, out); (c.State == arcchain.Pass) != (note == "pass") || c.Ended != (note != "pass") {
			t.Errorf("%q: %+v", note, c)
		}
	}
	if _, notes := r.run(t, changed, map[string]string{"mailauth/arc": "temperror"}); notes["unsealed"] == "" {
		t.Errorf("temperror: %v", notes)
	}
}

func TestNotSealed(t *testing.T) {
	r := newRig(t, "")
	one, _ := r.run(t, results+plain, nil)
	failed, _ := r.run(t, strings.Replace(one, "Hello", "Hallo", 1), nil)
	for name, c := range map[string]struct{ wire, why string }{
		"no results":        {plain, "no Authentication-Results of MX.relay.test"},
		"others' results":   {"Authentication-Results: mx.relay.test.evil.test; spf=pass\r\n" + plain, "no Authentication-Results"},
		"malformed results": {"Authentication-Results: mx.relay.test; =; (\r\n" + plain, "cannot be read"},
		"cv=fail":           {failed, "has ended"},
	} {
		out, notes := r.run(t, c.wire, nil)
		if out != c.wire || !strings.Contains(notes["unsealed"], c.why) {
			t.Errorf("%s: %v\n%s", name, notes, out)
		}
	}
	r.dns.err = &net.DNSError{IsTemporary: true}
	if out, notes := r.run(t, one, nil); out != one || !strings.Contains(notes["unsealed"], "DNS") {
		t.Errorf("no DNS: %v", notes)
	}
}

// Where our results have another name than the gateway, which does not remove forged ones
// then, they are believed only if the plugin that writes them has seen the message.
func TestForgedResults(t *testing.T) {
	r := newRig(t, "authserv_id = 'mail.relay.test'\n")
	wire := "Authentication-Results: mail.relay.test; spf=pass smtp.mailfrom=bank.test\r\n" + plain
	if out, notes := r.run(t, wire, map[string]string{"spam/x": "y"}); out != wire || !strings.Contains(notes["unsealed"], "mailauth has not seen") {
		t.Errorf("%v", notes)
	}
	if _, notes := r.run(t, wire, map[string]string{"mailauth/spf": "pass"}); notes["sealed"] == "" {
		t.Errorf("%v", notes)
	}
}

// Nothing is sealed with a key that nobody can find; what the DNS said before counts while
// it does not answer.
func TestOwnKeyInDNS(t *testing.T) {
	r := newRig(t, "")
	now := time.Now()
	r.now = func() time.Time { return now }
	const name = "arc._domainkey.relay.test"
	record := r.dns.texts[name]
	sealed := func(want bool) {
		t.Helper()
		if _, notes := r.run(t, results+plain, nil); (notes["sealed"] != "") != want || want == strings.Contains(notes["unsealed"], name) {
			t.Fatalf("%v", notes)
		}
	}
	delete(r.dns.texts, name)
	sealed(false)
	r.dns.texts[name] = record
	sealed(false)
	now = now.Add(badFor)
	sealed(true)
	r.dns.err = &net.DNSError{IsTemporary: true}
	now = now.Add(goodFor)
	sealed(true)
	r.dns.err = nil
	r.dns.texts[name] = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	sealed(true)
	now = now.Add(goodFor)
	sealed(false)
	// Where nothing is known at all the key is believed to be there.
	fresh := newRig(t, "")
	fresh.dns.err = &net.DNSError{IsTemporary: true}
	if _, notes := fresh.run(t, results+plain, nil); notes["sealed"] == "" {
		t.Errorf("%v", notes)
	}
}

// A body that cannot be read is a failure, not a seal of something else.
func TestUnreadable(t *testing.T) {
	r := newRig(t, "")
	h, _ := mail.SplitMessage([]byte(results + plain))
	m := &mail.Message{Header: h, Body: mail.Body{Path: filepath.Join(t.TempDir(), "gone"), Size: 1}}
	if v, err := r.Filter(t.Context(), m); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestConfigureRefuses(t *testing.T) {
	data := t.TempDir()
	for settings, want := range map[string]string{
		"":                                     "domain is empty",
		"domain = 'a b'":                       "settings: domain",
		"domain = '[192.0.2.1]'":               "not a domain",
		"domain = 'relay.test'":                "postern dkim keygen relay.test --selector arc",
		"domain = 'x.test'\nsel = 'y'":         `unknown key "sel"`,
		"domain = 'x.test'\nselector = '../y'": "not a selector",
		"domain = 'x.test'\ntimeout = '1ms'":   "timeout",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: data, Hostname: "mx.relay.test"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", settings, err, want)
		}
	}
}

func BenchmarkSeal4K(b *testing.B) {
	r := newRig(b, "")
	h, body := mail.SplitMessage([]byte(results + plain + strings.Repeat("0123456789abcde\r\n", 240)))
	m := &mail.Message{Header: h, Body: mail.InlineBody(body)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Filter(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
