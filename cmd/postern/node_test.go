package main_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nodeFilter installs the example in Node into a folder of its own and returns the command.
func nodeFilter(t *testing.T) []string {
	t.Helper()
	peer(t, "node", "npm")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{
		"../../testdata/plugins/node-filter/filter.js", "../../testdata/plugins/node-filter/package.json",
		"../../testdata/plugins/node-filter/package-lock.json", "../../sdk/proto/postern.proto",
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		require(t, fmt.Sprintf("npm cannot install the packages of the example in Node: %v\n%s", err, out))
	}
	return []string{node, filepath.Join(dir, "filter.js")}
}

// TestNodeFilter: a plugin that was written without the SDK, in another language, passes the
// suite and works in a gateway: bodies by value and by path, refusals, a death.
func TestNodeFilter(t *testing.T) {
	inOrder(t, "../../testdata/plugins/node-filter/README.md")
	command := nodeFilter(t)
	settings := filepath.Join(t.TempDir(), "settings.toml")
	os.WriteFile(settings, []byte("words = [\"lottery\", \"gr\u00fcn\"]\n"), 0o600)
	if out, code := postern(t, "", "plugin", "test", "--settings", settings, command[0], command[1]); code != 0 {
		t.Errorf("plugin test: exit code %d\n%s", code, out)
	}
	next := newSink(t)
	g := start(t, basics+`
[[domain]]
name = "example.org"
deliver = "smtp://`+next.addr+`"
recipients = "any"
[[plugin]]
name = "in-node"
command = ["`+command[0]+`", "`+command[1]+`"]
[plugin.settings]
words = ["lottery"]
`)
	small, large := "Hello.\r\n", strings.Repeat("All work and no play makes Jack a dull boy.\r\n", 20000)
	marked := func(body string) {
		t.Helper()
		n := len(next.mail())
		g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\n"+strings.TrimSuffix(body, "\r\n"))
		got := next.wait(t, "the message", func(m []arrived) bool { return len(m) > n })
		if field := fmt.Sprintf("X-Body-SHA256: %x\r\n", sha256.Sum256([]byte(body))); !strings.Contains(got[n].Data, field) {
			t.Errorf("no %q in\n%.1000s", field, got[n].Data)
		}
	}
	marked(small)
	marked(large)
	for _, body := range []string{"the lottery", strings.Repeat("x", 100) + "\r\n" + strings.Repeat(large, 2) + "the lottery"} {
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		c.cmd(250, "MAIL FROM:<a@example.net>")
		c.cmd(250, "RCPT TO:<b@example.org>")
		c.cmd(354, "DATA")
		c.send("Subject: x\r\n\r\n" + body + "\r\n.\r\n")
		if reply := c.expect(550); !strings.Contains(reply, "5.7.1 this message is not welcome here") {
			t.Errorf("the reply is %s", reply)
		}
	}
	started := g.log.wait(t, "plugin started", has("plugin", "in-node"))
	syscall.Kill(int(started["pid"].(float64)), syscall.SIGKILL)
	g.log.wait(t, "plugin restarted", has("plugin", "in-node"))
	marked(small)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
