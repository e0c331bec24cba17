package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

const ldapPeople = `dn: uid=carol,dc=corp,dc=example
objectClass: inetOrgPerson
objectClass: mailPerson
uid: carol
cn: Carol
sn: C
mail: carol@corp.example
mailAlternateAddress: c.smith@corp.example
userPassword: secret of carol

dn: uid=dave,dc=corp,dc=example
objectClass: inetOrgPerson
uid: dave
cn: Dave
sn: D
mail: dave@corp.example
userPassword: secret of dave

dn: cn=staff,dc=corp,dc=example
objectClass: groupOfNames
objectClass: mailPerson
cn: staff
mail: staff@corp.example
member: uid=carol,dc=corp,dc=example
member: uid=dave,dc=corp,dc=example
member: cn=friends,dc=corp,dc=example

dn: cn=friends,dc=corp,dc=example
objectClass: nisMailAlias
cn: friends
rfc822MailMember: far@example.com
rfc822MailMember: alice@example.org
`

// withLDAP is a gateway with corp.example, whose addresses a real OpenLDAP knows; more is
// further configuration.
func withLDAP(t *testing.T, s *peertest.Slapd, more string) *gateway {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ldap.pass"), []byte(peertest.SlapdPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startIn(t, dir, withSubmission+fmt.Sprintf(`
[smarthost]
address = "127.0.0.1:1" # nobody is there
[[domain]]
name = "corp.example"
aliases = ["corp.test"]
deliver = "maildir"
directory = "ldap"
[[plugin]]
name = "ldap"
[plugin.settings]
url = %q
starttls = true
ca_file = %q
bind_dn = %q
password_file = "%s/ldap.pass"
base = "dc=corp,dc=example"
timeout = "5s"
`, s.LDAP, s.CA, peertest.SlapdReader, dir)+more)
	g.account("alice@example.org")
	return g
}

// TestLDAP: recipients, aliases, groups and passwords of a real server; and when it is away,
// "try again later".
func TestLDAP(t *testing.T) {
	t.Parallel()
	s := peertest.StartSlapd(t, ldapPeople)
	g := withLDAP(t, s, "")
	c := g.mailTo()
	for _, to := range []string{"carol@corp.example", "Carol+tag@corp.test", "c.smith@corp.example", "staff@corp.example", "postmaster@corp.example", "alice@example.org"} {
		c.cmd(250, "RCPT TO:<%s>", to)
	}
	for _, to := range []string{"nobody@corp.example", `"*)(uid=*"@corp.example`, `"*"@corp.example`, "carol@example.org"} {
		if text := c.cmd(550, "RCPT TO:<%s>", to); !strings.Contains(text, "5.1.1") {
			t.Errorf("%s: %s", to, text)
		}
	}
	c.cmd(221, "QUIT")
	g.staffGets("c.smith@corp.example")
	g.ldapLogins()

	s.Stop()
	c = g.mailTo()
	c.cmd(451, "RCPT TO:<carol@corp.example>")
	c.cmd(451, "RCPT TO:<nobody@corp.example>")
	c.cmd(250, "RCPT TO:<alice@example.org>") // not its business
	a := g.secure()
	a.cmd(250, "EHLO client.example.net")
	a.cmd(454, "AUTH PLAIN %s", plain("carol@corp.example", "secret of carol"))
	a.cmd(235, "AUTH PLAIN %s", plain("alice@example.org", "secret of alice"))
	s.Restart()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	g.ldapLogins()
}

// ldapLogins: who may log in, and who may not (C-04).
func (g *gateway) ldapLogins() {
	g.t.Helper()
	for _, l := range []struct{ user, password string }{
		{"carol@corp.example", "wrong"}, {"nobody@corp.example", "secret of carol"},
		{`"*)(uid=*"@corp.example`, "secret of carol"}, {"c.smith@corp.example", "secret of carol"},
	} {
		c := g.secure()
		c.cmd(250, "EHLO client.example.net")
		c.cmd(535, "AUTH PLAIN %s", plain(l.user, l.password))
	}
	c := g.secure()
	c.cmd(250, "EHLO client.example.net")
	c.send("AUTH PLAIN " + plain("carol@corp.example", "") + "\r\n")
	if code, text, err := c.reply(); err != nil || code < 500 {
		g.t.Errorf("an empty password: %d %s, %v", code, text, err)
	}
	c = g.secure()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(235, "AUTH PLAIN %s", plain("Carol@corp.test", "secret of carol"))
	c.cmd(553, "MAIL FROM:<dave@corp.example>") // not hers
	c.cmd(250, "MAIL FROM:<c.smith@corp.example>")
	c.cmd(250, "RCPT TO:<somebody@example.com>")
}

// TestLDAPScripts: who is known to the server has scripts like everybody else.
func TestLDAPScripts(t *testing.T) {
	t.Parallel()
	s := peertest.StartSlapd(t, ldapPeople)
	g := withLDAP(t, s, "[[plugin]]\nname = \"sieve\"\n[plugin.settings]\nmanagesieve = [\"127.0.0.1:0\"]\n")
	addr := g.log.wait(t, "service active", has("plugin", "sieve"))["listeners"].([]any)[0].(string)
	m := manageSecure(t, addr)
	m.cmd("OK", "AUTHENTICATE \"PLAIN\" %q", plainAs("carol@corp.example", "secret of carol"))
	m.cmd("OK", `PUTSCRIPT "a" "require [\"fileinto\", \"mailbox\"]; fileinto :create \"A\";"`)
	m.cmd("OK", `SETACTIVE "a"`)
	id := g.deliver("from@example.net", []string{"c.smith@corp.example"}, "Subject: x\r\n\r\nbody")
	g.log.wait(t, "delivered", has("id", id, "to", "carol@corp.example"))
	maildirFiles(t, filepath.Join(g.maildir("carol@corp.example"), ".A"), 1)
	m = manageSecure(t, addr)
	m.cmd("NO \"", "AUTHENTICATE \"PLAIN\" %q", plainAs("c.smith@corp.example", "secret of carol")) // an alias
	s.Stop()
	m.cmd("NO (TRYLATER)", "AUTHENTICATE \"PLAIN\" %q", plainAs("carol@corp.example", "secret of carol"))
}

// TestLDAPSuite: the plugin keeps the contract, also as an executable.
func TestLDAPSuite(t *testing.T) {
	t.Parallel()
	s := peertest.StartSlapd(t, ldapPeople)
	dir := t.TempDir()
	secret, settings := filepath.Join(dir, "ldap.pass"), filepath.Join(dir, "settings.toml")
	for file, text := range map[string]string{secret: peertest.SlapdPassword, settings: fmt.Sprintf("url = %q\nbase = \"dc=corp,dc=example\"\nbind_dn = %q\npassword_file = %q\n", s.LDAPI, peertest.SlapdReader, secret)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := postern(t, "", "plugin", "test", "--settings", settings, "--", binary, "plugin", "serve", "ldap"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
