package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/sdk/sdktest"
	"github.com/postern-mail/postern/sdk/sdktest/peertest"
)

// inFolder is what is in a folder: texts, and flags.
func inFolder(t testing.TB, d *peertest.Dovecot, user, folder string) (texts [][]byte, flags []string) {
	t.Helper()
	c := d.Login(t, user)
	defer c.Close()
	data, err := c.Select(folder, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil || data.NumMessages == 0 {
		return nil, nil
	}
	var all imap.SeqSet
	all.AddRange(1, 0)
	section := &imap.FetchItemBodySection{Peek: true}
	msgs, err := c.Fetch(all, &imap.FetchOptions{Flags: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		texts = append(texts, m.FindBodySection(section))
		flags = append(flags, fmt.Sprint(m.Flags))
	}
	return texts, flags
}

// A full mailbox is refused at RCPT, with the size that the client declares; others are not
// hurt by it; what was accepted all the same waits until there is room; the owner is told.
func TestQuotaAtRcpt(t *testing.T) {
	t.Parallel()
	g := start(t, basics+"[[domain]]\nname = \"example.org\"\ndeliver = \"maildir\"\n[[plugin]]\nname = \"maildir\"\n[plugin.settings]\nquota = \"100KiB\"\n")
	g.account("alice@example.org")
	g.account("bob@example.org")
	g.must("account", "quota", "alice@example.org", "20KiB")
	g.must("alias", "add", "both@example.org", "alice@example.org", "bob@example.org")
	text := "Subject: large\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 1100)
	id := g.deliver("from@example.net", []string{"alice@example.org"}, text)
	g.log.wait(t, "delivered", has("id", id))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	rcpt := func(size int, to string, want int) {
		t.Helper()
		c.cmd(250, "MAIL FROM:<from@example.net> SIZE=%d", size)
		if reply := c.cmd(want, "RCPT TO:<%s>", to); want == 452 && !strings.HasPrefix(reply, "4.2.2 ") || want == 552 && !strings.HasPrefix(reply, "5.2.3 ") {
			t.Errorf("reply %q", reply)
		}
		c.cmd(250, "RSET")
	}
	rcpt(30_000, "alice@example.org", 552)
	rcpt(10_000, "alice@example.org", 452)
	rcpt(10_000, "alice+tag@example.org", 452)
	rcpt(10_000, "bob@example.org", 250)
	rcpt(10_000, "both@example.org", 250)
	rcpt(500, "alice@example.org", 250)
	// He has been told that it is nearly full: 17.6 of 20 KiB are not 90 %, this makes it so.
	id = g.deliver("from@example.net", []string{"alice@example.org"}, "Subject: more\r\n\r\n"+strings.Repeat("0123456789abcd\r\n", 60))
	g.log.wait(t, "delivered", has("id", id))
	told := false
	for _, m := range maildirFiles(t, g.maildir("alice@example.org"), 3) {
		if bytes.Contains(m, []byte("Subject: Your mailbox is 9")) {
			told = bytes.HasPrefix(m, []byte("Return-Path: <>\r\nDelivered-To: alice@example.org\r\n")) && bytes.Contains(m, []byte("of 20 KiB"))
		}
	}
	if !told {
		t.Error("she was not told")
	}
	// Without SIZE it is accepted, and waits.
	c.cmd(250, "RSET")
	id = c.message("from@example.net", []string{"alice@example.org"}, strings.TrimSuffix(text, "\r\n"))
	line := g.log.wait(t, "mailbox delivery failed", has("id", id))
	if !strings.Contains(fmt.Sprint(line["error"]), "452 4.2.2 Mailbox full") {
		t.Errorf("%v", line)
	}
	large, _ := filepath.Glob(filepath.Join(g.maildir("alice@example.org"), "new", "*,S=1*"))
	for _, f := range large {
		os.Remove(f)
	}
	g.log.wait(t, "delivered", has("id", id))
	g.drained()
}

// Postern -> IMAP -> Dovecot: into the inbox and into folders, with flags, once, whatever
// happens to the server meanwhile.
func TestImapappendToDovecot(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{})
	dir := t.TempDir()
	pass := filepath.Join(dir, "imap.pass")
	if err := os.WriteFile(pass, []byte(d.MasterPassword()), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "imapappend"
planner = "rules"
[[plugin]]
name = "rules"
command = %q
[[plugin]]
name = "imapappend"
[plugin.settings]
address = %q
ca_file = %q
username = %q
password_file = %q
`, sdktest.Build(t, "../../testdata/plugins/planner"), d.IMAPS, d.CA, d.Master, pass))
	g.account("alice@example.org")
	body := "Subject: hello\r\n\r\n" + strings.Repeat("a line of text\r\n", 20_000)
	id := g.deliver("from@example.net", []string{"alice@example.org"}, body)
	g.log.wait(t, "delivered", has("id", id))
	texts, _ := inFolder(t, d, "alice@example.org", "INBOX")
	if len(texts) != 1 || !bytes.HasPrefix(texts[0], []byte("Return-Path: <from@example.net>\r\nDelivered-To: alice@example.org\r\nX-Postern-Delivery: <"+id)) {
		t.Fatalf("%d messages, %.300q", len(texts), texts)
	}
	untouched(t, texts[0], []byte(body+"\r\n"))
	id = g.toAlice(`keep Lists/Go \Seen $Work`)
	g.log.wait(t, "delivered", has("id", id))
	if texts, flags := inFolder(t, d, "alice@example.org", "Lists.Go"); len(texts) != 1 || !strings.Contains(fmt.Sprint(flags), `\Seen`) || !strings.Contains(fmt.Sprint(flags), "$Work") {
		t.Errorf("%d messages, flags %v", len(texts), flags)
	}
	// The server goes away: mail waits, and is there once it is back.
	d.Stop()
	id = g.toAlice("keep Lists/Go")
	g.log.wait(t, "mailbox delivery failed", has("id", id))
	d.Restart()
	g.log.wait(t, "delivered", has("id", id))
	// It dies while messages are on their way, in the middle of APPEND or before the answer.
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	const n = 20
	for i := range n {
		c.message("from@example.net", []string{"alice@example.org"}, fmt.Sprintf("Subject: number %d\r\n\r\n", i)+strings.Repeat("a line of text\r\n", 20_000))
		if i == n/2 {
			d.Stop()
			d.Restart()
		}
	}
	g.drained()
	texts, _ = inFolder(t, d, "alice@example.org", "INBOX")
	seen := map[string]int{}
	for _, m := range texts {
		_, subject, _ := bytes.Cut(m, []byte("Subject: "))
		seen[string(subject[:bytes.IndexByte(subject, '\r')])]++
	}
	for i := range n {
		if got := seen[fmt.Sprint("number ", i)]; got != 1 {
			t.Errorf("number %d is there %d times", i, got)
		}
	}
}

// Dovecot reads what the plugin has written, as the user whose the mail is, while it is being
// written, and writes into the same folders.
func TestMaildirReadByDovecot(t *testing.T) {
	t.Parallel()
	d := peertest.StartDovecot(t, peertest.DovecotOptions{Path: "%d/%n"})
	dir := t.TempDir()
	enterable(t, dir)
	enterable(t, filepath.Dir(binary))
	g := startIn(t, dir, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "maildir"
planner = "rules"
[[plugin]]
name = "rules"
command = %q
[[plugin]]
name = "maildir"
user = "%d:%d"
[plugin.settings]
path = "%s/{domain}/{local}"
quota = "100MiB"
`, sdktest.Build(t, "../../testdata/plugins/planner"), peertest.DovecotUID, peertest.DovecotGID, d.Mail))
	g.account("alice@example.org")
	id := g.toAlice("keep Lists/Go \\Flagged $Work")
	g.log.wait(t, "delivered", has("id", id))
	const n = 30
	done := make(chan error)
	for _, folder := range []string{"INBOX", "Lists.Go"} {
		c := d.Login(t, "alice@example.org")
		go func() {
			for i := range n {
				text := fmt.Sprintf("Subject: theirs %d\r\n\r\nx\r\n", i)
				cmd := c.Append(folder, int64(len(text)), &imap.AppendOptions{Flags: []imap.Flag{`\Seen`, "$Theirs"}})
				cmd.Write([]byte(text))
				cmd.Close()
				if _, err := cmd.Wait(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	large := "Subject: large\r\n\r\n" + strings.Repeat("a line of text\r\n", 20_000)
	for i := range n {
		switch i % 3 {
		case 0:
			g.toAlice("hello")
		case 1:
			g.toAlice("keep Lists/Go $Work $Other")
		default:
			g.deliver("from@example.net", []string{"alice@example.org"}, large)
		}
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	g.drained()
	inbox, _ := inFolder(t, d, "alice@example.org", "INBOX")
	folder, flags := inFolder(t, d, "alice@example.org", "Lists.Go")
	if len(inbox) != n+2*n/3 || len(folder) != 1+n+n/3 || !slices.ContainsFunc(flags, func(f string) bool { return strings.Contains(f, `\Flagged`) && strings.Contains(f, "$Work") }) {
		t.Errorf("the inbox has %d messages, the folder %d; flags %v", len(inbox), len(folder), flags)
	}
	whole := 0
	for _, m := range inbox {
		if bytes.HasSuffix(m, []byte(large[len("Subject: large"):]+"\r\n")) {
			whole++
		}
	}
	if whole != n/3 {
		t.Errorf("%d large messages are whole", whole)
	}
	log, _ := os.ReadFile(d.LogFile)
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "Error:") {
			t.Error(line)
		}
	}
}

// V-08: whatever folder a script names, the message is below the mailbox, and if it cannot be
// there it is in the inbox: never lost, never elsewhere, never returned.
func TestV08FileintoTraversal(t *testing.T) {
	t.Parallel()
	g, _ := sieving(t, basics, "")
	names := []string{"../../etc/cron.d/x", "/etc/cron.d/x", "..", ".", "a/../../b", "a//b", `..\\..\\etc`, strings.Repeat("x", 300), strings.Repeat("x", 1024), "no such folder", "Lists/made"}
	inInbox := 0
	for i, name := range names {
		create := ""
		if name != "no such folder" {
			create = ":create "
		}
		g.script("alice@example.org", "require [\"fileinto\", \"mailbox\", \"encoded-character\"];\nfileinto "+create+"\""+name+"\";\n")
		id := g.toAlice(fmt.Sprint("number ", i))
		g.log.wait(t, "delivered", has("id", id))
		if name != "Lists/made" {
			inInbox++
		}
		maildirFiles(t, g.maildir("alice@example.org"), inInbox)
	}
	maildirFiles(t, g.folder("Lists.made"), 1)
	file := filepath.Join(t.TempDir(), "long.sieve") // is not even a script
	os.WriteFile(file, []byte("require \"fileinto\";\nfileinto \""+strings.Repeat("x", 10_000)+"\";\n"), 0o600)
	if out, code := g.run("sieve", "put", "alice@example.org", "long", file); code != 1 {
		t.Errorf("a name of 10 kB: exit code %d\n%s", code, out)
	}
	g.log.wait(t, "plugin log", has("plugin", "maildir", "text", "no such folder, kept in the inbox"))
	entries, err := os.ReadDir(g.maildir("alice@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "tmp", "new", "cur", "subscriptions", ".Lists.made":
		default:
			t.Errorf("there is %q", e.Name())
		}
	}
	if others, _ := filepath.Glob(filepath.Join(g.dir, "data", "mail", "*", "*")); len(others) != 1 {
		t.Errorf("mailboxes are %q", others)
	}
	g.drained()
}
