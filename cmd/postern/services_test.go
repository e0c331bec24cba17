package main_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// allServices are all rights to services of the gateway.
const allServices = 511

// asking is a gateway with the plugin that asks it for things, as "asker", declaring rights.
func asking(t *testing.T, rights int, more string) *gateway {
	t.Helper()
	g := start(t, withSubmission+fmt.Sprintf(`
[[plugin]]
name = "asker"
command = [%q, "%d", "services"]
`, sdktest.Build(t, "../../testdata/plugins/services"), rights)+more)
	g.account("alice@example.org")
	return g
}

// ask has the plugin ask, and returns the answer.
func (g *gateway) ask(format string, args ...any) string {
	g.t.Helper()
	c := dial(g.t, g.addr[0])
	defer c.conn.Close()
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<from@example.net>")
	c.cmd(250, "RCPT TO:<alice@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: ask " + fmt.Sprintf(format, args...) + "\r\n\r\nfirst line\r\n..second line\r\n.\r\n")
	code, text, err := c.reply()
	if err != nil || code != 550 {
		g.t.Fatalf("got %d %s, %v", code, text, err)
	}
	return strings.TrimPrefix(text, "5.7.0 ")
}

// Each service, over the real socket, from a real plugin.
func TestHostServices(t *testing.T) {
	t.Parallel()
	g := asking(t, allServices, "")
	for _, tt := range []struct{ question, want string }{
		{"lookup alice@example.org", `^true \[alice@example\.org\]$`},
		{"lookup alice+tag@example.org", `^true \[alice@example\.org\]$`},
		{"lookup nobody@example.org", `^true \[\]$`},
		{"lookup somebody@example.com", `^false \[\]$`},
		{"password secret-of-nobody TLS1.3", `^error: 535 5\.7\.8 `},
		{"password x", `^error: 538 5\.7\.11 `},
		{"info alice+tag@example.org", `^alice@example\.org true 0 0 map\[\] ?$`},
		{"info nobody@example.org", `^none$`},
		{"scram wrong", `^error: 535 5\.7\.8 `},
		{"login wrong", `^error: 535 5\.7\.8 `},
		{"get", `^ 0$`},
		{"put one 7", `^error: it has been changed meanwhile$`},
		{"put one 0", `^\d{10,}$`},
		{"put two 0", `^error: it has been changed meanwhile$`},
		{"get", `^one \d{10,}$`},
		{"list", `^alice@example\.org/k$`},
		{"put two -1", `^\d{10,}$`},
		{"get", `^two \d{10,}$`},
		{"certificate", `^1 certificates, key true$`},
		{"state", `^set$`},
		{"state", `^there is v$`},
		{"count", `^1$`},
		{"count", `^2$`},
		{"remembered", `^false$`},
		{"log", `^logged$`},
		{"environment", `^token none$`}, // a child would inherit it
	} {
		if got := g.ask("%s", tt.question); !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%s: %q, want %s", tt.question, got, tt.want)
		}
	}
	line := g.log.wait(t, "plugin says", has("text", "hello"))
	if f, _ := line["fields"].(map[string]any); f["who"] != "a b" || f["n"] != "3" || line["plugin"] != "asker" {
		t.Errorf("the log has %v", line)
	}
	// A spelling of the password without spaces.
	if out, code := postern(t, "hunter2\n", "account", "passwd", "alice@example.org", "--password-stdin", "--config", g.file); code != 0 {
		t.Fatal(out)
	}
	if got := g.ask("password hunter2 TLS1.3"); got != "alice@example.org" {
		t.Errorf("password: %q", got)
	}
	if got := g.ask("login hunter2"); got != `SCRAM-SHA-256,PLAIN,LOGIN "Username:" "Password:" "" alice@example.org` {
		t.Errorf("login: %q", got)
	}
	if got := g.ask("scram hunter2"); got != "alice@example.org true" {
		t.Errorf("scram: %q", got)
	}
	g.must("account", "quota", "alice@example.org", "5GiB", "--messages", "7")
	g.must("account", "set", "alice@example.org", "trash_expiry", "30d")
	g.must("account", "disable", "alice@example.org")
	g.must("account", "name", "alice@example.org", "A")
	g.must("account", "enable", "alice@example.org")
	for want, begin := "alice@example.org true 5368709120 7 map[trash_expiry:30d]A", time.Now(); ; { // a hundredth of a second later
		got := g.ask("info alice@example.org")
		if got == want {
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("info: %q", got)
		}
	}
	if out := g.must("plugin", "status", "asker"); !strings.Contains(out, "counted     asked 2\n") {
		t.Errorf("plugin status says\n%s", out)
	}
	// What it has stored survives the plugin, which is restarted.
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<from@example.net>")
	c.cmd(250, "RCPT TO:<alice@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: ask exit\r\n\r\n.\r\n")
	c.reply()
	g.log.wait(t, "plugin restarted", has("plugin", "asker"))
	if got := g.ask("state"); got != "there is v" {
		t.Errorf("after the plugin's restart state: %q", got)
	}
	if got := g.ask("get"); !strings.HasPrefix(got, "two ") {
		t.Errorf("after the plugin's restart data: %q", got)
	}
}

