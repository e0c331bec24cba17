package main_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// A plugin that crashes, hangs, or breaks the contract is the failure policy's, in bounded
// time, and the next message is tried all the same.
func TestTryHostilePlugins(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"exit", "crash", "panic", "hang", "deaf", "error", "nothing", "undeclared", "giant", "stdout"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a := attemptWith(t, hostile(t, &sink{addr: "192.0.2.99:25"}, "timeout = \"2s\"\non_failure = \"reject\""))
			bad, good := a.message("X-Do: "+what+"\n\nx"), a.message("Subject: fine\n\nx")
			got := a.json("--from", "a@a.test", "--to", "b@example.org", bad, good)
			if len(got) != 2 {
				t.Fatalf("%d lines", len(got))
			}
			convicted := what == "exit" || what == "crash"
			if d := *got[0].Disposition; d != "reject" && !(convicted && d == "quarantine") && what != "stdout" {
				t.Errorf("%s, plugins %s", got[0].outcome(), got[0].verdicts())
			} else if what != "stdout" && (got[0].verdicts() != "hostile unscanned" || got[0].Plugins[0].Notes["unscanned"] == "") {
				t.Errorf("plugins %s", got[0].verdicts())
			}
			if d := *got[1].Disposition; d != "deliver" {
				t.Errorf("the next message: %s, plugins %s %v", got[1].outcome(), got[1].verdicts(), got[1].Plugins[0].Notes)
			}
		})
	}
}

// What keeps a command from doing its work is said, with the exit code for it.
func TestTryFaults(t *testing.T) {
	t.Parallel()
	good := attemptWith(t, basics+nowhereOrg)
	file := good.message("Subject: x\n\nx")
	broken := attemptWith(t, basics+nowhereOrg+"[[plugin]]\nname = \"bcc\"\n")
	missing := attemptWith(t, basics+nowhereOrg+"[[plugin]]\nname = \"x\"\ncommand = \"/nonexistent/plugin\"\n")
	ok := []string{"--from", "a@a.test", "--to", "b@example.org"}
	for name, c := range map[string]struct {
		config string
		args   []string
		code   int
		says   string
	}{
		"no message":         {good.file, ok, 2, "usage"},
		"no envelope":        {good.file, []string{file}, 2, "--from"},
		"no recipient":       {good.file, []string{file, "--from", "a@a.test"}, 2, "--to"},
		"bad sender":         {good.file, []string{file, "--from", "a@@", "--to", "b@example.org"}, 2, "--from"},
		"bad recipient":      {good.file, []string{file, "--from", "", "--to", "b"}, 2, "--to"},
		"bad client":         {good.file, append([]string{file, "--client", "nobody"}, ok...), 2, "--client"},
		"bad HELO":           {good.file, append([]string{file, "--helo", "a\r\nMAIL"}, ok...), 2, "--helo"},
		"bad user":           {good.file, append([]string{file, "--user", "carol"}, ok...), 2, "--user"},
		"unknown flag":       {good.file, append([]string{file, "--nonsense"}, ok...), 2, "nonsense"},
		"no such file":       {good.file, append([]string{"/nonexistent.eml"}, ok...), 1, "/nonexistent.eml"},
		"a folder":           {good.file, append([]string{"/", file}, ok...), 1, "could not be tried"},
		"settings are wrong": {broken.file, append([]string{file}, ok...), 1, `plugin "bcc"`},
		"no such plugin":     {missing.file, append([]string{file}, ok...), 1, "/nonexistent/plugin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, code := postern(t, "", append(append([]string{"try"}, c.args...), "--config", c.config)...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, want %d; want %q in\n%s", code, c.code, c.says, out)
			}
		})
	}
}

// Beside a gateway that runs on the same data nothing of it is disturbed or changed: not its
// plugins, its queue, its directory. What a plugin submits or stores is not kept.
func TestTryBesideAGateway(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	ask := func(name string, rights string) string {
		return fmt.Sprintf("[[plugin]]\nname = %q\ncommand = [%q, %q, %q]\n", name, program(t, "services"), rights, name)
	}
	g := start(t, strangers+exampleTo(out)+ask("s", "511"))
	a := &attempt{t, g.dir, g.file}
	g.deliver("a@a.test", []string{"b@example.org"}, "Subject: before\r\n\r\nx")
	out.wait(t, "the first", func(m []arrived) bool { return len(m) == 1 })
	g.drained()
	before := g.must("plugin", "status")
	msgs := []string{a.message("Subject: ask submit submitted\n\nx"), a.message("Subject: ask put value 0\n\nx"), a.message("Subject: ask get\n\nx"), a.message("Subject: plain\n\nx")}
	got := a.json(append([]string{"--from", "a@a.test", "--to", "alice@example.org"}, msgs...)...)
	if len(got) != len(msgs) {
		t.Fatalf("%d lines", len(got))
	}
	for i, want := range []string{"reject 550", "reject 550 5.7.0 1", "reject 550 5.7.0 value 1", "deliver 250"} {
		if r := got[i].outcome(); !strings.HasPrefix(r, want) || strings.Contains(r, "error") {
			t.Errorf("message %d: %s, want %s", i, r, want)
		}
	}
	if after := g.must("plugin", "status"); after != before || g.log.count("plugin ended", nil) > 0 {
		t.Errorf("plugins were\n%sare\n%s", before, after)
	}
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<a@a.test>")
	c.cmd(250, "RCPT TO:<alice@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: ask get\r\n\r\nx\r\n.\r\n")
	if text := c.expect(550); strings.Contains(text, "value") {
		t.Errorf("what a plugin stored in the trial is there: %s", text)
	}
	if q := g.queue(); len(q) > 0 {
		t.Errorf("in the queue: %v", q)
	}
	g.deliver("a@a.test", []string{"b@example.org"}, "Subject: after\r\n\r\nx")
	all := out.wait(t, "the last", func(m []arrived) bool { return len(m) == 2 })
	if !strings.Contains(all[1].Data, "Subject: after") {
		t.Errorf("arrived: %v", all)
	}
}

