package main_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

const smarthostPassword = "secret of gateway"

// smarthost is basics with a smarthost that is logged in to, and the file of the password.
// how is what the [[destination]] of localhost says besides.
func smarthost(t testing.TB, address, how string) (config, passwordFile string) {
	t.Helper()
	passwordFile = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(passwordFile, []byte(smarthostPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config = strings.Replace(basics, "[[destination]]", "[[destination]]\nmatch = \"localhost\"\n"+how+"\n[[destination]]", 1)
	config += fmt.Sprintf("[smarthost]\naddress = %q\nusername = \"gateway@example.org\"\npassword_file = %q\n", address, passwordFile)
	return config, passwordFile
}

// local is an address of 127.0.0.1 by its name, as certificates want it.
func local(addr string) string { return "localhost:" + port(addr) }

// pems writes a certificate and its key into files.
func pems(t testing.TB, c tls.Certificate) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func pin(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A smarthost that is Postfix with SASL by Dovecot, TLS from a private CA, and AUTH LOGIN
// alone. It takes mail from nobody who has not logged in. A wrong password defers; the
// right one, written into the file, is used by the next attempt.
func TestSmarthostPostfixWithLogin(t *testing.T) {
	t.Parallel()
	d := newDovecot(t, []string{"gateway@example.org"}, "")
	ca := smtptest.NewCA(t)
	cert, key := pems(t, ca.Issue(t, nil, nil, "localhost"))
	p := virtualPostfix(t, "elsewhere.test", []string{"bob", "carol"}, fmt.Sprintf(`smtpd_tls_security_level = may
smtpd_tls_cert_file = %s
smtpd_tls_key_file = %s
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %s
smtpd_sasl_mechanism_filter = login
smtpd_sasl_authenticated_header = yes
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_tls_received_header = yes
smtpd_error_sleep_time = 0
`, cert, key, d.authSocket))
	p.start(t, "")
	config, passwordFile := smarthost(t, local(p.addr), fmt.Sprintf("tls = \"required\"\nca_file = %q", ca.File))
	if err := os.WriteFile(passwordFile, []byte("not the password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, config)
	_, id := swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test,carol@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, odd))
	line := g.log.wait(t, "deferred", has("id", id))
	if line["status"] != "4.7.8" || !strings.Contains(fmt.Sprint(line["reply"]), "535") {
		t.Errorf("a wrong password: %v", line)
	}
	if err := os.WriteFile(passwordFile, []byte(smarthostPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.settled()
	g.must("queue", "retry", "--all")
	g.log.wait(t, "delivered", has("id", id, "to", "bob@elsewhere.test"))
	g.log.wait(t, "delivered", has("id", id, "to", "carol@elsewhere.test"))
	for _, user := range []string{"bob", "carol"} {
		m := string(maildirFiles(t, p.mailbox(user), 1)[0])
		untouched(t, []byte(m), []byte(odd))
		if !strings.Contains(m, "(Authenticated sender: gateway@example.org)") || !strings.Contains(m, "TLSv1.3") {
			t.Errorf("Postfix saw no log-in through TLS:\n%.900s", m)
		}
	}
	if strings.Contains(g.log.tail(1000), "secret of") || strings.Contains(g.log.tail(1000), "not the password") {
		t.Error("the password is in the log")
	}
}

// A submission service that is Dovecot's, with AUTH PLAIN: once with STARTTLS and a pinned
// certificate that nobody signed for this name, once with TLS from the first byte.
func TestSmarthostDovecotSubmission(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	ca := smtptest.NewCA(t)
	issued := ca.Issue(t, nil, nil, "another.example")
	cert, key := pems(t, issued)
	implicit := freePort(t)
	d := newDovecot(t, []string{"gateway@example.org"}, fmt.Sprintf(`ssl = required
ssl_cert = <%s
ssl_key = <%s
submission_relay_host = 127.0.0.1
submission_relay_port = %s
service submission-login {
  inet_listener submissions {
    port = %s
    ssl = yes
  }
}
`, cert, key, port(sink.Addr()), port(implicit)))
	for i, address := range []string{local(d.submission), "smtps://" + local(implicit)} {
		config, _ := smarthost(t, address, fmt.Sprintf("tls = \"required\"\npin = %q", pin(issued)))
		g := start(t, config)
		_, id := swaksOK(t, g.addr[0], "--from", "alice@example.org", "--to", "bob@elsewhere.test", "--no-data-fixup", "--data", "@"+wireFile(t, odd))
		g.log.wait(t, "delivered", has("id", id))
		m := sink.Wait(t, i+1, patience)[i]
		untouched(t, m.Data, []byte(odd))
		if m.From != "alice@example.org" || m.To[0] != "bob@elsewhere.test" {
			t.Errorf("envelope: %s %v", m.From, m.To)
		}
	}
	log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	if n := strings.Count(string(log), "submission-login: Info: Login: user=<gateway@example.org>, method=PLAIN"); n != 2 {
		t.Errorf("%d log-ins", n)
	}
}

// T-05, N-20: without TLS that can be trusted nothing is said that is worth anything: no
// user name, no password, no sender, no message. The mail waits.
func TestN20NoCredentialsWithoutTrust(t *testing.T) {
	t.Parallel()
	ca, other := smtptest.NewCA(t), smtptest.NewCA(t)
	good := ca.Issue(t, nil, nil, "localhost")
	conf := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	trusts := fmt.Sprintf("tls = \"required\"\nca_file = %q", ca.File)
	for _, tc := range []struct {
		name, how, status string
		server            *tls.Config
	}{
		{"another CA", trusts, "4.7.5", conf(other.Issue(t, nil, nil, "localhost"))},
		{"another name", trusts, "4.7.5", conf(ca.Issue(t, nil, nil, "smtp.example"))},
		{"not pinned", "tls = \"required\"\npin = \"" + pin(other.Issue(t, nil, nil, "localhost")) + "\"", "4.7.5", conf(good)},
		{"system CAs", "tls = \"required\"", "4.7.5", conf(good)},
		{"a log-in makes it required", "", "4.7.5", conf(good)},
		{"no STARTTLS", trusts, "4.7.4", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			fake := smtptest.New(t, smtptest.Options{TLS: tc.server, Users: map[string]string{"gateway@example.org": smarthostPassword}})
			config, _ := smarthost(t, local(fake.Addr()), tc.how)
			g := start(t, config)
			id := g.deliver("alice@example.org", []string{"bob@elsewhere.test"}, "Subject: private\r\n\r\nprivate")
			line := g.log.wait(t, "deferred", has("id", id))
			if line["status"] != tc.status {
				t.Errorf("deferred with %v %v, want %s", line["status"], line["reply"], tc.status)
			}
			if n := len(fake.Messages()); n != 0 {
				t.Errorf("%d messages", n)
			}
			for _, l := range fake.Lines() {
				verb, _, _ := strings.Cut(l.Text, " ")
				if verb != "EHLO" && verb != "STARTTLS" && verb != "QUIT" {
					t.Errorf("said %q (TLS %v)", l.Text, l.TLS)
				}
				if strings.Contains(l.Text, base64.StdEncoding.EncodeToString([]byte("gateway@example.org"))[:20]) {
					t.Errorf("user name in %q", l.Text)
				}
			}
			g.settled()
			if q := g.queue(); len(q) != 1 || q[0].State != "pending" {
				t.Errorf("queue: %v", q)
			}
		})
	}
}

// The same fake gets the log-in when there is every reason to trust it: what the test above
// finds missing would be seen.
func TestN20CredentialsWithTrust(t *testing.T) {
	t.Parallel()
	ca := smtptest.NewCA(t)
	fake := smtptest.New(t, smtptest.Options{TLS: ca.Config(t, "localhost"), Users: map[string]string{"gateway@example.org": smarthostPassword}})
	config, _ := smarthost(t, local(fake.Addr()), fmt.Sprintf("tls = \"required\"\nca_file = %q", ca.File))
	g := start(t, config)
	g.deliver("alice@example.org", []string{"bob@elsewhere.test"}, "Subject: private\r\n\r\nprivate")
	if m := fake.Wait(t, 1, patience)[0]; m.User != "gateway@example.org" || !m.TLS {
		t.Errorf("user %q, TLS %v", m.User, m.TLS)
	}
}

// N-16: of two smarthosts the second is used when the first is dead or does not accept the
// log-in.
func TestN16SmarthostFailover(t *testing.T) {
	t.Parallel()
	ca := smtptest.NewCA(t)
	users := map[string]string{"gateway@example.org": smarthostPassword}
	second := smtptest.New(t, smtptest.Options{TLS: ca.Config(t, "localhost"), Users: users})
	refuses := smtptest.New(t, smtptest.Options{TLS: ca.Config(t, "localhost"), Users: map[string]string{}})
	for i, first := range []string{deadEnd(t), refuses.Addr()} {
		config, _ := smarthost(t, "?", fmt.Sprintf("tls = \"required\"\nca_file = %q", ca.File))
		config = strings.Replace(config, `address = "?"`, fmt.Sprintf("address = [%q, %q]", local(first), local(second.Addr())), 1)
		g := start(t, config)
		id := g.deliver("alice@example.org", []string{"bob@elsewhere.test"}, "Subject: x\r\n\r\nbody")
		second.Wait(t, i+1, patience)
		if line := g.log.wait(t, "delivered", has("id", id)); line["attempt"] != 1.0 {
			t.Errorf("delivered by attempt %v", line["attempt"])
		}
	}
	if n := len(second.Messages()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

// A password that everybody can read is refused, by the check, at the start and at a reload,
// with the name of the file and what to do.
func TestPasswordFileForEverybody(t *testing.T) {
	t.Parallel()
	config, passwordFile := smarthost(t, "localhost:587", "")
	g := start(t, config)
	if err := os.Chmod(passwordFile, 0o644); err != nil {
		t.Fatal(err)
	}
	want := "chmod 600 " + passwordFile
	for _, command := range []string{"check", "serve"} {
		if out, code := g.run(command); code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "postern.toml:") {
			t.Errorf("%s: exit code %d, want 1 and %q in\n%s", command, code, want, out)
		}
	}
	g.cmd.Process.Signal(syscall.SIGHUP)
	line := g.log.wait(t, "configuration not reloaded, the old one stays in force", nil)
	if !strings.Contains(fmt.Sprint(line["error"]), want) {
		t.Errorf("reload: %v", line)
	}
}
