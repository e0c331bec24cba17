package dkim

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

var org = mail.MustDomain("example.org")

// rig is a configured plugin and the DNS for its keys.
type rig struct {
	*Plugin
	dns map[string]string
}

func newRig(t testing.TB, algorithm string, domains ...string) *rig {
	t.Helper()
	data := t.TempDir()
	r := &rig{New(), make(map[string]string)}
	for _, name := range domains {
		_, rec, err := Generate(filepath.Join(data, "dkim"), mail.MustDomain(name), "s1", algorithm)
		if err != nil {
			t.Fatal(err)
		}
		r.dns[rec.Name] = rec.Value
	}
	r.resolver = &fakeDNS{texts: r.dns}
	settings := fmt.Sprintf("selector = 's1'\ndomains = ['%s']\n", strings.Join(domains, "', '"))
	if err := r.Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: data}); err != nil {
		t.Fatal(err)
	}
	return r
}

// signed runs the plugin on a message as it is on the wire and returns what leaves.
func (r *rig) signed(t testing.TB, wire string) (string, *sdk.Verdict) {
	t.Helper()
	h, body := mail.SplitMessage([]byte(wire))
	m := &mail.Message{Envelope: mail.Envelope{Origin: mail.Submitted}, Header: h, Body: mail.InlineBody(body)}
	v, err := sdktest.Filter(t, r, Manifest(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := sdktest.Apply(v, &m.Header); err != nil {
		t.Fatal(err)
	}
	return string(m.Header.Block()) + string(body), v
}

func (r *rig) verify(t testing.TB, wire string) []*msgauth.Verification {
	t.Helper()
	vs, err := msgauth.VerifyWithOptions(strings.NewReader(wire), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if v, ok := r.dns[name]; ok {
			return []string{v}, nil
		}
		return nil, fmt.Errorf("no record %s", name)
	}})
	if err != nil {
		t.Fatalf("%v in:\n%s", err, wire)
	}
	return vs
}

const plain = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nHello Bob.\r\n"

func TestSignsAndVerifies(t *testing.T) {
	for _, algorithm := range []string{"rsa", "ed25519"} {
		r := newRig(t, algorithm, "example.org")
		for name, wire := range map[string]string{
			"plain":              plain,
			"empty body":         strings.SplitAfter(plain, "\r\n\r\n")[0],
			"no final line end":  plain + "no end",
			"trailing blanks":    plain + "x \t\r\n\r\n\r\n",
			"8-bit":              plain + "gr\xfc\xdfe\r\n",
			"mime":               "MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\n" + plain,
			"folded":             strings.Replace(plain, "hello", "hello\r\n  and\r\n\tmore", 1),
			"large":              plain + strings.Repeat("0123456789abcdef\r\n", 100000),
			"two recipients":     "To: carl@example.net\r\n" + plain,
			"subdomain":          strings.Replace(plain, "ann@example.org", "ann@mail.example.org", 1),
			"raw name":           strings.Replace(plain, "Ann", "Gr\xfc\xdfe (, x", 1),
			"odd charset":        strings.Replace(plain, "Ann", "=?koi8-r?B?0NLJ18XU?=", 1),
			"someone's before":   "DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=s1; h=from; bh=x; b=y\r\n" + plain,
			"upper-case address": strings.Replace(plain, "ann@example.org", "Ann@EXAMPLE.ORG", 1),
		} {
			out, v := r.signed(t, wire)
			vs := r.verify(t, out)
			if len(vs) == 0 || vs[0].Domain != "example.org" || vs[0].Err != nil {
				t.Errorf("%s, %s: %+v, notes %v", algorithm, name, vs, v.Notes)
				continue
			}
			if !strings.HasSuffix(out, wire) {
				t.Errorf("%s, %s: the message itself changed", algorithm, name)
			}
			for line := range strings.SplitSeq(out[:len(out)-len(wire)], "\r\n") {
				if len(line) > 998 {
					t.Errorf("%s, %s: a line of %d bytes", algorithm, name, len(line))
				}
			}
			// Any other From, Subject or body breaks it.
			for _, forged := range []string{"From: eve@example.com\r\n" + out, "Subject: other\r\n" + out, "Reply-To: eve@example.com\r\n" + out, out + "\r\nmore\r\n"} {
				if vs := r.verify(t, forged); len(vs) > 0 && vs[0].Err == nil {
					t.Errorf("%s, %s: a forgery verifies", algorithm, name)
				}
			}
		}
	}
}

