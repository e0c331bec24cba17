package main_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestFirstScreen does what the README's first screen says, with the example as it stands but
// for its ports.
func TestFirstScreen(t *testing.T) {
	example, err := os.ReadFile("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, regexp.MustCompile(`127\.0\.0\.1:25\d\d`).ReplaceAllString(strings.Replace(string(example), "# format = \"text\"", "format = \"json\"", 1), "127.0.0.1:0"))
	out := g.must("send")
	if !strings.Contains(out, "250 2.0.0 Ok: queued as ") || !strings.Contains(out, "delivered postmaster@example.org via mailbox:maildir: 250 2.0.0") {
		t.Errorf("send says\n%s", out)
	}
	files, _ := filepath.Glob(filepath.Join(g.dir, "data/mail/example.org/postmaster/new/*"))
	if len(files) != 1 {
		t.Fatalf("%d files in the maildir", len(files))
	}
	text, _ := os.ReadFile(files[0])
	for _, want := range []string{"Return-Path: <", "Delivered-To: postmaster@example.org\r\n", "by mx.example.org (Postern)", "Message-ID: <", "It went through the gateway"} {
		if !strings.Contains(strings.ReplaceAll(string(text), "\n", "\r\n"), want) && !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if out := g.must("queue", "list"); out != "The queue is empty.\n" {
		t.Errorf("%s", out)
	}
	if out := g.must("check"); !strings.Contains(out, "warn   no TLS certificate is configured") {
		t.Errorf("check does not warn of what serve warns of:\n%s", out)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSendSaysWhy(t *testing.T) {
	next := newSink(t)
	next.script(func(verb, _ string) string {
		if verb == "RCPT" {
			return "550 5.1.1 Not here"
		}
		return ""
	})
	g := start(t, basics+`
[[domain]]
name = "example.org"
deliver = "maildir"
[[domain]]
name = "behind.example"
deliver = "smtp://`+next.addr+`"
recipients = "any"
`)
	out, code := g.run("send", "--to", "nobody@example.org")
	if code != 1 || strings.Count(out, "550 5.1.1") != 1 {
		t.Errorf("%d %s", code, out)
	}
	out, code = g.run("send", "--to", "x@behind.example")
	if code != 1 || !strings.Contains(out, "250 2.0.0 Ok") || !strings.Contains(out, "550 5.1.1 Not here") {
		t.Errorf("%d %s", code, out)
	}
	out, code = g.run("send", "--to", "nonsense")
	if code != 2 {
		t.Errorf("%d %s", code, out)
	}
	g.must("account", "add", "alice@example.org")
	if out := g.must("send", "--to", "alice+tag@example.org", "--json"); !strings.Contains(out, `"type":"delivered"`) {
		t.Errorf("%s", out)
	}
	g.stop()
	if out, code := g.run("send"); code != 1 || !strings.Contains(out, "postern serve") {
		t.Errorf("%d %s", code, out)
	}
}

// TestX02BadStarts: what cannot work is refused with a clear text, and nothing is left running.
func TestX02BadStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	secret := filepath.Join(dir, "readable")
	os.WriteFile(secret, []byte("password\n"), 0o644)
	for _, c := range []struct{ name, config, want string }{
		{"unknown key", basics + "[limits]\nmessage_sise = \"1MiB\"\n", `unknown key "message_sise"`},
		{"wrong type", strings.Replace(basics, `"data"`, "5", 1), "postern.toml:3"},
		{"no listener", "hostname = \"mx.example.org\"\ndata_dir = \"data\"\n", "listener"},
		{"missing certificate", basics + "[tls]\ncertificate = \"missing.pem\"\nkey = \"missing.key\"\n", "missing.pem"},
		{"world-readable secret", basics + "[smarthost]\naddress = \"smtp.example.net:587\"\nusername = \"u\"\npassword_file = \"" + secret + "\"\n", "chmod"},
		{"relay for everybody", strings.Replace(basics, `127.0.0.0/8`, "0.0.0.0/0", 1), "allow_everyone"},
		{"occupied port", strings.Replace(basics, "127.0.0.1:0", taken.Addr().String(), 1), "cannot listen on " + taken.Addr().String()},
		{"unwritable data_dir", strings.Replace(basics, `data_dir = "data"`, `data_dir = "/proc/nothing"`, 1), "data_dir"},
		{"no such plugin", basics + "[[plugin]]\nname = \"bbc\"\n", "bcc, dkim, "},
		{"no such program", basics + "[[plugin]]\nname = \"x\"\ncommand = \"/nowhere/x\"\n", "/nowhere/x"},
		{"plugin settings", basics + "[[plugin]]\nname = \"bcc\"\n[plugin.settings]\ncopeis = {}\n", "copeis"},
		{"no dkim key", basics + "[[plugin]]\nname = \"dkim\"\n[plugin.settings]\ndomains = [\"example.org\"]\n", "keygen"},
		{"no mailbox plugin", basics + "[[domain]]\nname = \"example.org\"\ndeliver = \"bcc\"\n", "bcc"},
		{"ourselves", strings.Replace(basics, "127.0.0.1:0", freePort(t), 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" { // L-03: a smarthost that is us
				addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(c.config)
				c.config += "[smarthost]\naddress = \"" + addr + "\"\n"
				c.want = "loop"
			}
			g := launch(t, t.TempDir(), c.config)
			<-g.done
			if code := g.cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if out := g.log.tail(50); !strings.Contains(out, c.want) || strings.Contains(out, `"ready"`) || strings.Contains(out, "panic") {
				t.Errorf("no %q in\n%s", c.want, out)
			}
		})
	}
}

// TestCheckTellsEveryPlugin: each plugin that is at fault is told of, once.
func TestCheckTellsEveryPlugin(t *testing.T) {
	file := write(t, t.TempDir(), basics+"[[plugin]]\nname = \"bcc\"\n[plugin.settings]\ncopeis = {}\n[[plugin]]\nname = \"greylist\"\n[[plugin]]\nname = \"dnsbl\"\n")
	out, code := postern(t, "", "check", "--config", file)
	if code != 1 || !strings.Contains(out, `(did you mean "copies"?)`) || !strings.Contains(out, `plugin "dnsbl": `) || !strings.Contains(out, "2 faults") {
		t.Errorf("%d %s", code, out)
	}
}

// TestCheckTellsEveryDomain: what is wrong with two domains is told of both.
func TestCheckTellsEveryDomain(t *testing.T) {
	file := write(t, t.TempDir(), basics+"[[plugin]]\nname = \"bcc\"\n[plugin.settings]\ncopies = {\"c.test\" = \"d@e.test\"}\n[[domain]]\nname = \"a.test\"\ndeliver = \"maildir\"\nplanner = \"bcc\"\n[[domain]]\nname = \"b.test\"\ndeliver = \"maildir\"\nplanner = \"bcc\"\n")
	out, code := postern(t, "", "check", "--config", file)
	if code != 1 || !strings.Contains(out, "FAULT  domain a.test: planner bcc: ") || !strings.Contains(out, "FAULT  domain b.test: planner bcc: ") || !strings.Contains(out, "2 faults") {
		t.Errorf("%d %s", code, out)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"frobnicate", "see postern --help"},
		{"queue lst", `did you mean "list"? See postern queue --help`},
		{"help foo", `unknown command "foo"; see postern --help`},
		{"help queue bar", `unknown command "bar"; see postern queue --help`},
		{"account app-password ad", `did you mean "add"? See postern account app-password --help`},
		{"queue show", "an argument is missing\nusage: postern queue show ID"},
		{"serve extra", `no place for the argument "extra"`},
		{"queue show a b", `no place for the argument "b"`},
		{"--nonsense", "see postern --help"},
		{"queue list --nonsense", "see postern queue list --help"},
		{"queue retry", "--all"},
		{"account add", "usage: postern account add ADDRESS"},
		{"group set team@example.org", `"senders"`},
	} {
		if out, code := postern(t, "", strings.Fields(c.args)...); code != 2 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, want 2 and %q\n%s", c.args, code, c.want, out)
		}
	}
	if out, code := postern(t, "", "check", "--config", "/nowhere/x.toml"); code != 1 || !strings.Contains(out, "--config") {
		t.Errorf("%d %s", code, out)
	}
	for _, cmd := range []string{"serve", "check", "send", "queue list", "queue show", "queue retry", "queue summary", "account add", "dkim keygen", "plugin new", "plugin test", "version"} {
		if out, code := postern(t, "", append(strings.Fields(cmd), "--help")...); code != 0 || !strings.Contains(out, "Examples:") {
			t.Errorf("%s --help has no examples:\n%s", cmd, out)
		}
	}
}

