package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

type pluginStatus struct {
	Name, State, Reason, Version string
	Pid, Restarts                int
	Calls, Failures              int
	OnFailure                    string `json:"on_failure"`
	Breaker                      bool
	Verdicts                     verdicts
	NoVerdict                    choices `json:"no_verdict"`
	NoAnswer                     choices `json:"no_answer"`
}

type verdicts struct{ Rejected, Deferred, Discarded, Quarantined int }

type choices struct{ Unscanned, Deferred, Rejected, Parked int }

func pluginsOf(g *gateway) (list []pluginStatus) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.must("plugin", "list", "--json")), &list); err != nil {
		g.t.Fatal(err)
	}
	return list
}

func TestPluginCommands(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, hostile(t, out, `on_failure = {default = "tempfail", stranger = "reject", down = "reject"}`))
	list := pluginsOf(g)
	if len(list) != 1 || list[0].Name != "hostile" || list[0].State != "running" || list[0].Version != "6.66" || list[0].OnFailure != "tempfail, stranger reject, down reject" {
		t.Errorf("plugins are %+v", list)
	}
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: 1\r\n\r\ntext")
	if text := g.must("plugin", "list"); !strings.Contains(text, "hostile  running") {
		t.Error(text)
	}
	text := g.must("plugin", "status", "hostile")
	for _, want := range []string{"hostile: running", "version     6.66", "calls       1", "breaker     closed", "on_failure  tempfail, stranger reject"} {
		if !strings.Contains(text, want) {
			t.Errorf("status lacks %q:\n%s", want, text)
		}
	}
	if text := g.must("plugin", "restart", "hostile"); text != "hostile: running\n" {
		t.Error(text)
	}
	if now := pluginsOf(g); now[0].Pid == list[0].Pid {
		t.Error("not restarted")
	}
	if text := g.must("plugin", "disable", "hostile"); text != "hostile: disabled\n" {
		t.Error(text)
	}
	send := func(code int) {
		t.Helper()
		c := dial(t, g.addr[0])
		c.cmd(250, "EHLO client.example.net")
		c.cmd(250, "MAIL FROM:<a@example.net>")
		c.cmd(250, "RCPT TO:<b@example.org>")
		c.cmd(354, "DATA")
		c.send("Subject: 2\r\n\r\ntext\r\n.\r\n")
		c.expect(code)
	}
	send(554) // on_failure
	if now := pluginsOf(g); now[0].State != "disabled" || now[0].Reason != "disabled by an admin" {
		t.Errorf("plugins are %+v", now)
	}
	if text, code := g.run("plugin", "restart", "hostile"); code != 1 || !strings.Contains(text, "enable it") {
		t.Errorf("code %d: %s", code, text)
	}
	g.must("plugin", "enable", "hostile")
	send(250)
	for _, args := range [][]string{{"plugin", "status", "x"}, {"plugin", "enable", "x"}, {"plugin", "restart", "../queue"}} {
		if text, code := g.run(args...); code != 1 {
			t.Errorf("%v: code %d: %s", args, code, text)
		}
	}
	if _, code := g.run("plugin", "disable"); code != 2 {
		t.Errorf("without a name: code %d", code)
	}
	g.stop()
	if text, code := g.run("plugin", "list"); code != 1 || !strings.Contains(text, "no gateway of this configuration can be asked") {
		t.Errorf("code %d: %s", code, text)
	}
}