// H-06: what has no blank line, or a stray line in the header, is signed as a verifier
// will read it. The verifier used here insists on a blank line, so one is supplied.
func TestH06OddHeaders(t *testing.T) {
	r := newRig(t, "ed25519", "example.org")
	for name, wire := range map[string]string{
		"no blank line":          "From: ann@example.org\r\nSubject: x\r\n",
		"nothing but From":       "From: ann@example.org",
		"stray line":             "From: ann@example.org\r\nno field at all\r\n\r\nbody\r\n",
		"stray line, no blank":   "From: ann@example.org\r\nno field at all\r\n",
		"stray, body, many ends": "From: ann@example.org\r\nstray\r\n\r\nbody\r\n\r\n\r\n",
	} {
		out, v := r.signed(t, wire)
		if !strings.Contains(out, "\r\n\r\n") {
			if !strings.HasSuffix(out, "\r\n") {
				out += "\r\n"
			}
			out += "\r\n"
		}
		if vs := r.verify(t, out); len(vs) != 1 || vs[0].Err != nil {
			t.Errorf("%s: %+v, notes %v, in\n%s", name, vs, v.Notes, out)
		}
	}
}

func TestNotSigned(t *testing.T) {
	r := newRig(t, "ed25519", "example.org")
	for name, wire := range map[string]string{
		"other domain":   strings.Replace(plain, "example.org", "example.com", 1),
		"no From":        strings.Replace(plain, "From:", "X-From:", 1),
		"two Froms":      "From: eve@example.org\r\n" + plain,
		"empty From":     strings.Replace(plain, "Ann <ann@example.org>", "", 1),
		"similar domain": strings.Replace(plain, "@example.org>", "@badexample.org>", 1),
	} {
		out, v := r.signed(t, wire)
		if out != wire || v.Notes["unsigned"] == "" {
			t.Errorf("%s: %+v\n%s", name, v, out)
		}
	}
}

// H-11: a message that comes through twice has exactly one signature of ours, a valid one,
// even when it was changed on the way.
func TestH11OneOwnSignature(t *testing.T) {
	r := newRig(t, "ed25519", "example.org", "sub.example.org")
	once, _ := r.signed(t, plain)
	foreign := "DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=s1; h=from; bh=x; b=y\r\n"
	forged := "DKIM-Signature: v=1; d=EXAMPLE.org;\r\n s=s1; h=from; bh=x; b=y\r\n"
	changed := forged + foreign + strings.Replace(once, "hello", "[list] hello", 1) + "-- footer\r\n"
	twice, _ := r.signed(t, changed)
	own := 0
	for _, v := range r.verify(t, twice) {
		if v.Domain == "example.org" {
			own++
			if v.Err != nil {
				t.Error(v.Err)
			}
		}
	}
	if own != 1 || !strings.Contains(twice, foreign) {
		t.Errorf("%d own signatures in:\n%s", own, twice)
	}
}

// TestH01HugeHeaders: a sender who fills the header cannot keep the plugin busy. Each of
// these took longer than a call may, or had more edits than a verdict may.
func TestH01HugeHeaders(t *testing.T) {
	r := newRig(t, "ed25519", "example.org")
	const n = 4 << 20 // beyond any header: n² steps would not end in the time of a test
	for name, c := range map[string]struct {
		fields string
		signed bool
	}{
		"folds of a signed field":    {"References: <a@b>\r\n" + strings.Repeat(" x\r\n", n/4), true},
		"folds of another field":     {"X-Folds: a\r\n" + strings.Repeat(" x\r\n", n/4), true},
		"signatures that look own":   {strings.Repeat("DKIM-Signature: d=example.org; s=s1\r\n", n/38), true},
		"a second From, with quotes": {"From: " + strings.Repeat("\"a\"\r\n ", n/6) + "<ann@example.org>\r\n", false},
	} {
		_, v := r.signed(t, c.fields+plain)
		if got := len(v.Edits) > 0; got != c.signed {
			t.Errorf("%s: %d edits", name, len(v.Edits))
		}
	}
	_, v := r.signed(t, strings.Replace(plain, "Ann <", strings.Repeat("\"a\"\r\n ", n/6)+" <", 1))
	if len(v.Edits) != 0 || v.Notes["unsigned"] != "the From field is too long" {
		t.Errorf("%d edits, notes %v", len(v.Edits), v.Notes)
	}
	folds := "References:\r\n <a@b>\r\n\t \r\n" + strings.Repeat(" <x@y>\r\n", 1000) + "X-Other: a\r\n b\r\n"
	wire, _ := r.signed(t, folds+strings.Replace(plain, "Subject: hello", "Subject :\r\n\thello  \r\n  you", 1))
	if vs := r.verify(t, wire); len(vs) != 1 || vs[0].Err != nil {
		t.Errorf("folded fields: %+v", vs)
	}
}

