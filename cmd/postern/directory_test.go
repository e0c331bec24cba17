package main_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// withDirectory is a gateway with corp.example, whose addresses a plugin knows, and
// example.org with accounts of its own.
func withDirectory(t *testing.T, settings string) *gateway {
	t.Helper()
	g := start(t, withSubmission+fmt.Sprintf(`
[smarthost]
address = "127.0.0.1:1" # nobody is there
[[domain]]
name = "corp.example"
aliases = ["corp.test"]
deliver = "maildir"
directory = "ldap"
[[plugin]]
name = "ldap"
command = %q
[plugin.settings]
users = {carol = "secret of carol", dave = "secret of dave"}
aliases = {staff = ["carol@corp.example", "dave@corp.test", "alice@example.org", "far@example.com", "nobody@corp.example"], loop = ["pool@corp.example"], pool = ["loop@corp.example"]}
`, sdktest.Build(t, "../../testdata/plugins/directory"))+settings)
	g.account("alice@example.org")
	return g
}

// staffGets: one message for a group and for carol, by a name of hers, gets to each of its
// members once.
func (g *gateway) staffGets(carol string) {
	g.t.Helper()
	id := g.deliver("from@example.net", []string{"staff@corp.test", carol}, "Subject: x\r\n\r\nbody")
	for _, to := range []string{"carol@corp.example", "dave@corp.example", "alice@example.org"} {
		g.log.wait(g.t, "delivered", has("id", id, "to", to))
		maildirFiles(g.t, g.maildir(to), 1)
	}
	if q := g.queue(); len(q) != 1 || q[0].Recipient != "far@example.com" {
		g.t.Errorf("the queue has %+v", q)
	}
}

// secure is a client of the submission listener inside TLS.
func (g *gateway) secure() *client {
	g.t.Helper()
	c := dial(g.t, g.addr[1])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(220, "STARTTLS")
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		g.t.Fatal(err)
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return c
}

func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

func TestDirectoryPluginResolves(t *testing.T) {
	t.Parallel()
	g := withDirectory(t, "")
	c := g.mailTo()
	for _, to := range []string{"carol@corp.example", "Carol@corp.test", "staff@corp.example", "postmaster@corp.example", "alice@example.org"} {
		c.cmd(250, "RCPT TO:<%s>", to)
	}
	for _, to := range []string{"nobody@corp.example", "carol@example.org", "loop@corp.example", "alice@corp.example"} {
		if text := c.cmd(550, "RCPT TO:<%s>", to); !strings.Contains(text, "5.1.1") {
			t.Errorf("%s: %s", to, text)
		}
	}
	c.cmd(221, "QUIT")
	g.staffGets("carol@corp.example")
}

func TestDirectoryPluginChecksPasswords(t *testing.T) {
	t.Parallel()
	g := withDirectory(t, "")
	c := g.secure()
	if text := c.cmd(250, "EHLO client.example.net"); !strings.Contains(text, "\nAUTH PLAIN LOGIN\n") {
		t.Errorf("offered is\n%s", text)
	}
	c.cmd(535, "AUTH PLAIN %s", plain("carol@corp.example", "wrong"))
	c.cmd(535, "AUTH PLAIN %s", plain("nobody@corp.example", "x"))
	c.cmd(235, "AUTH PLAIN %s", plain("Carol@corp.test", "secret of carol"))
	c.cmd(553, "MAIL FROM:<dave@corp.example>") // not hers
	c.cmd(250, "MAIL FROM:<carol@corp.example>")
	c.cmd(250, "RCPT TO:<somebody@example.com>")
	c = g.secure()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(334, "AUTH LOGIN")
	c.cmd(334, "%s", base64.StdEncoding.EncodeToString([]byte("dave@corp.example")))
	c.cmd(235, "%s", base64.StdEncoding.EncodeToString([]byte("secret of dave")))
	c = g.secure()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(235, "AUTH PLAIN %s", plain("alice@example.org", "secret of alice"))
	if n := g.log.count("log-in failed", nil); n != 2 {
		t.Errorf("%d failures are counted", n)
	}
}

// A directory that fails is "try again later", never "no such user" or "wrong password".
func TestDirectoryPluginFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "fail")
	g := withDirectory(t, fmt.Sprintf("fail_if = %q\n", file))
	c := g.mailTo()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.cmd(451, "RCPT TO:<nobody@corp.example>")
	c.cmd(250, "RCPT TO:<alice@example.org>") // not its business
	c.cmd(354, "DATA")
	c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
	c.expect(451)
	s := g.secure()
	s.cmd(250, "EHLO client.example.net")
	s.cmd(454, "AUTH PLAIN %s", plain("carol@corp.example", "secret of carol"))
	s.cmd(235, "AUTH PLAIN %s", plain("alice@example.org", "secret of alice"))
	if q := g.queue(); len(q) != 0 {
		t.Errorf("the queue has %+v", q)
	}
}

// A directory that dies of each question is "try again later" too: no session ends, and when it
// lives again, its addresses are there.
func TestG01DirectoryDies(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "fail")
	g := withDirectory(t, fmt.Sprintf("fail_if = %q\n", file))
	c, s := dial(t, g.addr[0]), g.secure()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<from@example.net>")
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	c.cmd(250, "RCPT TO:<dave@corp.example>")
	s.cmd(250, "EHLO client.example.net")
	if err := os.WriteFile(file, []byte("die"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.cmd(451, "RCPT TO:<nobody@corp.example>")
	s.cmd(454, "AUTH PLAIN %s", plain("carol@corp.example", "secret of carol"))
	c.cmd(250, "RCPT TO:<alice@example.org>")
	g.log.wait(t, "plugin died", has("plugin", "ldap"))
	os.Remove(file)
	g.must("plugin", "restart", "ldap") // or it waits for its restart, which is throttled
	c.cmd(250, "RCPT TO:<carol@corp.test>")
	c.cmd(550, "RCPT TO:<nobody@corp.example>")
	s.cmd(235, "AUTH PLAIN %s", plain("carol@corp.example", "secret of carol"))
}

// Its users are in its own domains.
func TestDirectoryPluginCannotLogOthersIn(t *testing.T) {
	t.Parallel()
	g := withDirectory(t, "login_as = \"alice@example.org\"\n")
	c := g.secure()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(454, "AUTH PLAIN %s", plain("carol@corp.example", "secret of carol"))
	line := g.log.wait(t, "log-in cannot be checked", nil)
	if !strings.Contains(fmt.Sprint(line["error"]), "plugin ldap") {
		t.Errorf("the log says %v", line)
	}
}