// What on_failure decides is counted, by plugin: what passed unscanned because the engine is
// gone or the plugin stopped, and what was deferred. Neither another process of the plugin nor
// other settings begin anew.
func TestUnscannedIsCounted(t *testing.T) {
	t.Parallel()
	out := smtptest.New(t, smtptest.Options{})
	dir := t.TempDir()
	config := func(policy string) string {
		return filtered(out, "antivirus", fmt.Sprintf("on_failure = %q\norigins = [\"submitted\"]", policy), fmt.Sprintf("addresses = [%q]", deadEnd(t)))
	}
	g := startIn(t, dir, config("accept"))
	sent := 0
	send := func(n, want int) {
		t.Helper()
		for range n {
			if code, reply := g.offer(letterHead+"\r\ntext\r\n", "bob@example.org"); code != want {
				t.Fatalf("%d %s", code, reply)
			}
		}
		if want == 250 {
			sent += n
		}
	}
	reload := func(policy string) {
		at := g.log.len()
		write(t, dir, config(policy))
		g.cmd.Process.Signal(syscall.SIGHUP)
		g.log.waitFrom(t, at, "configuration reloaded", nil)
	}
	send(2, 250)
	g.must("plugin", "restart", "antivirus")
	send(1, 250)
	g.must("plugin", "disable", "antivirus")
	send(4, 250)
	if text := g.must("plugin", "status", "antivirus"); !strings.Contains(text, "  no verdict  7 unscanned\n") {
		t.Error(text)
	}
	reload("tempfail")
	send(2, 451)
	g.must("plugin", "enable", "antivirus")
	send(1, 451)
	reload("accept")
	send(1, 250)
	if text := g.must("plugin", "status", "antivirus"); !strings.Contains(text, "  no verdict  8 unscanned, 3 deferred\n") {
		t.Error(text)
	}
	if got := pluginsOf(g)[0]; got.NoVerdict != (choices{Unscanned: 8, Deferred: 3}) || got.NoAnswer != (choices{}) || got.Verdicts != (verdicts{}) {
		t.Errorf("list --json has %+v", got)
	}
	for _, m := range out.Wait(t, sent, patience) {
		if !strings.Contains(string(m.Data), "X-Postern-Unscanned: antivirus (") {
			t.Errorf("passed unmarked:\n%s", m.Data)
		}
	}
}

// G-18: settings and binary change again and again under load; no client sees an error, and
// every message has been looked at and arrives once.
func TestG18SwapsUnderLoad(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	dir := t.TempDir()
	plugin := filepath.Join(dir, "plugin")
	image, err := os.ReadFile(program(t, "hostile"))
	if err != nil {
		t.Fatal(err)
	}
	install := func(n int) {
		if err := os.WriteFile(plugin+".new", append(image[:len(image):len(image)], fmt.Sprint(n)...), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(plugin+".new", plugin); err != nil {
			t.Fatal(err)
		}
	}
	install(0)
	config := func(n int) string {
		return strings.Replace(hostile(t, out, fmt.Sprintf("on_failure = \"reject\"\n[plugin.settings]\ndir = \"%d\"\n", n)), program(t, "hostile"), plugin, 1)
	}
	g := startIn(t, dir, config(0))
	var sent atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := dial(t, g.addr[0])
			c.cmd(250, "EHLO client.example.net")
			for {
				select {
				case <-stop:
					c.cmd(221, "QUIT")
					return
				default:
				}
				c.message("a@example.net", []string{"b@example.org"}, fmt.Sprintf("Subject: %d\r\n\r\ntext", sent.Add(1)))
			}
		})
	}
	for n := 1; n <= 100 && !t.Failed(); n++ {
		at := g.log.len()
		if n%2 == 0 {
			install(n)
		} else {
			write(t, dir, config(n))
		}
		g.cmd.Process.Signal(syscall.SIGHUP)
		g.log.waitFrom(t, at, "plugin started", nil)
		g.log.waitFrom(t, at, "configuration reloaded", nil)
	}
	close(stop)
	wg.Wait()
	if t.Failed() {
		return
	}
	got := out.wait(t, "everything", func(got []arrived) bool { return len(got) >= int(sent.Load()) })
	if len(got) != int(sent.Load()) {
		t.Errorf("%d messages were sent, %d arrived", sent.Load(), len(got))
	}
	seen := g.log.count("plugin", has("action", "continue"))
	if seen != int(sent.Load()) {
		t.Errorf("%d messages were sent, the plugin saw %d", sent.Load(), seen)
	}
}
