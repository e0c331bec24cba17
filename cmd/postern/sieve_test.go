package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// sieving is a gateway with mailboxes, two accounts and scripts, and a sink for all other
// mail. settings are those of the plugin sieve.
func sieving(t *testing.T, base, settings string) (*gateway, *sink) {
	t.Helper()
	s := newSink(t)
	g := start(t, base+fmt.Sprintf(`
[smarthost]
address = "%s"
[[domain]]
name = "example.org"
deliver = "maildir"
[[plugin]]
name = "sieve"
[plugin.settings]
`, s.addr)+settings)
	g.account("alice@example.org")
	g.account("bob@example.org")
	return g, s
}

// script makes a script the active one of an account.
func (g *gateway) script(account, text string) {
	g.t.Helper()
	file := filepath.Join(g.t.TempDir(), "script.sieve")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	g.must("sieve", "put", account, "main", file, "--activate")
}

// folder is a folder of alice's.
func (g *gateway) folder(name string) string {
	return filepath.Join(g.maildir("alice@example.org"), "."+name)
}

func TestSieveContract(t *testing.T) {
	t.Parallel()
	sdktest.Binary(t, binary, sdktest.Args("plugin", "serve", "sieve"))
}

func TestSieveFilesInto(t *testing.T) {
	t.Parallel()
	g, _ := sieving(t, basics, "")
	id := g.toAlice("nothing yet")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	g.script("alice@example.org", `require ["fileinto", "mailbox", "imap4flags", "variables", "subaddress", "envelope"];
if header :matches "Subject" "[*] *" { fileinto :create :flags "\\Seen" "lists.${1}"; }
elsif envelope :detail "to" "work" { fileinto :create "Work"; }
elsif header "Subject" "junk" { discard; }
`)
	id = g.toAlice("[go] hello")
	g.log.wait(t, "delivered", has("id", id))
	if seen, _ := filepath.Glob(filepath.Join(g.folder("lists.go"), "cur", "*:2,S")); len(seen) != 1 {
		t.Errorf("seen are %q", seen)
	}
	id = g.deliver("from@example.net", []string{"alice+work@example.org"}, "Subject: x\r\n\r\nbody")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.folder("Work"), 1)
	g.finished(g.toAlice("junk"))
	id = g.toAlice("hello")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("alice@example.org"), 2)
}

func TestSieveCommands(t *testing.T) {
	t.Parallel()
	g, _ := sieving(t, basics, "[plugin.settings.quota]\nscripts = 2\n")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("good", "keep;\n"), file("bad", "keep;\nnonsense;\n")
	for _, step := range []struct {
		args string
		code int
		want string
	}{
		{"put alice@example.org a " + good, 0, "no script is active"},
		{"put alice@example.org b " + bad, 1, "bad:2: unknown command 'nonsense'"},
		{"put nobody@example.org a " + good, 1, "there is no account"},
		{"put alice@example.com a " + good, 1, "not a domain"},
		{"put alice@example.org b " + good + " --activate", 0, `script "b" is active`},
		{"put alice@example.org c " + good, 1, "too many scripts"},
		{"list alice@example.org --json", 0, `{"name":"b","active":true,"size":6,`},
		{"get alice@example.org b", 0, "keep;\n"},
		{"delete alice@example.org b", 1, "active"},
		{"deactivate alice@example.org", 0, "no script"},
		{"delete alice@example.org b", 0, "deleted"},
		{"activate alice@example.org b", 1, "no script of that name"},
		{"activate alice@example.org a", 0, "is active"},
		{"list alice@example.org", 0, "active"},
		{"list bob@example.org", 0, ""},
	} {
		out, code := g.run(append([]string{"sieve"}, strings.Fields(step.args)...)...)
		if code != step.code || !strings.Contains(out, step.want) {
			t.Errorf("sieve %s: exit code %d\n%s", step.args, code, out)
		}
	}
	g.stop()
	if out := g.must("sieve", "list", "alice@example.org"); !strings.HasPrefix(out, "a ") {
		t.Errorf("without a running gateway: %s", out)
	}
}

