package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// appending is a gateway that runs alice's script and stores mail in a Dovecot, which folders are made
// in if a script says so.
func appending(t *testing.T, d *peertest.Dovecot, script string) *gateway {
	t.Helper()
	pass := filepath.Join(t.TempDir(), "imap.pass")
	if err := os.WriteFile(pass, []byte(d.MasterPassword()), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "imapappend"
[[plugin]]
name = "sieve"
[[plugin]]
name = "imapappend"
[plugin.settings]
address = %q
ca_file = %q
username = %q
password_file = %q
create_folders = "asked"
`, d.IMAPS, d.CA, d.Master, pass))
	g.account("alice@example.org")
	g.script("alice@example.org", script)
	return g
}

// A script that asks whether a folder exists gets the truth about the recipient's mailbox, by
// either way of writing its name.
func TestMailboxExists(t *testing.T) {
	t.Parallel()
	g, _ := sieving(t, basics, "")
	script := `require ["fileinto", "mailbox", "special-use", "envelope"];
if mailboxexists "Work" { fileinto "Work"; }
if mailboxexists ["INBOX", "Lists.Go", "Lists/Go"] { fileinto "Lists/Go"; }
if specialuse_exists "\\Archive" { fileinto :specialuse "\\Archive" "Work"; }
if specialuse_exists "Junk" "\\Junk" { fileinto :specialuse "\\Junk" "Work"; }
`
	g.script("alice@example.org", script)
	g.log.wait(t, "delivered", has("id", g.toAlice("only what is made when it is needed")))
	maildirFiles(t, g.folder("Junk"), 1)
	for _, name := range []string{"Work", "Lists.Go", "Archive"} {
		if _, err := os.Stat(g.folder(name)); err == nil {
			t.Errorf("%s was made", name)
		}
		if err := os.MkdirAll(filepath.Join(g.folder(name), "cur"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	g.finished(g.toAlice("all of them"))
	g.drained()
	for name, n := range map[string]int{"Work": 1, "Lists.Go": 1, "Archive": 1, "Junk": 2} {
		maildirFiles(t, g.folder(name), n)
	}
	// Another one's mailbox is another question.
	g.script("bob@example.org", "require [\"fileinto\", \"mailbox\"];\nif mailboxexists \"Work\" { discard; }\n")
	id := g.deliver("from@example.net", []string{"bob@example.org"}, "Subject: x\r\n\r\nbody")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("bob@example.org"), 1)
}

// The same over IMAP. While the server is down the message waits, whatever the script would do with
// it: "discard" here.
func TestMailboxExistsInDovecot(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{More: `namespace inbox {
  inbox = yes
  mailbox Old {
    special_use = \Archive
  }
}
`})
	g := appending(t, d, `require ["fileinto", "mailbox", "special-use"];
if header "Subject" "archive" {
  if specialuse_exists "\\Archive" { fileinto :specialuse "\\Archive" "INBOX"; }
} elsif mailboxexists "Work" { fileinto "Work"; }
elsif header "Subject" "strict" { discard; }
`)
	count := func(folder string, n int) {
		t.Helper()
		if texts, _ := inFolder(t, d, "alice@example.org", folder); len(texts) != n {
			t.Errorf("%d messages in %s, want %d", len(texts), folder, n)
		}
	}
	sent := func(subject string) {
		t.Helper()
		g.log.wait(t, "delivered", has("id", g.toAlice(subject)))
	}
	sent("no such folder")
	sent("archive")
	count("INBOX", 2)
	c := d.Login(t, "alice@example.org")
	for _, name := range []string{"Work", "Old"} {
		if err := c.Create(name, nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	sent("now there is one")
	sent("archive")
	count("INBOX", 2)
	count("Work", 1)
	count("Old", 1)
	d.Stop()
	id := g.toAlice("strict")
	g.log.wait(t, "no plan for a recipient", has("id", id))
	d.Restart()
	g.log.wait(t, "delivered", has("id", id))
	count("Work", 2)
	g.drained()
	if err := d.Login(t, "alice@example.org").Delete("Work").Wait(); err != nil {
		t.Fatal(err)
	}
	g.finished(g.toAlice("strict"))
	count("INBOX", 2)
}

// What cannot tell leaves a script with the names of the settings, and with no more work.
func TestMailboxExistsBehindAServer(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	g := start(t, basics+fmt.Sprintf("[[domain]]\nname = \"example.org\"\ndeliver = \"smtp://%s\"\nrecipients = \"any\"\nplanner = \"sieve\"\nfolders = \"detail\"\n[[plugin]]\nname = \"sieve\"\n", s.addr))
	g.script("alice@example.org", `require ["fileinto", "mailbox", "special-use"];
if mailboxexists "Work" { discard; } elsif mailboxexists "Trash" { fileinto :specialuse "\\Junk" "Other"; }
`)
	g.toAlice("hello")
	if got := s.n(t, 1)[0]; got.To[0] != "alice+Junk@example.org" {
		t.Errorf("%+v", got)
	}
}

// A mailbox that does not answer in time makes the message wait, and nobody takes the planner for slow.
func TestMailboxHangs(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	pass := filepath.Join(t.TempDir(), "imap.pass")
	if err := os.WriteFile(pass, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "imapappend"
[[plugin]]
name = "sieve"
timeout = "2s"
[[plugin]]
name = "imapappend"
[plugin.settings]
address = %q
tls = "none"
username = "postern"
password_file = %q
`, silent.Addr(), pass))
	g.account("alice@example.org")
	g.script("alice@example.org", "require \"mailbox\";\nif mailboxexists \"Work\" { discard; }\n")
	id := g.toAlice("hello")
	line := g.log.wait(t, "no plan for a recipient", has("id", id))
	if !strings.Contains(fmt.Sprint(line["error"]), "plugin sieve: error: ") || !strings.Contains(fmt.Sprint(line["error"]), "the mailbox does not say which folders it has") {
		t.Errorf("%v", line["error"])
	}
	g.log.wait(t, "deferred", has("id", id))
	if n := g.log.count("plugin failed", has("plugin", "sieve", "reason", "timeout")); n != 0 {
		t.Error("the planner was taken for slow")
	}
}
