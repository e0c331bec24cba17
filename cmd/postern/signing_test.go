package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// signing is a configuration that signs for example.org with RSA and for example.com with
// Ed25519, in a folder with the keys, which `postern dkim keygen` made. records are the DNS
// records that it printed.
func signing(t testing.TB, config string) (dir string, records map[string]string) {
	t.Helper()
	dir = t.TempDir()
	file := write(t, dir, config)
	records = make(map[string]string)
	for domain, algorithm := range map[string]string{"example.org": "rsa", "example.com": "ed25519"} {
		out, code := postern(t, "", "dkim", "keygen", domain, "--algorithm", algorithm, "--json", "--config", file)
		var r struct{ Name, Value string }
		if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
			t.Fatalf("keygen: exit code %d\n%s", code, out)
		}
		records[r.Name] = r.Value
	}
	return dir, records
}

const withSigning = `
[[plugin]]
name = "dkim"
[plugin.settings]
domains = ["example.org", "example.com"]
`

// signable are messages with what canonicalization and parsers find hard; %s is the domain
// of the author.
var signable = map[string]string{
	"plain":           "From: Alice <alice@%s>\r\nTo: bob@elsewhere.test\r\nSubject: x\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-Id: <1@x>\r\n\r\nbody\r\n",
	"folded":          "From: \"Alice\r\n\t with a long name\"\r\n <alice@%s>\r\nTo: bob@elsewhere.test,\r\n\t\r\n carol@elsewhere.test\r\nSubject:\r\n folded\r\n\t  at   odd\t places \r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\n\r\nbody\r\n",
	"8-bit":           "From: \xe4lice <alice@%s>\r\nSubject: K\xc3\xa4se \xff raw\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4\xf6\xfc \xff\xfe\r\n",
	"no body":         "From: alice@%s\r\nSubject: no body\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\n\r\n",
	"no blank line":   "From: alice@%s\r\nSubject: nothing follows\r\n",
	"empty lines":     "From: alice@%s\r\nSubject: empty lines\r\n\r\n\r\n\r\n\r\n",
	"trailing spaces": "From: alice@%s \t \r\nSubject: spaces   \r\nX-Empty:\r\nX-Space: \r\n\r\n  indented\t\ttabs  \r\n \t \r\nend   \r\n\r\n \r\n\r\n",
	"dots":            "From: alice@%s\r\nSubject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
	"long lines":      "From: alice@%s\r\nSubject: long " + strings.Repeat("word ", 150) + "\r\nReferences: " + strings.Repeat("<id@x>\r\n ", 50) + "<id@x>\r\n\r\n" + strings.Repeat("x", 990) + "\r\n",
	"repeated":        "Received: from a by b; Thu, 21 May 2026 05:33:29 -0700\r\nFrom: alice@%s\r\nTo: a@x\r\nTo: b@x\r\nCc: c@x\r\nSubject: one\r\nSubject: two\r\nComments: a\r\nComments: b\r\n\r\nbody\r\n",
	"MIME":            "From: alice@%s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\nSubject: m\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n" + strings.Repeat("QUJD\r\n", 20000) + "--b--\r\n",
	"signed before":   "DKIM-Signature: v=1; a=rsa-sha256; d=other.test; s=x; h=from; bh=AAAA; b=BBBB\r\nFrom: alice@%s\r\nSubject: signed\r\n\r\nbody\r\n",
	"our old one":     "DKIM-Signature: v=1; a=rsa-sha256; d=%[1]s; s=postern; h=from; bh=AAAA; b=BBBB\r\nFrom: alice@%[1]s\r\nSubject: signed\r\n\r\nbody\r\n",
	"subdomain":       "From: alice@sub.%s\r\nSubject: s\r\n\r\nbody\r\n",
}

