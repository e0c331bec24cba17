package main_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// managing is a gateway with ManageSieve, and where that is.
func managing(t *testing.T, base string) (*gateway, string) {
	t.Helper()
	g, _ := sieving(t, base, `managesieve = ["127.0.0.1:0"]`)
	return g, g.log.wait(t, "service active", has("plugin", "sieve"))["listeners"].([]any)[0].(string)
}

// sieveConnect runs the real client as alice and returns what it says.
func sieveConnect(t *testing.T, addr, password string, args ...string) (string, int) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fmt.Fprintln(w, password)
	w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sieve-connect", append([]string{"--server", host, "--port", port, "--nosrv", "--user", "alice@example.org", "--passwordfd", "3"}, args...)...)
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// The way of a script with the real client: checked, put, listed, activated, fetched,
// deactivated, deleted. Mail is filed by it as long as it is active.
func TestManageSieveConnect(t *testing.T) {
	t.Parallel()
	peer(t, "sieve-connect")
	ca := smtptest.NewCA(t)
	g, addr := managing(t, basics+certified(t, ca))
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	do := func(want string, args ...string) {
		t.Helper()
		out, code := sieveConnect(t, addr, "secret of alice", append(args, "--tlscafile", ca.File, "--tlshostname", "localhost")...)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("sieve-connect %s: exit code %d\n%s\nwant %q", strings.Join(args, " "), code, out, want)
		}
	}
	text := "require [\"fileinto\", \"mailbox\"];\r\nif header \"Subject\" \"work\" {\r\n\tfileinto :create \"Work\";\r\n}\r\n"
	script, broken := file("main.sieve", text), file("broken.sieve", "keep;\nfileinto \"x\";\nfoo;\n")

	do("", "--checkscript", "--localsieve", script)
	for _, action := range []string{"--checkscript", "--upload"} {
		out, code := sieveConnect(t, addr, "secret of alice", action, "--localsieve", broken, "--tlscafile", ca.File, "--tlshostname", "localhost")
		if code == 0 || !strings.Contains(out, "line 2: ") || !strings.Contains(out, "line 3: unknown command 'foo'") {
			t.Errorf("%s of a broken script: exit code %d\n%s", action, code, out)
		}
	}
	do("", "--list")
	do("", "--upload", "--localsieve", script, "--remotesieve", "main")
	do("", "--upload", "--localsieve", file("other", "discard;"), "--remotesieve", `say "Räume"`)
	do("", "--list")
	do(`"main"`, "--list")
	id := g.toAlice("work")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("alice@example.org"), 1)

	do("", "--activate", "--remotesieve", "main")
	do(`"main" ACTIVE`, "--list")
	id = g.toAlice("work")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.folder("Work"), 1)

	do("", "--download", "--remotesieve", "main", "--localsieve", filepath.Join(dir, "got"))
	if got, err := os.ReadFile(filepath.Join(dir, "got")); err != nil || string(got) != text {
		t.Errorf("downloaded is %q, %v", got, err)
	}
	do("", "--deactivate")
	id = g.toAlice("work")
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("alice@example.org"), 2)
	do("", "--delete", "--remotesieve", "main")
	if out := g.must("sieve", "list", "alice@example.org"); strings.Contains(out, "main") || !strings.Contains(out, `say "Räume"`) {
		t.Errorf("the gateway has\n%s", out)
	}

	// A wrong password, and a client that does not trust the certificate.
	if out, code := sieveConnect(t, addr, "wrong", "--list", "--notlsverify"); code == 0 || !strings.Contains(out, "Authentication refused") {
		t.Errorf("with a wrong password: exit code %d\n%s", code, out)
	}
	if out, code := sieveConnect(t, addr, "secret of alice", "--list", "--tlscafile", smtptest.NewCA(t).File, "--tlshostname", "localhost"); code == 0 || !strings.Contains(out, "certificate verify failed") {
		t.Errorf("with another authority: exit code %d\n%s", code, out)
	}
	if out, code := sieveConnect(t, addr, "secret of alice", "--list", "--notlsverify", "--authmech", "LOGIN"); code != 0 || !strings.Contains(out, "Räume") {
		t.Errorf("with LOGIN: exit code %d\n%s", code, out)
	}
}

// manager is a client of ManageSieve that says what it is told to.
type manager struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// manage connects, begins TLS and logs in as alice.
func manage(t testing.TB, addr string) *manager {
	t.Helper()
	m := manageSecure(t, addr)
	m.cmd("OK", "AUTHENTICATE \"PLAIN\" %q", plainAs("alice@example.org", "secret of alice"))
	return m
}

func plainAs(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

func manageSecure(t testing.TB, addr string) *manager {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	m := &manager{t, conn, bufio.NewReader(conn)}
	m.expect("OK")
	m.cmd("OK", "STARTTLS")
	m.conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	m.r.Reset(m.conn)
	m.expect("OK")
	return m
}

// cmd says a command and wants its answer to begin so. It returns the whole answer.
func (m *manager) cmd(want, format string, args ...any) string {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.conn, format+"\r\n", args...); err != nil {
		m.t.Fatal(err)
	}
	return m.expect(want)
}

