package main_test

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
	_ "modernc.org/sqlite"
)

// people is a gateway with accounts for alice, bob and carol, whose mail for other domains
// goes to a sink.
func people(t *testing.T, more string) (*gateway, *sink) {
	t.Helper()
	s := newSink(t)
	g := start(t, withSubmission+fmt.Sprintf("[smarthost]\naddress = %q\n", s.addr)+more)
	for _, a := range []string{"alice@example.org", "bob@example.org", "carol@example.org"} {
		g.account(a)
	}
	return g, s
}

// rcpt asks about a recipient and returns the reply.
func (g *gateway) rcpt(from, to string) string {
	g.t.Helper()
	c := dial(g.t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<%s>", from)
	c.send("RCPT TO:<" + to + ">\r\n")
	code, text, err := c.reply()
	if err != nil {
		g.t.Fatal(err)
	}
	c.conn.Close()
	return fmt.Sprint(code, " ", text)
}

// inside is secure, with a greeting.
func (g *gateway) inside() *client {
	g.t.Helper()
	c := g.secure()
	c.cmd(250, "EHLO client.example.net")
	return c
}

const text = "From: x@example.net\r\nSubject: for all\r\n\r\nbody\r\n"

// Every member of a group gets one copy: an account, one behind an alias, and one elsewhere.
func TestGroupDelivery(t *testing.T) {
	t.Parallel()
	g, s := people(t, "")
	g.must("alias", "add", "robert@example.org", "bob@example.org")
	g.must("group", "add", "inner@example.org", "robert@example.org", "far@elsewhere.test")
	g.must("group", "add", "team@example.org", "alice@example.org", "inner@example.org", "bob@example.org", "FAR@elsewhere.test")
	g.deliver("x@example.net", []string{"team@example.org", "bob@example.org"}, text)
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	maildirFiles(t, g.maildir("bob@example.org"), 1)
	got := s.wait(t, "the copies elsewhere", func(m []arrived) bool { return len(m) > 0 && len(m[0].To) == 2 || len(m) == 2 })
	if n := len(maildirFiles(t, g.maildir("bob@example.org"), 1)); n != 1 {
		t.Errorf("bob has %d copies", n)
	}
	for _, m := range got {
		for _, to := range m.To {
			if !strings.EqualFold(to, "far@elsewhere.test") {
				t.Errorf("sent to %s", to)
			}
		}
	}
	// Who may send.
	g.must("group", "set", "team@example.org", "--senders", "members")
	if got := g.rcpt("alice@example.org", "team@example.org"); !strings.HasPrefix(got, "250 ") { // 127.0.0.0/8 may relay
		t.Errorf("a member: %s", got)
	}
	if got := g.rcpt("x@example.net", "team@example.org"); !strings.HasPrefix(got, "550 5.7.2 ") {
		t.Errorf("somebody else: %s", got)
	}
	c := g.inside()
	c.cmd(235, "AUTH PLAIN %s", plain("carol@example.org", "secret of carol"))
	c.cmd(250, "MAIL FROM:<carol@example.org>")
	if got := c.cmd(550, "RCPT TO:<team@example.org>"); !strings.HasPrefix(got, "5.7.2 ") {
		t.Errorf("who logged in and is no member: %s", got)
	}
	g.must("group", "member", "add", "inner@example.org", "carol@example.org")
	c = g.inside()
	c.cmd(235, "AUTH PLAIN %s", plain("carol@example.org", "secret of carol"))
	c.cmd(250, "MAIL FROM:<carol@example.org>")
	c.cmd(250, "RCPT TO:<team@example.org>")
	if out := g.must("group", "list"); !strings.Contains(out, "team@example.org (from members) -> ") {
		t.Errorf("%s", out)
	}
}

// Aliases, the catch-all, disabled accounts and what is refused, over the wire.
func TestRecipientsOverTheWire(t *testing.T) {
	t.Parallel()
	g, s := people(t, "")
	g.must("alias", "add", "info@example.org", "alice@example.org", "away@elsewhere.test")
	g.must("account", "disable", "bob@example.org")
	for _, c := range []struct{ to, want string }{
		{"info@example.org", "250 "}, {"nobody@example.org", "550 5.1.1 "}, {"bob@example.org", "550 5.2.1 "}, {"postmaster@example.org", "250 "},
	} {
		if got := g.rcpt("x@example.net", c.to); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.to, got, c.want)
		}
	}
	c := g.inside()
	for _, user := range []string{"info@example.org", "bob@example.org"} { // an alias and a disabled account do not log in
		c.cmd(535, "AUTH PLAIN %s", plain(user, "secret of "+strings.Split(user, "@")[0]))
	}
	g.deliver("x@example.net", []string{"info@example.org"}, text)
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	s.wait(t, "the copy elsewhere", func(m []arrived) bool { return len(m) == 1 && m[0].To[0] == "away@elsewhere.test" })
	g.must("alias", "add", "@example.org", "carol@example.org")
	g.must("account", "enable", "bob@example.org")
	g.deliver("x@example.net", []string{"nobody@example.org", "bob@example.org"}, text)
	maildirFiles(t, g.maildir("carol@example.org"), 1)
	maildirFiles(t, g.maildir("bob@example.org"), 1)
	// What cannot be.
	for _, line := range []struct{ args, want string }{
		{"alias add a@example.org a@example.org", "leads to itself"},
		{"alias add info@example.org info+x@example.org", "leads back to itself"},
		{"group add alice@example.org bob@example.org", "an account of that address exists already"},
		{"group add g@example.com", "domain example.com: does not exist"},
		{"account quota nobody@example.org 5GiB", "does not exist"},
		{"account quota alice@example.org much", "is not a size"},
		{"account set alice@example.org BAD x", "a key has up to"},
		{"alias remove info@example.org", "or --all"},
		{"rewrite add a@example.org b@example.org", "give --sender or --recipient"},
	} {
		if out, code := g.run(strings.Fields(line.args)...); code == 0 || !strings.Contains(out, line.want) {
			t.Errorf("%s: exit code %d\n%s", line.args, code, out)
		}
	}
	g.must("alias", "remove", "@example.org", "--all")
	if out, code := g.run("alias", "add", "y@example.org", "nobody@example.org"); code == 0 || !strings.Contains(out, "nobody@example.org does not exist") {
		t.Errorf("%d %s", code, out)
	}
}