// What the manifest does not declare is refused and counted, also after a restart of the plugin.
func TestHostServicesNeedRights(t *testing.T) {
	t.Parallel()
	g := asking(t, 4 /* lookup */, "")
	if got := g.ask("lookup alice@example.org"); got != "true [alice@example.org]" {
		t.Errorf("the right it has: %q", got)
	}
	questions := []string{"submit submitted", "password x TLS1.3", "login x", "put one 0", "get", "list", "certificate", "state", "count", "remembered"}
	for _, question := range questions {
		n := g.log.len()
		if got := g.ask("%s", question); got != "error: the manifest does not declare the right to this call" {
			t.Errorf("%s: %q", question, got)
		}
		line := g.log.waitFrom(t, n, "plugin failed", has("plugin", "asker"))
		if !strings.Contains(fmt.Sprint(line["error"]), "does not declare the right") {
			t.Errorf("%s: the log says %v", question, line)
		}
	}
	// The answers with the refusals were good; the refused calls are what failed.
	if out := g.must("plugin", "status", "asker"); !strings.Contains(out, fmt.Sprintf("failures    %d\n", len(questions))) {
		t.Errorf("plugin status says\n%s", out)
	}
}

// A message that a plugin submits is durable when it has its id, goes through the other
// plugins with its origin, and never to the plugin itself.
func TestHostServicesSubmit(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	g := asking(t, allServices, fmt.Sprintf(`
[[plugin]]
name = "other"
command = [%q, "0", "services"]
origins = ["fetched"]
[smarthost]
address = "%s"
`, sdktest.Build(t, "../../testdata/plugins/services"), s.addr))
	id := g.ask("submit submitted")
	g.log.wait(t, "accepted", has("id", id, "plugin", "asker", "reason", "submitted"))
	m := s.wait(t, "the message", func(got []arrived) bool { return len(got) > 0 })[0]
	if m.From != "alice@example.org" || len(m.To) != 1 || m.To[0] != "bob@example.net" {
		t.Errorf("the envelope is %+v", m)
	}
	if !strings.HasPrefix(m.Data, "Received: from mx.example.org\r\n") || !strings.Contains(m.Data, "\r\nMessage-ID: <") ||
		strings.Contains(m.Data, "Bcc") || !strings.HasSuffix(m.Data, "\r\n\r\nfirst line\r\n.second line\r\n") {
		t.Errorf("got\n%s", m.Data)
	}
	// The other plugin is called for it: without rights, it fails to ask and refuses; mail
	// of a stranger is then held.
	id = g.ask("submit fetched")
	held := g.log.wait(t, "held", nil)
	if held["family"] != id {
		t.Errorf("held is %v, want a version of %s", held, id)
	}
	if got := g.ask("submit incoming"); !strings.HasPrefix(got, "error: invalid call") {
		t.Errorf("an origin that is not a plugin's to say: %q", got)
	}
}
