package main_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// detailing is a gateway that runs scripts for recipients behind a Dovecot, and files over LMTP.
func detailing(t *testing.T, d *dovecot) *gateway {
	t.Helper()
	return start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "lmtp://%s"
recipients = "any"
planner = "sieve"
folders = "detail"
[[plugin]]
name = "sieve"
`, d.lmtp))
}

// in is what is in a folder of the one who has logged in.
func (c *imapClient) in(folder string) [][]byte {
	c.t.Helper()
	c.cmd("SELECT " + folder)
	return c.messages()
}

// A folder reaches Dovecot as the detail of the address, whatever is in its name; one that is not
// there, or that no address can name, is the inbox.
func TestFoldersOverLMTP(t *testing.T) {
	t.Parallel()
	d := newDovecot(t, []string{"alice@example.org", "bob@example.org"}, "lmtp_save_to_detail_mailbox = yes\nnamespace inbox {\n  inbox = yes\n  separator = /\n}\n")
	g := detailing(t, d)
	c := d.login(t, "alice@example.org")
	there := []string{"Work", "My Folder", " a  b ", `a"b`, `a\b`, "a/b/c", "a+b", "x@y", "'x' (y), <z>; ", "&AOQ-"}
	quoted := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	for i, name := range there {
		imapName := strings.ReplaceAll(name, "&AOQ-", "&-AOQ-") // RFC 3501 §5.1.3
		c.cmd("CREATE " + quoted(imapName))
		g.script("alice@example.org", "require \"fileinto\";\nfileinto "+quoted(name)+";\n")
		text := fmt.Sprintf("Subject: number %d\r\n\r\nbody", i)
		g.log.wait(t, "delivered", has("id", g.deliver("from@example.net", []string{"alice@example.org"}, text)))
		if all := c.in(quoted(imapName)); len(all) != 1 || !bytes.Contains(all[0], []byte(text)) {
			t.Errorf("%q has %q", name, all)
		}
	}
	for i, name := range []string{"none", "a//b", "../x", "work", "ä", strings.Repeat("x", 70), strings.Repeat("y", 300)} {
		g.script("alice@example.org", "require \"fileinto\";\nfileinto "+quoted(name)+";\n")
		g.log.wait(t, "delivered", has("id", g.toAlice(fmt.Sprint("missing ", i))))
		if all := c.in("INBOX"); len(all) != i+1 {
			t.Errorf("%q: the inbox has %d messages", name, len(all))
		}
	}
	// One transaction, and each recipient's own folder.
	g.script("alice@example.org", "require \"fileinto\";\nfileinto \"Work\"; fileinto \"My Folder\";\n")
	g.deliver("from@example.net", []string{"alice@example.org", "bob@example.org"}, "Subject: both\r\n\r\nbody")
	g.drained()
	if n, m, k := len(c.in("Work")), len(c.in(`"My Folder"`)), len(d.login(t, "bob@example.org").messages()); n != 2 || m != 2 || k != 1 {
		t.Errorf("%d and %d messages in the folders, %d for the other recipient", n, m, k)
	}
}

// A server that refuses the address of a folder gets the message for the inbox.
func TestFoldersRefusedOverLMTP(t *testing.T) {
	t.Parallel()
	d := newDovecot(t, []string{"alice@example.org", "bob@example.org"}, "recipient_delimiter = =\n")
	g := detailing(t, d)
	g.script("alice@example.org", "require \"fileinto\";\nfileinto \"Work\";\n")
	id := g.deliver("from@example.net", []string{"alice@example.org", "bob@example.org"}, "Subject: both\r\n\r\nbody")
	g.log.wait(t, "not kept in the folder, but in the inbox", has("id", id))
	for _, to := range []string{"alice@example.org", "bob@example.org"} {
		g.log.wait(t, "delivered", has("id", id, "to", to))
		if all := d.login(t, to).messages(); len(all) != 1 {
			t.Errorf("%s has %d messages", to, len(all))
		}
	}
	g.drained()
}