// Signed mail verifies with a library and with OpenDKIM, whatever is in it; it has exactly
// one signature of ours (H-11), and is otherwise as it was sent.
func TestDKIMVerifies(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	config := forwarding("elsewhere.test", "smtp://"+sink.Addr()) + withSigning
	dir, records := signing(t, config)
	config += published(t, records)
	g := startIn(t, dir, config)
	var files, rsa []string
	folder := peertest.PrivateFolder(t)
	for domain, algorithm := range map[string]string{"example.org": "rsa-sha256", "example.com": "ed25519-sha256"} {
		for name, form := range signable {
			n := len(sink.Messages())
			text := strings.ReplaceAll(strings.ReplaceAll(form, "%[1]s", domain), "%s", domain)
			swaksOK(t, g.addr[0], "--from", "alice@"+domain, "--to", "bob@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, text))
			m := sink.Wait(t, n+1, patience)[n].Data
			verified(t, domain+" "+name, m, domain, algorithm, records)
			stripped := regexp.MustCompile(`^DKIM-Signature: (?:[^\r\n]|\r\n[ \t])*\r\n`).ReplaceAll(m, nil)
			if name == "our old one" {
				text = text[strings.Index(text, "From:"):]
			}
			untouched(t, stripped, []byte(text))
			file := filepath.Join(folder, fmt.Sprintf("%s-%s", domain, strings.ReplaceAll(name, " ", "-")))
			if err := os.WriteFile(file, bytes.ReplaceAll(m, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
			if domain == "example.org" && name != "signed before" { // its other signature has no key anywhere
				rsa = append(rsa, file)
			}
		}
	}
	if len(files) != 2*len(signable) {
		t.Fatalf("%d messages", len(files))
	}
	openDKIM(t, folder, rsa, "postern", records)
}

// verified checks our signature, and that it is the only one for the domain.
func verified(t testing.TB, name string, m []byte, domain, algorithm string, records map[string]string) {
	t.Helper()
	if !bytes.Contains(m, []byte("\r\n\r\n")) {
		m = append(m[:len(m):len(m)], "\r\n"...) // the library wants the blank line, OpenDKIM does not
	}
	all, err := dkim.VerifyWithOptions(bytes.NewReader(m), &dkim.VerifyOptions{LookupTXT: func(q string) ([]string, error) {
		if r, ok := records[q]; ok {
			return []string{r}, nil
		}
		return nil, fmt.Errorf("no record %s", q)
	}})
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	ours := 0
	for _, v := range all {
		if v.Domain != domain {
			continue
		}
		if ours++; v.Err != nil {
			t.Errorf("%s: %v\n%.1500s", name, v.Err, m)
		}
	}
	if ours != 1 {
		t.Errorf("%s: %d signatures of ours", name, ours)
	}
	if !bytes.Contains(m, []byte("a="+algorithm+";")) {
		t.Errorf("%s: not signed with %s: %.300s", name, algorithm, m)
	}
}

// openDKIM has OpenDKIM verify messages in files, with these records in place of DNS.
func openDKIM(t testing.TB, dir string, files []string, selector string, records map[string]string) {
	t.Helper()
	peer(t, "opendkim")
	var keys strings.Builder
	for name, value := range records {
		fmt.Fprintf(&keys, "%s %s\n", name, value)
	}
	conf := filepath.Join(dir, "opendkim.conf")
	for file, text := range map[string]string{filepath.Join(dir, "keys"): keys.String(), conf: fmt.Sprintf("Mode v\nSyslog no\nTestPublicKeys %s/keys\n", dir)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("opendkim", "-x", conf, "-t", strings.Join(files, ",")).CombinedOutput()
	if err != nil {
		t.Errorf("opendkim: %v", err)
	}
	for _, file := range files {
		if !regexp.MustCompile(`(?m)^opendkim: ` + regexp.QuoteMeta(file) + `: verification \(s=` + selector + `, d=[^)]*\) succeeded`).Match(out) {
			t.Errorf("opendkim does not verify %s", filepath.Base(file))
		}
	}
	if t.Failed() {
		t.Logf("opendkim:\n%s", out)
	}
}

// A signature survives two more servers: Postfix, which relays to Dovecot, which stores.
func TestDKIMThroughPostfixAndDovecot(t *testing.T) {
	t.Parallel()
	d := newDovecot(t, []string{"bob@elsewhere.test"}, "")
	peer(t, "postfix")
	p := newPostfix(t, "relay_domains = elsewhere.test\nrelay_transport = lmtp:inet:"+d.lmtp+"\nlmtp_tls_security_level = none\n")
	p.start(t, "")
	config := forwarding("elsewhere.test", "smtp://"+p.addr) + withSigning
	dir, records := signing(t, config)
	config += published(t, records)
	g := startIn(t, dir, config)
	inbox := d.login(t, "bob@elsewhere.test")
	for _, name := range []string{"folded", "8-bit", "trailing spaces", "MIME"} {
		text := fmt.Sprintf(signable[name], "example.org")
		swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, text))
		verified(t, name, inbox.next(), "example.org", "rsa-sha256", records)
	}
}

// Without its key the gateway does not start, and says what to do.
func TestDKIMWithoutKey(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), forwarding("elsewhere.test", "smtp://192.0.2.1:25")+withSigning)
	for _, command := range []string{"check", "serve"} {
		out, code := postern(t, "", command, "--config", file)
		if code != 1 || !strings.Contains(out, "postern dkim keygen example.org") || !strings.Contains(out, "postern dkim keygen example.com") {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
}

// What a user submits is signed, and so is a report that we make ourselves; mail from
// strangers and for other domains is not.
func TestDKIMSignsOurs(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	config := strings.Replace(withSubmission, "127.0.0.0/8", "192.0.2.0/24", 1) + fmt.Sprintf("[smarthost]\naddress = %q\n", sink.Addr()) + withSigning
	dir, records := signing(t, config)
	config += published(t, records)
	g := startIn(t, dir, config)
	g.account("alice@example.org")
	swaksOK(t, g.addr[1], append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.org", "--to", "bob@elsewhere.test")...)
	verified(t, "submitted", sink.Wait(t, 1, patience)[0].Data, "example.org", "rsa-sha256", records)

	sink.On("RCPT", "550 5.1.1 no such user")
	swaksOK(t, g.addr[1], append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.org", "--to", "nobody@elsewhere.test")...)
	all := maildirFiles(t, g.maildir("alice@example.org"), 1)
	verified(t, "report", all[0], "example.org", "rsa-sha256", records) // mx.example.org is below example.org
	parseReportText(t, all[0])

	swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "alice@example.org", "--header", "Subject: forged")
	for _, m := range maildirFiles(t, g.maildir("alice@example.org"), 2) {
		if bytes.Contains(m, []byte("Subject: forged")) && bytes.Contains(m, []byte("DKIM-Signature")) {
			t.Errorf("a stranger's message was signed:\n%s", m)
		}
	}
	swaksOK(t, g.addr[1], append(login("PLAIN", "alice@example.org", "secret of alice"), "--from", "alice@example.org", "--to", "bob@elsewhere.test",
		"--header", "From: alice@example.net")...)
	if m := sink.Wait(t, 2, patience)[1]; bytes.Contains(m.Data, []byte("DKIM-Signature")) {
		t.Errorf("signed for a domain that has no key:\n%s", m.Data)
	}
}