// expect reads up to the end of an answer.
func (m *manager) expect(want string) string {
	m.t.Helper()
	var all strings.Builder
	for {
		line, err := m.r.ReadString('\n')
		all.WriteString(line)
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err == nil && word != "OK" && word != "NO" && word != "BYE" {
			continue
		}
		if err != nil || !strings.HasPrefix(line, want) {
			m.t.Fatalf("the server says %q, %v; want %s", all.String(), err, want)
		}
		return all.String()
	}
}

// What sieve-connect cannot do: names change, also of the active script, which stays active;
// quotas are those of the settings; warnings; and the gateway's own view of it.
func TestManageSieveCommands(t *testing.T) {
	t.Parallel()
	g, addr := managing(t, basics)
	m := manage(t, addr)
	if all := m.cmd("OK", "CAPABILITY"); !strings.Contains(all, "\"OWNER\" \"alice@example.org\"\r\n") || !strings.Contains(all, "\"SASL\" \"SCRAM-SHA-256 PLAIN LOGIN\"\r\n") ||
		!strings.Contains(all, " vacation ") || !strings.Contains(all, "\"MAXREDIRECTS\" \"4\"\r\n") || strings.Contains(all, "STARTTLS") {
		t.Errorf("there is\n%s", all)
	}
	m.cmd("OK", `PUTSCRIPT "a" "require \"fileinto\"; fileinto \"A\";"`)
	m.cmd("OK", `SETACTIVE "a"`)
	m.cmd("NO (ACTIVE)", `DELETESCRIPT "a"`)
	m.cmd("OK", `RENAMESCRIPT "a" "b"`)
	m.cmd("NO (NONEXISTENT)", `RENAMESCRIPT "a" "c"`)
	m.cmd("OK", `PUTSCRIPT "a" "keep;"`)
	m.cmd("NO (ALREADYEXISTS)", `RENAMESCRIPT "a" "b"`)
	if list := m.cmd("OK", "LISTSCRIPTS"); !strings.HasPrefix(list, "\"a\"\r\n\"b\" ACTIVE\r\nOK") {
		t.Errorf("the list is %q", list)
	}
	m.cmd("NO \"a script's name", `PUTSCRIPT "a/b" "keep;"`)
	m.cmd("OK (WARNINGS) \"line 1: this is never reached", `CHECKSCRIPT "stop; keep;"`)
	m.cmd("NO (QUOTA/MAXSIZE)", `HAVESPACE "c" 262145`)
	m.cmd("OK", `HAVESPACE "c" 262144`)
	m.cmd("OK", "CHECKSCRIPT {%d+}\r\n%s", 1<<20, strings.Repeat("#\n", 1<<19)) // no quota there
	m.cmd("NO (QUOTA/MAXSIZE)", "CHECKSCRIPT {%d+}\r\n%s", 1<<20+1, strings.Repeat("#\n", 1<<19)+"#")
	for i := range 30 {
		m.cmd("OK", `PUTSCRIPT "%d" "keep;"`, i)
	}
	m.cmd("NO (QUOTA/MAXSCRIPTS)", `PUTSCRIPT "30" "keep;"`)
	if out := g.must("sieve", "list", "alice@example.org"); !strings.Contains(out, "29") {
		t.Errorf("the gateway has\n%s", out)
	}
	g.log.wait(t, "delivered", has("id", g.toAlice("x")))
	maildirFiles(t, g.maildir("alice@example.org"), 1) // there is no folder A
	// Another account has scripts of its own.
	m.cmd("OK", "UNAUTHENTICATE")
	m.cmd("OK", "AUTHENTICATE \"PLAIN\" %q", plainAs("bob@example.org", "secret of bob"))
	if list := m.cmd("OK", "LISTSCRIPTS"); !strings.HasPrefix(list, "OK") {
		t.Errorf("bob has %q", list)
	}
	// Whose account is gone stores nothing for whoever gets it next.
	g.must("account", "remove", "bob@example.org")
	m.cmd("BYE", `PUTSCRIPT "a" "redirect \"bob@example.com\";"`)
	g.account("bob@example.org")
	if out := g.must("sieve", "list", "bob@example.org", "--json"); strings.Contains(out, "name") {
		t.Errorf("the next bob has %q", out)
	}
}

