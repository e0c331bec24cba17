package main_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// G-03: fifty sessions whose messages take the plugin nearly as long as it may: all are
// answered, what was accepted arrives once, and the plugin is left alone.
func TestG03SlowPlugin(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, hostile(t, out, `timeout = "3s"`))
	pid := pluginsOf(g)[0].Pid
	var mu sync.Mutex
	accepted := 0
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			c := dial(t, g.addr[0])
			c.cmd(250, "EHLO client.example.net")
			code, text := converse(c, "a@example.net", fmt.Sprintf("X-Do: slow 2s\r\nSubject: %d\r\n\r\ntext", i))
			mu.Lock()
			defer mu.Unlock()
			switch code {
			case 250:
				accepted++
			case 451: // a busy machine
			default:
				t.Errorf("%d %s", code, text)
			}
		})
	}
	wg.Wait()
	got := out.wait(t, "what was accepted", func(got []arrived) bool { return len(got) >= accepted })
	if len(got) != accepted || accepted == 0 {
		t.Errorf("%d accepted, %d arrived", accepted, len(got))
	}
	if p := pluginsOf(g)[0]; p.Pid != pid || p.Restarts != 0 {
		t.Errorf("the plugin was restarted: %+v", p)
	}
}

// G-19: plugins run in the configured order, each on the result of the one before; and a
// plugin that dies in between is asked again without anything being done twice.
func TestG19OrderAndOnce(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, strangers+exampleTo(out)+puppet(t, "adds", "", `do = ["insert 0 X-Kept 1", "insert 0 X-Gone 1"]`)+puppet(t, "deletes", "", `do = ["remove -1 X-Gone"]`)+
		fmt.Sprintf("[[plugin]]\nname = \"dies\"\ncommand = [%q, \"always\", \"slow 500ms\"]\n", program(t, "hostile"))+puppet(t, "last", "", ""))
	var victim int
	for _, p := range pluginsOf(g) {
		if p.Name == "dies" {
			victim = p.Pid
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.deliver("a@example.net", []string{"b@example.org"}, "Subject: 1\r\n\r\ntext")
	}()
	g.log.wait(t, "plugin", has("plugin", "deletes"))
	syscall.Kill(victim, syscall.SIGKILL)
	<-done
	m := out.wait(t, "it", func(got []arrived) bool { return len(got) == 1 })[0]
	if n := strings.Count(m.Data, "X-Kept:"); n != 1 || strings.Contains(m.Data, "X-Gone") {
		t.Errorf("the message is\n%s", m.Data)
	}
	if n := g.log.count("plugin", has("plugin", "dies", "action", "continue")); n != 1 {
		t.Errorf("the plugin that died gave %d verdicts", n)
	}
}

// TestG20Discard: what a plugin throws away is accepted, and is on record with the plugin's name
// and reason, in the trace and in its counts.
func TestG20Discard(t *testing.T) {
	t.Parallel()
	g, sink := platform(t, "", "")
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	all := c.message("from@a.test", []string{"r0@example.org"}, puppeteer("x", "verdict discard"))
	one := c.message("from@a.test", []string{"r0@example.org", "r1@example.org"}, puppeteer("x", "@1 verdict discard"))
	for id, to := range map[string]string{all: "r0@example.org", one: "r1@example.org"} {
		line := g.log.wait(t, "discarded", has("id", id))
		if line["reason"] != "plugin p: told to" || line["to"] != to {
			t.Errorf("on record is %v", line)
		}
	}
	g.log.wait(t, "plugin", has("id", all, "plugin", "p", "action", "discard"))
	if got := sink.wait(t, "the other recipient", func(m []arrived) bool { return len(m) > 0 }); len(got) != 1 || strings.Join(got[0].To, " ") != "r0@example.org" {
		t.Errorf("arrived: %+v", got)
	}
	g.drained()
	if s := g.must("plugin", "status", "p"); !strings.Contains(s, "  verdicts    2 discarded\n") {
		t.Error(s)
	}
	if v := pluginsOf(g)[0].Verdicts; v != (verdicts{Discarded: 2}) {
		t.Errorf("list --json has %+v", v)
	}
}

// G-21: a message of 50 MB goes through five plugins that read all of it, in no more memory
// than any other.
func TestG21MemoryOfLargeMessages(t *testing.T) {
	t.Parallel()
	const size = 50_000_000
	out := newSink(t)
	config := strings.Replace(strangers, "[queue]", "[limits]\nmessage_size = \"64MiB\"\n[queue]", 1) + exampleTo(out)
	for i := range 5 {
		config += fmt.Sprintf("[[plugin]]\nname = \"look%d\"\ncommand = %q\n", i, program(t, "look"))
	}
	g := start(t, config)
	line := strings.Repeat("0123456789abcdef", 4) + "\r\n"
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: large\r\n\r\n"+strings.Repeat(line, size/len(line)))
	out.wait(t, "it", func(got []arrived) bool { return len(got) == 1 && len(got[0].Data) > size-1000 })
	total := peak(t, g.cmd.Process.Pid)
	if total > 64<<20 {
		t.Errorf("the gateway took %d MiB", total>>20)
	}
	for _, p := range pluginsOf(g) {
		m := peak(t, p.Pid)
		if m > 32<<20 {
			t.Errorf("plugin %s took %d MiB", p.Name, m>>20)
		}
		total += m
	}
	t.Logf("%d MiB at their peaks, all together", total>>20)
	if n := g.log.count("plugin", has("action", "continue")); n != 5 {
		t.Errorf("%d plugins looked", n)
	}
}

// peak is the largest resident set that a process had, in bytes.
func peak(t testing.TB, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kb int
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// G-22: check says what becomes of mail when each plugin fails, and antivirus, dkim and bcc do
// not fail open by default.
func TestG22CheckPrintsFailurePolicies(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	file := write(t, t.TempDir(), hostile(t, out, `on_failure = {default = "park", stranger = "reject", timeout = "accept"}`)+
		"[[plugin]]\nname = \"bcc\"\n[plugin.settings]\ncopies = {\"example.org\" = \"c@example.net\"}\n"+
		fmt.Sprintf("[[plugin]]\nname = \"antivirus\"\n[plugin.settings]\naddresses = [%q]\n", deadEnd(t))+
		"[[plugin]]\nname = \"dkim\"\n[plugin.settings]\ndomains = [\"example.org\"]\n"+published(t, nil))
	if out, code := postern(t, "", "dkim", "keygen", "example.org", "--config", file); code != 0 {
		t.Fatal(out)
	}
	text, code := postern(t, "", "check", "--config", file)
	for _, want := range []string{"plugin hostile starts; when it fails: park, stranger reject, timeout accept\n", "plugin bcc starts; when it fails: tempfail\n",
		"plugin antivirus starts; when it fails: tempfail\n", "plugin dkim starts; when it fails: tempfail\n",
		"warn   mail of example.org leaves unsigned until the DNS shows the key postern._domainkey.example.org: see postern dkim status\n"} {
		if !strings.Contains(text, want) || code != 0 {
			t.Errorf("code %d, check does not say %q:\n%s", code, want, text)
		}
	}
}
