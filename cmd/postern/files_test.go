package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

func withLandlock(t *testing.T) {
	t.Helper()
	if confine.Landlock() < 3 {
		require(t, "no Landlock that can restrict everything")
	}
}

// TestG15HostileFiles: a plugin whose files are restricted gets at no secret of the gateway or the
// system, whoever it runs as, and does its work.
func TestG15HostileFiles(t *testing.T) {
	t.Parallel()
	withLandlock(t)
	for name, user := range map[string]string{"as the gateway": "", "with a user": "user = \"64321\"\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if user != "" && os.Geteuid() != 0 {
				require(t, "not root")
			}
			out := newSink(t)
			dir := t.TempDir()
			enterable(t, dir)
			enterable(t, filepath.Dir(binary))
			for _, name := range []string{"lists", "state"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
				if user != "" {
					os.Chown(filepath.Join(dir, name), 64321, 64321)
				}
			}
			list := filepath.Join(dir, "lists/words")
			if err := os.WriteFile(list, []byte("lottery\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			g := startIn(t, dir, hostile(t, out, user+"files = {read = [\"lists\"], write = [\"state\"]}\n"))
			g.log.wait(t, "plugin confined", has("plugin", "hostile", "files_by", fmt.Sprintf("landlock v%d", confine.Landlock())))
			c := dial(t, g.addr[0])
			c.cmd(250, "EHLO client.example.net")
			may := func(what string, allowed bool) {
				t.Helper()
				n := g.log.len()
				code, _ := converse(c, "a@example.net", "X-Do: "+what+"\r\nSubject: x\r\n\r\n"+strings.Repeat("0123456789abcdef\r\n", 10000))
				if allowed {
					if code != 250 {
						t.Errorf("%s: %d", what, code)
					}
					return
				}
				if code != 451 {
					t.Errorf("%s: %d", what, code)
				}
				line := g.log.waitFrom(t, n, "plugin", has("plugin", "hostile"))
				if !strings.Contains(fmt.Sprint(line["reason"]), "permission denied") {
					t.Errorf("%s: %v", what, line["reason"])
				}
			}
			data := filepath.Join(dir, "data")
			for _, secret := range []string{"/etc/shadow", "/etc/passwd", g.file, filepath.Join(data, "tls/self-signed.pem"), filepath.Join(data, "directory.db"), "/proc/self/environ",
				fmt.Sprintf("/proc/%d/environ", g.cmd.Process.Pid), fmt.Sprintf("/proc/%d/mem", g.cmd.Process.Pid), binary} {
				may("read "+secret, false)
			}
			for _, folder := range []string{"/", "/etc", "/root", dir, data, filepath.Join(data, "queue"), filepath.Join(data, "content"), filepath.Join(data, "run")} {
				may("list "+folder, false)
			}
			for _, file := range []string{filepath.Join(dir, "new"), g.file, list, filepath.Join(data, "queue/new"), "/tmp/postern-hostile", "/etc/cron.d/hostile"} {
				may("write "+file, false)
			}
			may("run /usr/bin/id", false)
			may("run /bin/sh", false)
			for _, good := range []string{"read " + list, "list " + filepath.Dir(list), "write " + filepath.Join(dir, "state/seen"), "read /etc/resolv.conf", "body"} {
				may(good, true)
			}
			if code := g.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestG15BuiltinFiles: built-in plugins work when their files are restricted: with none, with keys
// to read, with mailboxes to write; in the gateway, in check and in try.
func TestG15BuiltinFiles(t *testing.T) {
	t.Parallel()
	withLandlock(t)
	sink := smtptest.New(t, smtptest.Options{})
	config := forwarding("elsewhere.test", "smtp://"+sink.Addr()) + `
[[domain]]
name = "mailbox.test"
deliver = "maildir"
[[plugin]]
name = "bcc"
files = {}
[plugin.settings]
copies = {"elsewhere.test" = "archive@mailbox.test"}
[[plugin]]
name = "maildir"
files = {write = ["data/mail"]}
[[plugin]]
name = "dkim"
files = {read = ["data/dkim"]}
[plugin.settings]
domains = ["example.org", "example.com"]
`
	dir, records := signing(t, config)
	config += published(t, records)
	if err := os.Mkdir(filepath.Join(dir, "data/mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // it is where root may write too
		if err := os.Chown(filepath.Join(dir, "data/mail"), 64321, 64321); err != nil {
			t.Fatal(err)
		}
	}
	g := startIn(t, dir, config)
	g.must("account", "add", "archive@mailbox.test")
	text := "From: Alice <alice@example.org>\r\nTo: bob@elsewhere.test\r\nSubject: x\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-Id: <1@x>\r\n\r\nbody\r\n"
	g.deliver("alice@example.org", []string{"bob@elsewhere.test"}, text)
	verified(t, "message", sink.Wait(t, 1, patience)[0].Data, "example.org", "rsa-sha256", records)
	if m := maildirFiles(t, g.maildir("archive@mailbox.test"), 1)[0]; !strings.Contains(string(m), "Subject: x") {
		t.Errorf("the copy is\n%s", m)
	}
	check := g.must("check")
	for _, name := range []string{"bcc", "maildir", "dkim"} {
		if want := fmt.Sprintf("plugin %s starts, restricted to its files by Landlock %d", name, confine.Landlock()); !strings.Contains(check, want) {
			t.Errorf("no %q in\n%s", want, check)
		}
	}
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := g.run("try", file, "--from", "alice@example.org", "--to", "bob@elsewhere.test", "--client", "127.0.0.1"); code != 0 || !strings.Contains(out, "dkim") {
		t.Errorf("try: %d\n%s", code, out)
	}
	// What is not there is said at once.
	bad := write(t, t.TempDir(), strings.Replace(config, "data/mail", "data/nowhere", 1))
	if out, code := postern(t, "", "check", "--config", bad); code != 1 || !strings.Contains(out, "files.write") || !strings.Contains(out, "data/nowhere") {
		t.Errorf("check: %d\n%s", code, out)
	}
}

// TestG10KilledWithFiles: the tree of a plugin whose files are restricted ends with the gateway.
func TestG10KilledWithFiles(t *testing.T) {
	t.Parallel()
	withLandlock(t)
	pids := t.TempDir()
	deeds, keys := []string{"forks 3", "orphan"}, ""
	if os.Geteuid() == 0 { // with a control group even what hides is found
		deeds, keys = append(deeds, "orphan bare"), "processes = 64\n"
	}
	g := start(t, hostile(t, newSink(t), keys+fmt.Sprintf("files = {write = [%q]}\n[plugin.settings]\ndir = %[1]q\n", pids)))
	for _, do := range deeds {
		g.deliver("a@example.net", []string{"b@example.org"}, "X-Do: "+do+"\r\nSubject: x\r\n\r\ntext\r\n")
	}
	started := startedIn(t, pids)
	if len(started) != 2+len(deeds) {
		t.Fatalf("it started %v", started)
	}
	g.cmd.Process.Signal(syscall.SIGKILL)
	<-g.done
	for _, pid := range started {
		eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) })
	}
}