// TestX03Reload: a bad file leaves everything as it is; a good one takes over without a session
// ending or a connection refused.
func TestX03Reload(t *testing.T) {
	g := start(t, basics+`
[[domain]]
name = "example.org"
deliver = "maildir"
`)
	before := dial(t, g.addr[0])
	before.cmd(250, "EHLO client.example.net")
	write(t, g.dir, basics+"nonsense = 1\n")
	g.cmd.Process.Signal(syscall.SIGHUP)
	line := g.log.wait(t, "configuration not reloaded, the old one stays in force", nil)
	if !strings.Contains(line["error"].(string), "postern.toml:") {
		t.Errorf("%v", line)
	}
	before.cmd(250, "MAIL FROM:<a@example.net>")
	before.cmd(550, "RCPT TO:<nobody@example.org>")

	write(t, g.dir, basics+`
[[domain]]
name = "example.org"
deliver = "maildir"
recipients = "any"
[[listener]]
address = "127.0.0.1:0"
role = "lmtp"
`)
	g.cmd.Process.Signal(syscall.SIGHUP)
	line = g.log.wait(t, "configuration reloaded", nil)
	addrs := line["listeners"].([]any)
	if len(addrs) != 2 || addrs[0] != g.addr[0] {
		t.Fatalf("listeners %v, before %v", addrs, g.addr)
	}
	before.cmd(250, "RCPT TO:<nobody@example.org>") // the session goes on, by the new rules
	g.deliver("a@example.net", []string{"somebody@example.org"}, "Subject: x\r\n\r\nx")
	lmtp := dial(t, addrs[1].(string))
	lmtp.cmd(250, "LHLO client.example.net")
}