// A content filter outside is asked too: the trial takes back what it brings. Beside a
// gateway, which has the listener, that plugin fails, with the reason.
func TestTryContentFilter(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	f.script(func(h *handed) error {
		return h.return250(h.To, strings.Replace(h.Text, "Subject: ", "Subject: [seen] ", 1))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.back = l.Addr().String()
	f.mu.Unlock()
	a := attemptWith(t, strangers+nowhereOrg+strings.Replace(withReinjection, "127.0.0.1:0", f.back, 1)+smtpfilter(f.addr, ""))
	r := a.one("Subject: x\n\nbody\n") // the listener is taken
	wantTried(t, r, "defer 451", "smtpfilter unscanned", "bob@example.org defer")
	if why := r.Plugins[0].Notes["unscanned"]; !strings.Contains(why, "filter") {
		t.Errorf("notes %v", r.Plugins[0].Notes)
	}
	l.Close()
	r = a.one("Subject: x\n\nbody\n")
	wantTried(t, r, "deliver 250", "smtpfilter continue changed", "bob@example.org deliver smtp:192.0.2.99:2525")
	if s := r.header("Subject"); len(s) != 1 || s[0] != "[seen] x" || len(r.header("X-Postern-Reinject")) > 0 {
		t.Errorf("headers %v", r.Headers)
	}
}

// For people: verdicts, what each plugin changed line by line, why, and where it goes; with
// nothing in it that steers a terminal.
func TestTryText(t *testing.T) {
	t.Parallel()
	a := attemptWith(t, strangers+nowhereOrg+puppet(t, "p", "", ""))
	file := a.message("X-Do: insert 0 X-New one\nX-Do: change 0 Subject other\nX-Do: body upper\nX-Do: copy c@example.org b@example.org\nSubject: \x1b[31mred\nX-Kept: yes\n\nbody\n")
	out, code := postern(t, "", "try", file, "--from", "a@a.test", "--to", "b@example.org", "--to", "x@elsewhere.test", "--config", a.file)
	if code != 0 || strings.ContainsRune(out, '\x1b') {
		t.Errorf("exit code %d\n%q", code, out)
	}
	for _, want := range []string{": deliver: 250 2.0.0 Ok", "<x@elsewhere.test>: 550 5.7.1 Relaying denied", "\n  gateway: incoming mail\n    + Received: from [192.0.2.1]",
		"\n  p: continue  ", "\n    + X-New: one\n", "\n    - Subject: ?[31mred\n    + Subject: other\n", "\n    - X-Do: body upper\n", "\n    a copy for <c@example.org>\n",
		"\n    note MAIL = ", "\n    <b@example.org> deliver via smtp:192.0.2.99:2525\n", "\n    body: 6 -> 6 bytes\n    - body\n    + BODY\n", "at RCPT  for <b@example.org>"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "X-Kept") {
		t.Errorf("what did not change shows:\n%s", out)
	}
	large := a.message("X-Do: body upper\nSubject: x\n\nfirst\n" + strings.Repeat("SAME\n", 10000) + "last")
	out, code = postern(t, "", "try", large, "--from", "a@a.test", "--to", "b@example.org", "--config", a.file)
	if code != 0 || !strings.Contains(out, "\n    - first\n    + FIRST\n    - last") || strings.Contains(out, "SAME") {
		t.Errorf("a body in a file: exit code %d\n%.2000s", code, out)
	}
	out, code = postern(t, "", "try", file, "--from", "a@a.test", "--to", "b@example.org", "--without", "p", "--config", a.file)
	if code != 0 || strings.Contains(out, "\n  p: ") || !strings.Contains(out, "<b@example.org> deliver") {
		t.Errorf("without the plugin: exit code %d\n%s", code, out)
	}
	if out, code = postern(t, "", "try", file, "--from", "a@a.test", "--to", "b@example.org", "--without", "q", "--config", a.file); code != 2 || !strings.Contains(out, `"q"`) {
		t.Errorf("without one that is not there: exit code %d\n%s", code, out)
	}
	out, code = postern(t, "Subject: from standard input\n\nx", "try", "-", "--from", "", "--to", "b@example.org", "--config", a.file)
	if code != 0 || !strings.HasPrefix(out, "-: deliver") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
