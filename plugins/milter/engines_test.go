package milter

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// result is the message after the header edits of a verdict.
func result(t *testing.T, m *mail.Message, v *sdk.Verdict) string {
	t.Helper()
	h := m.Header
	if err := sdktest.Apply(v, &h); err != nil {
		t.Fatal(err)
	}
	return string(h.Block()) + string(m.Body.Inline)
}

// hard are messages with what signing finds hard.
var hard = map[string]string{
	"plain":           "From: Alice <alice@example.org>\r\nTo: bob@elsewhere.test\r\nSubject: x\r\n\r\nbody\r\n",
	"folded":          "From: \"Alice\r\n\t with a long name\"\r\n <alice@example.org>\r\nTo: bob@elsewhere.test,\r\n\t\r\n carol@elsewhere.test\r\nSubject:\r\n folded\r\n\t  at   odd\t places \r\n\r\nbody\r\n",
	"8-bit":           "From: \xe4lice <alice@example.org>\r\nSubject: K\xc3\xa4se \xff raw\r\n\r\n\xe4\xf6\xfc \xff\xfe\r\n",
	"no body":         "From: alice@example.org\r\nSubject: no body\r\n\r\n",
	"empty lines":     "From: alice@example.org\r\nSubject: empty lines\r\n\r\n\r\n\r\n\r\n",
	"trailing spaces": "From: alice@example.org \t \r\nSubject: spaces   \r\nTo:\r\nCc:  two\r\nReply-To:none@example.org\r\n\r\n  indented\t\ttabs  \r\n \t \r\nend   \r\n\r\n \r\n\r\n",
	"our Received":    "Received: from c ([192.0.2.1])\r\n\tby mx.example.org (Postern) with ESMTP\r\n\tid x;\r\n\tThu, 21 May 2026 05:33:29 -0700\r\nFrom: alice@example.org\r\nSubject: x\r\n\r\nbody\r\n",
	"long":            "From: alice@example.org\r\nSubject: long " + strings.Repeat("word ", 150) + "\r\nReferences: " + strings.Repeat("<id@x>\r\n ", 50) + "<id@x>\r\n\r\n" + strings.Repeat("x", 990) + "\r\n" + strings.Repeat("QUJD\r\n", 50000),
	"large field":     "From: alice@example.org\r\nSubject: x\r\nX-Large: " + strings.Repeat(strings.Repeat("y", 70)+"\r\n ", 897) + "\r\n\r\nbody\r\n",
}

func newKey(t testing.TB) (private, record string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return private, "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

// OpenDKIM signs through the plugin what a library verifies, whatever is in the message, with
// both canonicalizations; and verifies it through the plugin. What was changed it finds out.
func TestOpenDKIM(t *testing.T) {
	t.Parallel()
	key, record := newKey(t)
	files := map[string]string{"key": key, "keys": "sel._domainkey.example.org " + record + "\n"}
	for _, canon := range []string{"simple/simple", "relaxed/relaxed"} {
		signer := peertest.StartOpenDKIM(t, files, "Mode s", "Domain example.org", "Selector sel", "KeyFile $DIR/key", "Canonicalization "+canon, "InternalHosts 192.0.2.1", "OversignHeaders From")
		verifier := peertest.StartOpenDKIM(t, files, "Mode v", "TestPublicKeys $DIR/keys", "AlwaysAddARHeader yes", "AuthservID mx.example.org")
		sign, verify := configured(t, signer.Address, ""), configured(t, verifier.Address, "")
		for name, text := range hard {
			m := message(text, "bob@elsewhere.test")
			m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Helo: "c.example.org"}
			signed := result(t, m, verdict(t, sign, m))
			got, err := dkim.VerifyWithOptions(strings.NewReader(signed), &dkim.VerifyOptions{LookupTXT: func(string) ([]string, error) { return []string{record}, nil }})
			if err != nil || len(got) != 1 || got[0].Err != nil {
				t.Errorf("%s %s: %v %+v\n%.600q", canon, name, err, got, signed)
				continue
			}
			for want, text := range map[string]string{"dkim=pass": signed, "dkim=fail": strings.Replace(signed, "Subject: ", "Subject: un", 1), "dkim=none": text} {
				if want == "dkim=fail" && text == signed {
					continue
				}
				m := message(text, "bob@elsewhere.test")
				m.Envelope.Client.Addr = netip.MustParseAddr("198.51.100.9")
				h, _ := mail.SplitMessage([]byte(result(t, m, verdict(t, verify, m))))
				if ar := h.Get("Authentication-Results"); !strings.HasPrefix(ar, "mx.example.org;") || !strings.Contains(ar, want) {
					t.Errorf("%s %s: want %s, there is %q", canon, name, want, ar)
				}
			}
		}
		m := message(hard["plain"], "bob@elsewhere.test")
		m.Envelope.Client.Addr = netip.MustParseAddr("198.51.100.9")
		if s := result(t, m, verdict(t, sign, m)); strings.Contains(s, "DKIM-Signature") {
			t.Error("signed for a stranger")
		}
		m.Envelope.Client.User = "alice@example.org" // {auth_type} tells
		if s := result(t, m, verdict(t, sign, m)); !strings.Contains(s, "DKIM-Signature") {
			t.Error("not signed for a client that has logged in")
		}
	}
}