// A sender gets one reply in the period, with the null reverse-path; a script that files a copy of it has one.
func TestSieveVacation(t *testing.T) {
	t.Parallel()
	g, s := sieving(t, basics, "")
	g.script("alice@example.org", `require ["vacation", "fcc", "mailbox"];
vacation :days 3 :subject "Unterwegs ä" :from "Alice Ä <alice@example.org>" :fcc "Sent" :create "Back on Monday.
Grüße
";
`)
	mail := func(from, more string) string {
		return g.deliver(from, []string{"alice@example.org"}, "To: alice@example.org\r\nSubject: hello\r\nMessage-ID: <m1@example.net>\r\nReferences: <m0@example.net>\r\n"+more+"\r\nbody")
	}
	g.finished(mail("from@example.net", ""))
	m := s.n(t, 1)[0]
	if m.From != "" || len(m.To) != 1 || m.To[0] != "from@example.net" {
		t.Errorf("envelope %q, %q", m.From, m.To)
	}
	for _, want := range []string{"Auto-Submitted: auto-replied (vacation)\r\n", "Message-ID: <sieve.", "From: =?utf-8?b?QWxpY2Ugw4Q=?= <alice@example.org>\r\n", "To: from@example.net\r\n",
		"Subject: =?utf-8?b?VW50ZXJ3ZWdzIMOk?=\r\n", "In-Reply-To: <m1@example.net>\r\n", "References: <m0@example.net> <m1@example.net>\r\n",
		"Content-Transfer-Encoding: quoted-printable\r\n", "\r\n\r\nBack on Monday.\r\nGr=C3=BC=C3=9Fe\r\n"} {
		if !strings.Contains(m.Data, want) {
			t.Errorf("not %q in\n%s", want, m.Data)
		}
	}
	filed := string(maildirFiles(t, g.folder("Sent"), 1)[0])
	if !strings.HasPrefix(filed, "Return-Path: <>\r\n") || !strings.Contains(filed, "To: from@example.net\r\n") || !strings.HasSuffix(filed, "Back on Monday.\r\nGr=C3=BC=C3=9Fe\r\n") {
		t.Errorf("filed is\n%s", filed)
	}
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	for _, again := range []string{mail("from@example.net", ""), mail("list@example.net", "List-Id: <x.example.net>\r\n"), mail("robot@example.net", "Auto-Submitted: auto-generated\r\n"),
		mail("", ""), mail("alice@example.org", "")} {
		g.log.wait(t, "delivered", has("id", again))
	}
	g.finished(mail("other@example.net", ""))
	if got := s.n(t, 2); len(got) != 2 || got[1].To[0] != "other@example.net" {
		t.Errorf("%d replies: %+v", len(got), got[1:])
	}
}

// A redirect leaves traces; a loop ends.
func TestSieveRedirects(t *testing.T) {
	t.Parallel()
	g, s := sieving(t, basics, "")
	g.script("alice@example.org", `require ["copy", "editheader"]; addheader "X-Sorted" "yes"; redirect :copy "x@example.com";`)
	g.finished(g.toAlice("hello"))
	m := s.n(t, 1)[0]
	if m.To[0] != "x@example.com" || !strings.Contains(m.Data, "X-Sieve-Redirected-From: alice@example.org\r\n") || !strings.Contains(m.Data, "\r\nX-Sorted: yes\r\n") {
		t.Errorf("redirected: %+v", m)
	}
	kept := string(maildirFiles(t, g.maildir("alice@example.org"), 1)[0])
	if !strings.Contains(kept, "\r\nX-Sorted: yes\r\n") {
		t.Errorf("kept is\n%s", kept)
	}
	g.script("alice@example.org", `redirect "bob@example.org";`)
	g.script("bob@example.org", `redirect "alice@example.org";`)
	g.finished(g.toAlice("round and round"))
	maildirFiles(t, g.maildir("alice@example.org"), 2)
	g.drained()
}