func TestDkimKeygen(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, basics)
	for _, algorithm := range []string{"rsa", "ed25519"} {
		out, code := postern(t, "", "dkim", "keygen", "example.org", "--selector", algorithm, "--algorithm", algorithm, "--json", "--config", file)
		var r struct{ Name, Value, Key_file string }
		if code != 0 || json.Unmarshal([]byte(out), &r) != nil {
			t.Fatalf("%d %s", code, out)
		}
		if r.Name != algorithm+"._domainkey.example.org" || !strings.HasPrefix(r.Value, "v=DKIM1; k="+algorithm+"; p=") {
			t.Errorf("%+v", r)
		}
		if info, err := os.Stat(r.Key_file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		again, code := postern(t, "", "dkim", "keygen", "example.org", "--selector", algorithm, "--json", "--config", file)
		if code != 0 || again != out {
			t.Errorf("a key was replaced:\n%s%s", out, again)
		}
	}
	for args, want := range map[string]int{"--selector rsa --algorithm ed25519": 1, "--selector rsa --algorithm dsa": 2} { // nothing but what was asked for
		out, code := postern(t, "", append([]string{"dkim", "keygen", "example.org", "--config", file}, strings.Fields(args)...)...)
		if code != want || strings.Contains(out, "v=DKIM1") {
			t.Errorf("%s: %d %s", args, code, out)
		}
	}
}

// TestPluginDiesAndComesBack: no answer means 451, and the plugin is restarted.
func TestPluginDiesAndComesBack(t *testing.T) {
	g := start(t, basics+`
[[domain]]
name = "example.org"
deliver = "maildir"
recipients = "any"
[[plugin]]
name = "bcc"
[plugin.settings]
copies = {"example.org" = "archive@example.org"}
`)
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
	started := g.log.wait(t, "plugin started", has("plugin", "bcc"))
	n := g.log.len()
	pid := int(started["pid"].(float64))
	syscall.Kill(pid, syscall.SIGKILL)
	g.log.waitFrom(t, n, "plugin restarted", has("plugin", "bcc"))
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
}

// TestRootActsAsTheOwner: what root does to the data directory of another user, the gateway of
// that user can still open.
func TestRootActsAsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		require(t, "not root")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "postern-owner") // t.TempDir is below a directory of our own
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.Mkdir(data, 0o710), os.Chown(data, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	file := write(t, dir, basics+"[[domain]]\nname = \"example.org\"\ndeliver = \"maildir\"\n")
	for _, args := range []string{"account add alice@example.org", "dkim keygen example.org --algorithm ed25519", "queue list"} {
		if out, code := postern(t, "", append(strings.Fields(args), "--config", file)...); code != 0 {
			t.Errorf("%s: exit code %d\n%s", args, code, out)
		}
	}
	files := 0
	filepath.WalkDir(data, func(path string, e os.DirEntry, err error) error {
		files++
		if info, err := os.Lstat(path); err != nil {
			t.Error(err)
		} else if uid := info.Sys().(*syscall.Stat_t).Uid; uid != nobody {
			t.Errorf("%s belongs to %d", path, uid)
		}
		return err
	})
	if files < 6 {
		t.Errorf("%d files and directories", files)
	}
}