// A loop that came about later (an alias was changed behind the back of the check) is met:
// the others get their mail, and the log says so.
func TestLoopIsMet(t *testing.T) {
	t.Parallel()
	g, _ := people(t, "")
	g.must("alias", "add", "b@example.org", "alice@example.org")
	g.must("alias", "add", "a@example.org", "b@example.org", "bob@example.org")
	db, err := sql.Open("sqlite", filepath.Join(g.dir, "data", "directory.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO aliases (domain, local, target) VALUES ('example.org', 'b', 'a@example.org')`); err != nil {
		t.Fatal(err)
	}
	g.must("account", "add", "b2@example.org")
	g.must("alias", "add", "c@example.org", "b2@example.org", "carol@example.org")
	g.must("account", "remove", "b2@example.org")
	g.deliver("x@example.net", []string{"c@example.org", "a@example.org"}, text)
	for _, who := range []string{"alice", "bob", "carol"} {
		maildirFiles(t, g.maildir(who+"@example.org"), 1)
	}
	g.log.wait(t, "aliases lead round in a circle", has("address", "a@example.org", "from", "a@example.org"))
	g.log.wait(t, "an alias leads to an address that does not exist", has("address", "b2@example.org", "from", "c@example.org"))
}

// Senders and recipients are rewritten once, recipients in front of aliases.
func TestRewriting(t *testing.T) {
	t.Parallel()
	g, s := people(t, "")
	g.must("rewrite", "add", "--recipient", "@old.test", "@example.org")
	g.must("rewrite", "add", "--recipient", "gone@example.org", "gone@elsewhere.test")
	g.must("rewrite", "add", "--sender", "@host.example.org", "@example.org")
	g.must("alias", "add", "info@example.org", "alice@example.org")
	g.deliver("root@host.example.org", []string{"info@old.test", "bob@old.test", "gone@example.org"}, text)
	m := maildirFiles(t, g.maildir("alice@example.org"), 1)
	if !strings.HasPrefix(string(m[0]), "Return-Path: <root@example.org>\r\nDelivered-To: alice@example.org\r\n") {
		t.Errorf("begins with %.120q", m[0])
	}
	maildirFiles(t, g.maildir("bob@example.org"), 1)
	s.wait(t, "what is sent on", func(m []arrived) bool { return len(m) == 1 && m[0].To[0] == "gone@elsewhere.test" })
	if got := g.rcpt("x@example.net", "nobody@old.test"); !strings.HasPrefix(got, "550 5.1.1 ") {
		t.Errorf("nobody: %s", got)
	}
	if out := g.must("rewrite", "list", "--json"); !strings.Contains(out, `{"kind":"recipient","from":"@old.test","to":"@example.org"}`) {
		t.Errorf("%s", out)
	}
	g.must("rewrite", "remove", "--recipient", "@old.test")
	g.log.wait(t, "ready", nil)
}

// A domain of the directory is in force without a restart, and so is its end.
func TestStoredDomain(t *testing.T) {
	t.Parallel()
	g, s := people(t, "")
	g.must("domain", "add", "stored.test", "--deliver", "maildir", "--alias", "also.test", "--quota", "5GiB", "--postmaster", "alice@example.org")
	g.log.wait(t, "domains of the directory are in force", nil)
	g.account("dora@stored.test")
	g.deliver("x@example.net", []string{"dora@also.test", "postmaster@stored.test"}, text)
	maildirFiles(t, g.maildir("dora@stored.test"), 1)
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	n := g.log.len()
	g.must("domain", "add", "behind.test", "--deliver", "smtp://"+s.addr, "--recipients", "any")
	g.log.waitFrom(t, n, "domains of the directory are in force", nil)
	g.deliver("x@example.net", []string{"anybody@behind.test"}, text)
	s.wait(t, "mail for the server behind", func(m []arrived) bool { return len(m) == 1 && m[0].To[0] == "anybody@behind.test" })
	if out := g.must("account", "show", "dora@stored.test", "--json"); !strings.Contains(out, `"quota_bytes":5368709120`) {
		t.Errorf("the domain's quota is not in %s", out)
	}
	n = g.log.len()
	g.must("domain", "set", "stored.test", "--alias", "", "--catch-all", "bob@example.org")
	g.log.waitFrom(t, n, "domains of the directory are in force", nil)
	if got := g.rcpt("x@example.net", "whoever@stored.test"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("the catch-all: %s", got)
	}
	out := g.must("domain", "list")
	for _, want := range []string{"example.org -> maildir", "(configuration)", "stored.test -> maildir, recipients directory, postmaster alice@example.org, catch-all bob@example.org, quota 5GiB (directory)\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	g.stop() // and it is there after a restart
	g = startIn(t, g.dir, read(t, g.file))
	g.deliver("x@example.net", []string{"dora@stored.test"}, text)
	maildirFiles(t, g.maildir("dora@stored.test"), 2)
	if out, code := g.run("domain", "remove", "stored.test"); code == 0 || !strings.Contains(out, "--with-accounts") {
		t.Errorf("%d %s", code, out)
	}
	g.must("domain", "remove", "stored.test", "--with-accounts")
	g.log.wait(t, "domains of the directory are in force", nil)
	c := g.inside()
	c.cmd(235, "AUTH PLAIN %s", plain("alice@example.org", "secret of alice"))
	for _, line := range []struct{ args, want string }{
		{"domain add stored.test", "postern: domain stored.test: deliver: is missing"},
		{"domain add stored.test --deliver nothing", "no mailbox plugin"},
		{"domain add stored.test --deliver http://x", "deliver"},
		{"domain add stored.test --deliver maildir --planner none-such", "there is no plugin"},
		{"domain add example.org --deliver maildir", "domain example.org: is declared in the configuration"},
		{"domain set other.test", "postern domain set"},
		{"domain set also.test --recipients some", "does not exist"},
		{"domain set example.org --quota 5GiB", "is declared in the configuration"},
		{"domain add stored.test --deliver maildir --recipients some", "recipients"},
	} {
		if out, code := g.run(strings.Fields(line.args)...); code == 0 || !strings.Contains(out, line.want) {
			t.Errorf("%s: exit code %d\n%s", line.args, code, out)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// scramLogin logs in with another implementation of SCRAM-SHA-256, and returns the reply.
func scramLogin(t *testing.T, c *client, user, password string) (int, string) {
	t.Helper()
	conf, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	conversation := conf.NewConversation()
	first, err := conversation.Step("")
	if err != nil {
		t.Fatal(err)
	}
	line := "AUTH SCRAM-SHA-256 " + base64.StdEncoding.EncodeToString([]byte(first))
	for {
		c.send(line + "\r\n")
		code, text, err := c.reply()
		if err != nil {
			t.Fatal(err)
		}
		if code != 334 {
			if code == 235 && !conversation.Valid() {
				t.Error("the server did not prove itself")
			}
			return code, text
		}
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatalf("challenge %q: %v", text, err)
		}
		answer, err := conversation.Step(string(challenge))
		if err != nil {
			t.Fatalf("the client is not content with %q: %v", challenge, err)
		}
		line = base64.StdEncoding.EncodeToString([]byte(answer))
	}
}

func TestScramOverTheWire(t *testing.T) {
	t.Parallel()
	g, _ := people(t, "")
	phone := strings.TrimSpace(g.must("account", "app-password", "add", "alice@example.org", "phone"))
	for _, c := range []struct {
		user, password string
		want           int
	}{
		{"alice@example.org", "secret of alice", 235}, {"Alice@Example.org", "secret of alice", 235}, {"alice@example.org", phone, 235},
		{"alice@example.org", "secret of bob", 535}, {"nobody@example.org", "secret", 535},
	} {
		s := g.secure()
		if offer := s.cmd(250, "EHLO client.example.net"); !strings.Contains(offer, "AUTH SCRAM-SHA-256 PLAIN LOGIN") {
			t.Fatalf("offered: %s", offer)
		}
		if code, text := scramLogin(t, s, c.user, c.password); code != c.want {
			t.Errorf("%s with %q: %d %s", c.user, c.password, code, text)
		} else if code == 235 {
			s.cmd(250, "MAIL FROM:<alice@example.org>") // it is she
		}
	}
	if out := g.must("account", "app-password", "list", "alice@example.org", "--json"); !strings.Contains(out, `"name":"phone"`) || !strings.Contains(out, `"used":`) {
		t.Errorf("%s", out)
	}
	g.must("account", "app-password", "revoke", "alice@example.org", "phone")
	if code, text := scramLogin(t, g.inside(), "alice@example.org", phone); code != 535 {
		t.Errorf("a revoked password: %d %s", code, text)
	}
	if log := g.log.tail(2000); strings.Contains(log, phone) {
		t.Error("a password is in the log")
	}
}

// Bulk import: all or nothing, with the numbers of the lines that are wrong.
func TestImportCommands(t *testing.T) {
	t.Parallel()
	g, _ := people(t, "")
	csv := func(text string) string {
		file := filepath.Join(t.TempDir(), "in.csv")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	users := "address,password,display_name,quota,enabled\r\ndora@example.org,secret of dora,\"D, Dora\",5GiB,\r\nemil@example.org,,,,no\r\n"
	for _, c := range []struct{ what, text, want string }{
		{"account", users + "alice@example.org,x,,,\n", "line 4: account alice@example.org: exists already"},
		{"account", users + "nonsense,x,,much,perhaps\n", `line 4: "nonsense" is not an address`},
		{"account", "address,colour\nx@example.org,red\n", `line 1: there is no column "colour"`},
		{"account", "password\nx\n", `line 1: column "address" is missing`},
		{"account", users + "short@example.org\n", "line 4: wrong number of fields"},
		{"account", "", "line 1: the names of the columns are missing"},
		{"alias", "address,targets\na@example.org,b@example.org\nb@example.org,a@example.org\n", "leads back to itself"},
		{"domain", "name,deliver\nnew.test,maildir\nnew.test,maildir\n", "line 3: domain new.test: exists already"},
		{"domain", "name,deliver\nnew.test,maildir\nexample.org,maildir\n", "line 3: domain example.org: "},
		{"domain", "name,deliver,planner\nnew.test,maildir,\nother.test,maildir,nobody\n", "line 3: domain other.test: planner: "},
		{"domain", "name,deliver,catch_all\nnew.test,maildir,who@example.org\n", "line 2: @new.test: who@example.org does not exist"},
		{"domain", "name,deliver,catch_all\nnew.test,maildir,who@old.test\nold.test,maildir,\n", "line 2: @new.test: who@old.test does not exist"},
		{"group", "address,senders,members\ng@example.org,everybody,alice@example.org\n", "line 2: group g@example.org: \"everybody\" is not who may send"},
	} {
		if out, code := g.run(c.what, "import", csv(c.text)); code != 1 && code != 2 || !strings.Contains(out, c.want) || !strings.Contains(out, "nothing is imported") {
			t.Errorf("%s: exit code %d\n%s", c.want, code, out)
		}
	}
	if out := g.must("account", "import", csv(users), "--dry-run"); out != "2 accounts could be imported\n" {
		t.Error(out)
	}
	if out := g.must("account", "list"); strings.Contains(out, "dora") {
		t.Error("something is imported")
	}
	g.must("account", "import", csv(users))
	g.must("alias", "import", csv("address,targets\nd@example.org,dora@example.org\n"))
	g.must("group", "import", csv("address,members,senders\nall@example.org,d@example.org;alice@example.org bob@example.org,members\n"))
	g.must("domain", "import", csv("name,deliver,aliases,quota,catch_all\nnew.test,maildir,also.test;more.test,2GiB,alice@example.org bob@example.org\nplain.test,smtp://192.0.2.1:25 smtp://192.0.2.2:25,,,\n"))
	if out := g.must("domain", "list"); !strings.Contains(out, "new.test -> maildir, recipients directory, also also.test more.test, catch-all alice@example.org bob@example.org, quota 2GiB (directory)") ||
		!strings.Contains(out, "plain.test -> smtp://192.0.2.1:25 smtp://192.0.2.2:25, recipients directory (directory)") {
		t.Error(out)
	}
	if out := g.must("account", "show", "alice@example.org"); !strings.Contains(out, " @new.test") {
		t.Errorf("a catch-all that leads here:\n%s", out)
	}
	if out, code := g.run("domain", "add", "bad.test", "--deliver", "maildir", "--catch-all", "who@example.org"); code != 1 || !strings.Contains(out, "domain bad.test: who@example.org does not exist") {
		t.Errorf("a catch-all that leads nowhere: exit code %d\n%s", code, out)
	}
	c := g.inside()
	c.cmd(235, "AUTH PLAIN %s", plain("dora@example.org", "secret of dora"))
	c.cmd(250, "MAIL FROM:<d@example.org>")
	c.cmd(250, "RCPT TO:<all@example.org>")
	var shown struct {
		DisplayName string   `json:"display_name"`
		Quota       int64    `json:"quota_bytes"`
		Aliases     []string `json:"aliases"`
	}
	if err := json.Unmarshal([]byte(g.must("account", "show", "dora@example.org", "--json")), &shown); err != nil || shown.DisplayName != "D, Dora" || shown.Quota != 5<<30 || len(shown.Aliases) != 1 {
		t.Errorf("%+v %v", shown, err)
	}
	if out := g.must("account", "show", "emil@example.org"); !strings.Contains(out, "enabled     no\n") || !strings.Contains(out, "quota       no limit") {
		t.Errorf("%s", out)
	}
	g.must("account", "set", "emil@example.org", "trash_expiry", "30d")
	g.must("account", "quota", "emil@example.org", "1GiB", "--messages", "100")
	g.must("account", "quota", "emil@example.org", "default")
	if out := g.must("account", "show", "emil@example.org"); !strings.Contains(out, "quota       100 messages\n") || !strings.Contains(out, "setting     trash_expiry = 30d") {
		t.Errorf("%s", out)
	}
}