// Nobody gets a mailbox because a script, or the sender of a message, names an address of ours that does not exist;
// the message does not wait for an account that is disabled; and a group is for its members.
func TestSieveToNobody(t *testing.T) {
	t.Parallel()
	g, s := sieving(t, basics, "")
	g.must("account", "disable", "bob@example.org")
	g.account("carol@example.org")
	g.must("group", "add", "board@example.org", "carol@example.org", "--senders", "members")
	g.script("alice@example.org", `require ["enotify", "vacation", "copy", "editheader"];
redirect "nobody@example.org"; redirect "bob@example.org"; redirect "board@example.org"; notify "mailto:nobody@example.org"; notify "mailto:far@example.com"; vacation "away";`)
	g.finished(g.deliver("ghost@example.org", []string{"alice@example.org"}, "To: alice@example.org\r\nSubject: hello\r\n\r\nbody"))
	if got := s.n(t, 1); got[0].To[0] != "far@example.com" {
		t.Errorf("sent is %+v", got)
	}
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	g.drained()
	for _, nobody := range []string{"carol@example.org", "nobody@example.org", "ghost@example.org", "bob@example.org"} {
		if _, err := os.Stat(g.maildir(nobody)); !os.IsNotExist(err) {
			t.Errorf("%s has a mailbox: %v", nobody, err)
		}
	}
}

// What a script makes of a message is what is kept, in each folder as it was then; also where it is large.
func TestSieveChanges(t *testing.T) {
	t.Parallel()
	g, _ := sieving(t, basics, "")
	g.script("alice@example.org", `require ["fileinto", "mailbox", "copy", "editheader", "replace", "enclose"];
fileinto :copy :create "Before";
deleteheader "X-Bad"; addheader "X-Good" "ä";
fileinto :copy :create "Header";
enclose :subject "inside" "look inside";
`)
	large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 4000)
	id := g.deliver("from@example.net", []string{"alice@example.org"}, "Subject: hello\r\nX-Bad: 1\r\n\r\n"+strings.TrimSuffix(large, "\r\n"))
	g.finished(id)
	before := string(maildirFiles(t, g.folder("Before"), 1)[0])
	if !strings.Contains(before, "X-Bad: 1\r\n") || !strings.HasSuffix(before, "\r\n\r\n"+large) {
		t.Errorf("before are %d bytes", len(before))
	}
	header := string(maildirFiles(t, g.folder("Header"), 1)[0])
	if strings.Contains(header, "X-Bad") || !strings.Contains(header, "X-Good: =?utf-8?B?w6Q=?=\r\n") || !strings.HasSuffix(header, "\r\n\r\n"+large) {
		t.Errorf("with another header are %d bytes:\n%s", len(header), header[:500])
	}
	whole := string(maildirFiles(t, g.maildir("alice@example.org"), 1)[0])
	if !strings.Contains(whole, "Content-Type: message/rfc822\r\n\r\n") || !strings.Contains(whole, "look inside") || !strings.Contains(whole, "\r\n\r\n"+large) || !strings.Contains(whole, "Subject: inside\r\n") {
		t.Errorf("enclosed are %d bytes:\n%s", len(whole), whole[:1000])
	}
	g.drained()
	g.stop()
	files, _ := filepath.Glob(filepath.Join(g.dir, "data", "drafts", "*"))
	if len(files) != 0 {
		t.Errorf("drafts are left: %q", files)
	}
}

// A reject is told to a sender who is known, and to nobody else.
func TestSieveRejects(t *testing.T) {
	t.Parallel()
	g, s := sieving(t, basics, "")
	g.script("alice@example.org", `require "reject"; reject "I do not read this";`)
	g.log.wait(t, "failed", has("id", g.toAlice("hello")))
	if m := s.n(t, 1)[0]; m.From != "" || m.To[0] != "from@example.net" || !strings.Contains(m.Data, "I do not read this") {
		t.Errorf("report: %+v", m)
	}
	stranger, s2 := sieving(t, strings.Replace(basics, `networks = ["127.0.0.0/8"]`, "", 1), "")
	stranger.script("alice@example.org", `require "ereject"; ereject "I do not read this";`)
	line := stranger.log.wait(t, "planned", has("id", stranger.toAlice("hello")))
	if !strings.HasPrefix(fmt.Sprint(line["reason"]), "discarded: rejected by the recipient") || len(s2.mail()) != 0 {
		t.Errorf("the log says %v, sent were %d", line, len(s2.mail()))
	}
	stranger.drained()
	// A plugin vouches for the reverse-path, as mailauth does.
	vouched, s3 := sieving(t, strings.Replace(basics, `networks = ["127.0.0.0/8"]`, "", 1),
		fmt.Sprintf("[[plugin]]\nname = \"puppet\"\ncommand = %q\n[plugin.settings]\ndo = [\"note authenticated spf\"]\n", sdktest.Build(t, "../../testdata/plugins/puppet")))
	vouched.script("alice@example.org", `require "reject"; reject "I do not read this";`)
	vouched.log.wait(t, "failed", has("id", vouched.toAlice("hello")))
	if m := s3.n(t, 1)[0]; m.From != "" || m.To[0] != "from@example.net" {
		t.Errorf("report: %+v", m)
	}
}