func TestNearestDomainSigns(t *testing.T) {
	r := newRig(t, "ed25519", "example.org", "sub.example.org")
	_, v := r.signed(t, strings.Replace(plain, "ann@example.org", "ann@a.sub.example.org", 1))
	if !strings.HasPrefix(v.Notes["signed"], "d=sub.example.org ") {
		t.Errorf("notes are %v", v.Notes)
	}
}

// The body comes from a file, and is not read into memory.
func TestStreamsFromFile(t *testing.T) {
	r := newRig(t, "ed25519", "example.org")
	file := filepath.Join(t.TempDir(), "content")
	body := strings.Repeat("x", 76) + "\r\n"
	if err := os.WriteFile(file, []byte("skip"+strings.Repeat(body, 50000)), 0o600); err != nil {
		t.Fatal(err)
	}
	h, _ := mail.SplitMessage([]byte(plain))
	h = mail.NewHeader(h.Block())
	m := &mail.Message{Header: h, Body: mail.Body{Path: file, Offset: 4, Size: int64(len(body) * 50000)}}
	v, err := r.Filter(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := sdktest.Apply(v, &m.Header); err != nil {
		t.Fatal(err)
	}
	rd, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	all, err := io.ReadAll(rd)
	if err != nil {
		t.Fatal(err)
	}
	if vs := r.verify(t, string(all)); len(vs) != 1 || vs[0].Err != nil {
		t.Errorf("%+v", vs)
	}
	// A file that is gone, damaged or short is a failure, not a signature of something else.
	for _, b := range []mail.Body{{Path: file + "x", Size: 1}, {Path: file, Size: 1 << 30}, {Path: file, Size: 4, Sum: 1, Summed: true}} {
		m.Body = b
		if v, err := r.Filter(t.Context(), m); err == nil {
			t.Errorf("%+v: %+v", b, v)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Body = mail.Body{Path: file, Size: 1000}
	if _, err := r.Filter(ctx, m); err == nil {
		t.Error("signed after the caller gave up")
	}
}

// configured is the error of a plugin with these settings, and a DNS in which there is nothing.
func configured(t *testing.T, settings, data string) error {
	p := New()
	p.resolver = &fakeDNS{}
	return p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: data})
}

func TestConfigureRefuses(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "dkim")
	if _, _, err := Generate(dir, org, "good", "rsa"); err != nil {
		t.Fatal(err)
	}
	put := func(selector string, mode os.FileMode, text []byte) {
		if err := os.WriteFile(KeyFile(dir, org, selector), text, mode); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(KeyFile(dir, org, "good"))
	if err != nil {
		t.Fatal(err)
	}
	put("open", 0o644, good)
	put("text", 0o600, []byte("hello"))
	put("cert", 0o600, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	put("broken", 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
	t.Setenv("GODEBUG", "rsa1024min=0")
	if weak, err := rsa.GenerateKey(rand.Reader, 512); err == nil {
		put("weak", 0o600, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
	}
	if medium, err := rsa.GenerateKey(rand.Reader, 1024); err == nil {
		put("pkcs1", 0o600, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(medium)}))
	}
	for settings, want := range map[string]string{
		"":                        "domains is empty",
		"domains = ['']":          "domain is empty",
		"domains = ['[1.2.3.4]']": "is an address",
		"domains = ['example.org', 'example.net']\nselector = 'good'":             "no key for example.net",
		"domains = ['example.org']\nselector = 'a/../b'":                          "not a selector",
		"domains = ['example.org']\nselector = 'open'":                            "chmod 600 " + KeyFile(dir, org, "open"),
		"domains = ['example.org']\nselector = 'text'":                            "no key in PEM form",
		"domains = ['example.org']\nselector = 'cert'":                            "certificate",
		"domains = ['example.org']\nselector = 'broken'":                          "broken.pem",
		"domains = ['example.org']\nselector = 'weak'":                            "too short",
		"domains = ['example.org']\nselektor = 'good'":                            `unknown key "selektor"`,
		"domains = ['example.org']\nselector = '" + strings.Repeat("a", 54) + "'": "too long",
		"domains = ['example.org']\nselectors = []":                               "1 to 4",
		"domains = ['example.org']\nselectors = ['a', 'b', 'c', 'd', 'e']":        "1 to 4",
		"domains = ['example.org']\nselectors = ['a', 'a-20260101']":              "not different enough",
		"domains = ['example.org']\nper_domain = {'example.net' = ['a']}":         "not one of domains",
		"domains = ['example.org']\nrotate_after = '1h'":                          "rotate_after: 1h0m0s is too short",
		"domains = ['example.org']\nrotate_after = '240h'\ncheck_interval = '0s'": "needs a check_interval",
		"domains = ['example.org']\noverlap = '1m'":                               "overlap",
		"domains = ['example.org']\ncheck_interval = '1ms'":                       "check_interval",
	} {
		err := configured(t, settings, data)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q", settings, err, want)
		}
	}
	for _, s := range []string{"good", "pkcs1"} {
		settings := "domains = ['example.org']\nkey_dir = '" + dir + "'\nselector = '" + s + "'"
		if err := configured(t, settings, "/nowhere"); err != nil {
			t.Error(err)
		}
	}
}

func TestGenerate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	for algorithm, prefix := range map[string]string{"rsa": "v=DKIM1; k=rsa; p=MII", "ed25519": "v=DKIM1; k=ed25519; p="} {
		path, rec, err := Generate(dir, org, algorithm, algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Name != algorithm+"._domainkey.example.org" || !strings.HasPrefix(rec.Value, prefix) {
			t.Errorf("record is %+v", rec)
		}
		if again, err := ReadRecord(dir, org, algorithm); err != nil || again != rec {
			t.Errorf("%+v, %v", again, err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != 0o600 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
		before, _ := os.ReadFile(path)
		if _, _, err := Generate(dir, org, algorithm, algorithm); err == nil || !strings.Contains(err.Error(), "is there already") {
			t.Errorf("second time: %v", err)
		}
		if after, _ := os.ReadFile(path); string(after) != string(before) {
			t.Error("the key was overwritten")
		}
		joined := ""
		for i, part := range strings.Split(rec.Zone(), `"`) {
			if i%2 == 1 {
				joined += part
				if len(part) > 255 {
					t.Errorf("a string of %d bytes", len(part))
				}
			}
		}
		if joined != rec.Value {
			t.Errorf("the zone line has %q", joined)
		}
	}
	if _, err := ReadRecord(dir, org, "other"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no key: %v", err)
	}
	if _, _, err := Generate(dir, org, "x", "dsa"); err == nil {
		t.Error("dsa")
	}
}

// A verifier of another make agrees.
func TestPeerOpenDKIM(t *testing.T) {
	bin := "/usr/sbin/opendkim"
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
			t.Fatal("opendkim is not installed")
		}
		t.Skip("SKIPPED: opendkim is not installed")
	}
	r := newRig(t, "rsa", "example.org")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dns := ""
	for name, value := range r.dns {
		dns += name + " " + value + "\n"
	}
	conf := write("conf", "Mode v\nSyslog no\nTestDNSData "+write("dns", dns)+"\n")
	for name, text := range map[string]string{
		"plain":  plain,
		"blanks": plain + "x \t y\r\n \r\n\r\n\r\n",
		"mime":   "MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\n" + plain,
	} {
		out, _ := r.signed(t, text)
		got, err := exec.Command(bin, "-x", conf, "-t", write("msg", out), "-v").CombinedOutput()
		if err != nil || !strings.Contains(string(got), "verification (s=s1, d=example.org, 2048-bit key) succeeded") {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}

func BenchmarkSign4K(b *testing.B) {
	for _, algorithm := range []string{"rsa", "ed25519"} {
		b.Run(algorithm, func(b *testing.B) {
			r := newRig(b, algorithm, "example.org")
			h, body := mail.SplitMessage([]byte(plain + strings.Repeat("0123456789abcde\r\n", 240)))
			m := &mail.Message{Header: h, Body: mail.InlineBody(body)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Filter(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
