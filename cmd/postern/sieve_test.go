package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