// V-11: a script that fails keeps the message, and its owner is told once for each version of it.
func TestV11SieveFault(t *testing.T) {
	t.Parallel()
	g, _ := sieving(t, basics, "")
	box := g.maildir("alice@example.org")
	faulty := "require \"fileinto\";\nfileinto \"Lists\";\nredirect \"a@example.com\";\nredirect \"b@example.com\";\nredirect \"c@example.com\";\nredirect \"d@example.com\";\nredirect \"e@example.com\";\n"
	g.script("alice@example.org", faulty)
	g.finished(g.toAlice("one"))
	two := maildirFiles(t, box, 2) // and what she is told
	told := string(two[0]) + string(two[1])
	if !strings.Contains(told, "Subject: one\r\n") || !strings.Contains(told, "Subject: Your Sieve script \"main\" has a fault\r\n") ||
		!strings.Contains(told, "Line 7: more than 4 redirects") || !strings.Contains(told, "Auto-Submitted: auto-generated\r\n") {
		t.Errorf("got\n%s", told)
	}
	line := g.log.wait(t, "plugin says", nil)
	fields, _ := line["fields"].(map[string]any)
	if line["text"] != "script failed" || fields["line"] != "7" || fields["account"] != "alice@example.org" {
		t.Errorf("the log says %v", line)
	}
	id := g.toAlice("two")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, box, 3)
	if story := g.log.count("plugin", has("id", id, "action", "note")); story != 1 {
		t.Errorf("the trace has %d notes", story)
	}
	g.script("alice@example.org", faulty+"# another\n")
	g.finished(g.toAlice("three"))
	maildirFiles(t, box, 5)
	g.drained()
}

// Scripts of the admin run before and after, as long as the message is kept.
func TestSieveAroundOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g, _ := sieving(t, basics, fmt.Sprintf("before = %q\nafter = [%q]\n[plugin.settings.domain.\"example.org\"]\nbefore = %q\n",
		file("before", `require ["editheader", "fileinto", "mailbox"]; addheader :last "X-Order" "before"; if header "Subject" "spam" { fileinto :create "Junk"; }`),
		file("after", `require ["fileinto", "mailbox", "imap4flags"]; if header "X-Order" ["before"] { fileinto :create :flags "\\Flagged" "After"; }`),
		file("domain", `require "editheader"; addheader :last "X-Order" "domain";`)))
	g.script("alice@example.org", `require ["fileinto", "mailbox", "editheader"]; addheader :last "X-Order" "own"; if header "Subject" "mine" { fileinto :create "Mine"; }`)
	g.finished(g.toAlice("spam"))
	maildirFiles(t, g.folder("Junk"), 1)
	g.finished(g.toAlice("mine"))
	maildirFiles(t, g.folder("Mine"), 1)
	g.finished(g.toAlice("other"))
	g.drained()
	after, _ := filepath.Glob(filepath.Join(g.folder("After"), "cur", "*:2,F"))
	if len(after) != 1 {
		t.Fatalf("after are %q", after)
	}
	m, err := os.ReadFile(after[0])
	if err != nil || !strings.Contains(string(m), "X-Order: before\r\nX-Order: domain\r\nX-Order: own\r\n") {
		t.Errorf("%v\n%s", err, m)
	}
}

// V-12: a plan that was being carried out when the gateway died is carried out once.
func TestV12SieveKilled(t *testing.T) {
	t.Parallel()
	g, s := sieving(t, basics, "")
	g.script("alice@example.org", `require ["vacation", "copy"]; vacation "away"; redirect :copy "x@example.com";`)
	s.busy()
	g.finished(g.deliver("from@example.net", []string{"alice@example.org"}, "To: alice@example.org\r\nSubject: hello\r\n\r\nbody"))
	g.kill()
	s.restarted()
	s.open()
	config, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	g = startIn(t, g.dir, string(config))
	g.must("queue", "retry", "--all")
	s.n(t, 2)
	g.drained()
	if got := s.mail(); len(got) != 2 {
		t.Errorf("sent were %d", len(got))
	}
	maildirFiles(t, g.maildir("alice@example.org"), 1)
}