// SCRAM-SHA-256, as the gateway offers it: the password does not travel, and the server proves
// itself before it says OK.
func TestManageSieveScram(t *testing.T) {
	t.Parallel()
	_, addr := managing(t, basics)
	login := func(m *manager, password string) (*scram.ClientConversation, string) {
		t.Helper()
		client, err := scram.SHA256.NewClient("alice@example.org", password, "")
		if err != nil {
			t.Fatal(err)
		}
		c := client.NewConversation()
		first, _ := c.Step("")
		fmt.Fprintf(m.conn, "AUTHENTICATE \"SCRAM-SHA-256\" %q\r\n", base64.StdEncoding.EncodeToString([]byte(first)))
		for {
			line, err := m.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			challenge, err := base64.StdEncoding.DecodeString(strings.Trim(line, "\"\r\n"))
			if err != nil {
				return c, line
			}
			response, err := c.Step(string(challenge))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(m.conn, "{%d+}\r\n%s\r\n", base64.StdEncoding.EncodedLen(len(response)), base64.StdEncoding.EncodeToString([]byte(response)))
		}
	}
	m := manageSecure(t, addr)
	if _, line := login(m, "wrong"); !strings.HasPrefix(line, "NO") {
		t.Errorf("with a wrong password: %s", line)
	}
	if c, line := login(m, "secret of alice"); !strings.HasPrefix(line, "OK") || !c.Valid() {
		t.Errorf("with the right one: %s, proven %t", line, c.Valid())
	}
	m.cmd("OK", "LISTSCRIPTS")
}

// OpenSSL's client knows STARTTLS of ManageSieve.
func TestManageSieveOpenSSL(t *testing.T) {
	t.Parallel()
	peer(t, "openssl")
	ca := smtptest.NewCA(t)
	_, addr := managing(t, basics+certified(t, ca))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", "s_client", "-starttls", "sieve", "-connect", addr, "-servername", "localhost", "-CAfile", ca.File,
		"-verify_return_error", "-verify_hostname", "localhost", "-quiet")
	cmd.Stdin = strings.NewReader("NOOP \"still here\"\r\nLOGOUT\r\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\"SASL\" \"SCRAM-SHA-256 PLAIN LOGIN\"") || !strings.Contains(string(out), "OK (TAG \"still here\") \"Done\"") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A reload changes the service: clients are told and come again, none is refused, and what they
// have stored is there. Without the setting nobody listens; scripts run all the same.
func TestManageSieveReload(t *testing.T) {
	t.Parallel()
	g, addr := managing(t, basics)
	m := manage(t, addr)
	m.cmd("OK", `PUTSCRIPT "a" "discard;"`)
	reload := func(old, new string) {
		t.Helper()
		b, err := os.ReadFile(g.file)
		if err != nil || !strings.Contains(string(b), old) {
			t.Fatal(err)
		}
		write(t, g.dir, strings.Replace(string(b), old, new, 1))
		g.cmd.Process.Signal(syscall.SIGHUP)
	}
	n := g.log.len()
	reload(`managesieve = ["127.0.0.1:0"]`, `managesieve = ["127.0.0.1:0"]`+"\nquota = {scripts = 1}")
	g.log.waitFrom(t, n, "service active", has("plugin", "sieve"))
	m.expect("BYE (TRYLATER)")
	m = manage(t, addr)
	m.cmd("NO (QUOTA/MAXSCRIPTS)", `PUTSCRIPT "b" "keep;"`)
	m.cmd("OK", `SETACTIVE "a"`)
	n = g.log.len()
	reload(`managesieve = ["127.0.0.1:0"]`, "")
	g.log.waitFrom(t, n, "plugin stopped", has("plugin", "sieve"))
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // the log line comes just before
		c, err := net.DialTimeout("tcp", addr, patience)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			c.Close()
		} else if !errors.Is(err, syscall.ECONNRESET) { // it was closed just then
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("somebody still listens")
		}
	}
	g.finished(g.toAlice("x"))
	maildirFiles(t, g.maildir("alice@example.org"), 0)
}

// Guessing ends like everywhere else in the gateway, and nothing of it is in the log.
func TestManageSieveGuessing(t *testing.T) {
	t.Parallel()
	g, addr := managing(t, basics)
	m := manageSecure(t, addr)
	m.cmd("NO", "AUTHENTICATE \"PLAIN\" %q", plainAs("alice@example.org", "guessed-1"))
	m.cmd("NO", "AUTHENTICATE \"PLAIN\" %q", plainAs("nobody@example.org", "guessed-2"))
	m.cmd("BYE", "AUTHENTICATE \"PLAIN\" %q", plainAs("alice@example.org", "guessed-3"))
	if n := g.log.count("log-in failed", has("client", "127.0.0.1")); n != 3 {
		t.Errorf("%d failures are in the log", n)
	}
	manage(t, addr).cmd("OK", "LOGOUT")
	g.log.wait(t, "plugin log", has("text", "managesieve log-in"))
	text := g.log.tail(1 << 20)
	for _, secret := range []string{"guessed", "secret of", plainAs("alice@example.org", "secret of alice"), plainAs("alice@example.org", "guessed-1")} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// What cannot be an address is said at once.
func TestManageSieveSetting(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"unix:/run/sieve", "4190", "127.0.0.1", "127.0.0.1:"} {
		dir := t.TempDir()
		out, code := postern(t, "", "check", "--config", write(t, dir, basics+fmt.Sprintf("[[plugin]]\nname = \"sieve\"\n[plugin.settings]\nmanagesieve = [%q]\n", address)))
		if code == 0 || !strings.Contains(out, "settings: managesieve: ") {
			t.Errorf("%s: exit code %d\n%s", address, code, out)
		}
	}
}