// Many messages at once.
func TestOpenDKIMConcurrently(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	o := peertest.StartOpenDKIM(t, map[string]string{"key": key}, "Mode s", "Domain example.org", "Selector sel", "KeyFile $DIR/key")
	p := configured(t, o.Address, "")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				v, err := p.Filter(t.Context(), message(hard["folded"], "bob@elsewhere.test"))
				if err != nil || len(v.Edits) != 1 || v.Edits[0].Name != "DKIM-Signature" {
					t.Errorf("%+v, %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}

// The proxy of rspamd as a milter: its verdicts, and the facts that it was told.
func TestRspamd(t *testing.T) {
	t.Parallel()
	r := peertest.StartRspamd(t)
	p := configured(t, "inet:"+r.Milter, "")
	ask := func(header, body string) (*sdk.Verdict, *mail.Message) {
		t.Helper()
		m := message("From: a@example.net\r\nSubject: x\r\nX-Remove-Me: 1\r\n"+header+"\r\n"+body+"\r\n", "bob@example.org", "carol@example.org")
		m.Envelope.Client = mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Helo: "c.example.net", Host: "host.example.net", User: "alice"}
		return verdict(t, p, m), m
	}
	if v, _ := ask("", "text"); v.Action != sdk.ActionContinue {
		t.Errorf("%+v", v)
	}
	if v, _ := ask("", peertest.GTUBE); v.Action != sdk.ActionReject || v.Status.Code != 554 || !strings.Contains(v.Status.Text, "Gtube") {
		t.Errorf("GTUBE: %+v", v)
	}
	if v, _ := ask("X-Test-Action: soft reject\r\nX-Test-Message: later\r\n", "text"); v.Action != sdk.ActionTempfail || !strings.Contains(v.Status.Text, "later") {
		t.Errorf("soft reject: %+v", v)
	}
	v, m := ask("X-Test-Milter: 1\r\n", "text")
	if s := result(t, m, v); !strings.Contains(s, "X-Rspamd-Test: yes\r\n") || strings.Contains(s, "X-Remove-Me") {
		t.Errorf("%+v\n%s", v, s)
	}
	if v, m = ask("X-Test-Score: 8\r\n", "text"); !strings.Contains(result(t, m, v), "[spam] x") {
		t.Errorf("rewrite subject: %+v", v)
	}
	parts := "--b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 50000) + "--b\r\n\r\n" + peertest.GTUBE + "\r\n--b--"
	if v, _ := ask("Content-Type: multipart/mixed; boundary=b\r\n", parts); v.Action != sdk.ActionReject {
		t.Errorf("at the end of 3.6 MB: %+v", v)
	}
	r.Stop()
	if v, _ := ask("", "text"); v.Action != sdk.ActionUnscanned || v.Reason != "milter not reachable" {
		t.Errorf("stopped: %+v", v)
	}
}

// clamav-milter finds a virus in body and attachment, in a file too; without clamd it does not
// let mail pass.
func TestClamavMilter(t *testing.T) {
	t.Parallel()
	peertest.Program(t, "clamav-milter")
	clamd := peertest.StartClamd(t)
	c := peertest.StartClamavMilter(t, clamd, "OnInfected Reject", `RejectMsg "Infected by %v"`, "OnFail Defer", "AddHeader Replace")
	p := configured(t, "unix:"+c.Socket, "")
	m := message(small, "bob@example.org")
	if v := verdict(t, p, m); v.Action != sdk.ActionContinue || !strings.Contains(result(t, m, v), "X-Virus-Status: Clean") {
		t.Errorf("%+v", v)
	}
	infected := "From: a@example.net\r\nSubject: x\r\n\r\n" + peertest.EICAR() + "\r\n"
	if v := verdict(t, p, message(infected, "bob@example.org")); v.Action != sdk.ActionReject || !strings.Contains(v.Status.Text, "Infected by Eicar-Test-Signature") {
		t.Errorf("EICAR: %+v", v)
	}
	file := filepath.Join(t.TempDir(), "body")
	body := append(bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 20000), peertest.Virus...)
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	m = message(small, "bob@example.org")
	m.Body = mail.Body{Path: file, Size: int64(len(body))}
	if v := verdict(t, p, m); v.Action != sdk.ActionReject {
		t.Errorf("in a file: %+v", v)
	}
	q := peertest.StartClamavMilter(t, clamd, "OnInfected Quarantine")
	if v := verdict(t, configured(t, q.Socket, ""), message(infected, "bob@example.org")); v.Action != sdk.ActionQuarantine || v.Reason == "" {
		t.Errorf("quarantine: %+v", v)
	}
	clamd.Stop()
	if v := verdict(t, p, message(infected, "bob@example.org")); v.Action == sdk.ActionContinue || v.Action == sdk.ActionReject {
		t.Errorf("without clamd: %+v", v)
	}
}