// Scripts of the gateway decide before a message is accepted.
func TestSieveGateway(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "gateway.sieve")
	if err := os.WriteFile(script, []byte(`require ["reject", "fileinto", "editheader", "copy", "envelope", "environment"];
if header "Subject" "refuse" { reject "not here"; }
elsif header "Subject" "drop" { discard; }
elsif header "Subject" "hold" { fileinto "suspects"; }
elsif header "Subject" "also" { redirect :copy "x@example.com"; }
elsif header "Subject" "instead" { redirect "x@example.com"; }
elsif allof (header "Subject" "bob", envelope "to" "bob@example.org") { redirect :copy "y@example.com"; }
if environment "location" "MTA" { deleteheader "X-Bad"; addheader "X-Seen" "yes"; }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	g, s := sieving(t, basics, fmt.Sprintf("gateway = %q\n", script))
	box := g.maildir("alice@example.org")
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<from@example.net>")
	c.cmd(250, "RCPT TO:<alice@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: refuse\r\n\r\nbody\r\n.\r\n")
	if text := c.expect(550); !strings.Contains(text, "not here") {
		t.Errorf("refused with %q", text)
	}
	g.toAlice("drop")
	if q := g.queue(); len(q) != 0 {
		t.Errorf("left are %+v", q)
	}
	g.toAlice("hold")
	if q := g.queue(); len(q) != 1 || q[0].State != "held" || !strings.Contains(q[0].Reason, "suspects") {
		t.Errorf("the queue has %+v", q)
	}
	id := g.toAlice("also\r\nX-Bad: 1")
	g.log.wait(t, "delivered", has("id", id, "to", "alice@example.org"))
	m := string(maildirFiles(t, box, 1)[0])
	if !strings.Contains(m, "X-Seen: yes\r\n") || strings.Contains(m, "X-Bad") {
		t.Errorf("kept is\n%s", m)
	}
	if got := s.n(t, 1)[0]; got.To[0] != "x@example.com" || !strings.HasPrefix(got.From, "SRS0=") {
		t.Errorf("sent: %+v", got)
	}
	g.toAlice("instead")
	s.n(t, 2)
	g.deliver("from@example.net", []string{"alice@example.org", "bob@example.org"}, "Subject: bob\r\n\r\nbody")
	if got := s.n(t, 3)[2]; got.To[0] != "y@example.com" {
		t.Errorf("sent: %+v", got)
	}
	maildirFiles(t, box, 2)
	maildirFiles(t, g.maildir("bob@example.org"), 1)
}

// In front of another server a folder is the detail of the address there, or the inbox where that
// server has no such folder.
func TestSieveInFrontOfAServer(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	g := start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "smtp://%s"
recipients = "any"
planner = "sieve"
folders = "detail"
[[plugin]]
name = "sieve"
`, s.addr))
	g.script("alice@example.org", `require ["fileinto", "vacation"];
if header "Subject" "lists" { fileinto "Lists/Go"; } elsif header "Subject" "wide" { fileinto "ä"; } elsif header "Subject" "none" { fileinto "None"; } elsif header "Subject" "drop" { discard; }`)
	s.script(func(verb, line string) string {
		if verb == "RCPT" && strings.Contains(line, "+None@") {
			return "550 5.1.1 no such folder"
		}
		return ""
	})
	for i, step := range []struct{ subject, to string }{{"lists", "alice+Lists/Go@example.org"}, {"wide", "alice+ä@example.org"}, {"none", "alice@example.org"}, {"hello", "alice@example.org"}} {
		g.toAlice(step.subject)
		if got := s.n(t, i+1)[i]; got.To[0] != step.to || got.From != "from@example.net" {
			t.Errorf("%s: %+v", step.subject, got)
		}
	}
	g.finished(g.toAlice("drop"))
	id := g.deliver("from@example.net", []string{"alice@example.org", "bob@example.org"}, "Subject: lists\r\n\r\nbody")
	g.log.wait(t, "delivered", has("id", id, "to", "bob@example.org"))
	g.drained()
	var to []string
	for _, m := range s.mail()[4:] {
		to = append(to, m.To...)
	}
	if strings.Join(to, " ") != "alice+Lists/Go@example.org bob@example.org" {
		t.Errorf("sent to %q", to)
	}
}
