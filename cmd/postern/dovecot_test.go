package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// dovecot is a real Dovecot (2.3) with everything it needs in a temporary folder. The
// password of each of its users is "secret of " and the local part.
type dovecot struct {
	dir                    string
	imap, lmtp, submission string
	lmtpSocket, authSocket string
	cmd                    *exec.Cmd
	done                   chan struct{}
}

// newDovecot starts one with these users (whole addresses). more is added to its
// configuration; a %s in it does not stand for anything.
func newDovecot(t testing.TB, users []string, more string) *dovecot {
	t.Helper()
	peer(t, "dovecot", "doveadm")
	if os.Getuid() != 0 {
		require(t, "Dovecot needs root")
	}
	for _, protocol := range []string{"imap", "lmtp", "submission"} {
		if _, err := os.Stat("/usr/share/dovecot/protocols.d/" + protocol + "d.protocol"); err != nil {
			require(t, "Dovecot's "+protocol+" is not installed")
		}
	}
	dir, err := os.MkdirTemp("", "dovecot") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	d := &dovecot{dir: dir, imap: freePort(t), lmtp: freePort(t), submission: freePort(t),
		lmtpSocket: filepath.Join(dir, "lmtp"), authSocket: filepath.Join(dir, "auth"), done: make(chan struct{})}
	d.write(t, users, more)
	d.start(t)
	return d
}

func (d *dovecot) write(t testing.TB, users []string, more string) {
	t.Helper()
	home := filepath.Join(d.dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "chown", "nobody", home)
	uid := strings.TrimSpace(run(t, "id", "-u", "nobody"))
	gid := strings.TrimSpace(run(t, "id", "-g", "nobody"))
	var passwd strings.Builder
	for _, u := range users {
		local, _, _ := strings.Cut(u, "@")
		fmt.Fprintf(&passwd, "%s:{PLAIN}secret of %s:%s:%s::%s/%s::\n", u, local, uid, gid, home, local)
	}
	config := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
auth_verbose = yes
auth_failure_delay = 0
protocols = imap lmtp submission
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:~/Maildir
auth_mechanisms = plain login
recipient_delimiter = +
passdb {
  driver = passwd-file
  args = %[1]s/passwd
}
userdb {
  driver = passwd-file
  args = %[1]s/passwd
}
service imap-login {
  inet_listener imap {
    port = %[2]s
  }
  inet_listener imaps {
    port = 0
  }
}
service submission-login {
  inet_listener submission {
    port = %[3]s
  }
}
service lmtp {
  inet_listener lmtp {
    port = %[4]s
  }
  unix_listener %[1]s/lmtp {
    mode = 0600
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener %[1]s/auth {
    mode = 0666
  }
}
`, d.dir, port(d.imap), port(d.submission), port(d.lmtp))
	for name, text := range map[string]string{"passwd": passwd.String(), "dovecot.conf": config + more} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *dovecot) start(t testing.TB) {
	t.Helper()
	d.cmd = exec.Command("dovecot", "-F", "-c", filepath.Join(d.dir, "dovecot.conf"))
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := newWatchedLog()
	d.cmd.Stdout, d.cmd.Stderr = out, out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.cmd.Wait(); close(d.done) }()
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			t.Logf("Dovecot:\n%s\n%s", out.tail(20), log[max(0, len(log)-6000):])
		}
	})
	for _, addr := range []string{d.imap, d.lmtp, d.submission} {
		waitFor(t, addr, d.done)
	}
}

// stop ends it, and those of its children that its master has not waited for.
func (d *dovecot) stop() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(10 * time.Second):
	}
	syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	<-d.done
}

// imapClient says just enough IMAP (RFC 9051) to read a mailbox.
type imapClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	n    int
}

// login opens INBOX of a user.
func (d *dovecot) login(t testing.TB, user string) *imapClient {
	t.Helper()
	conn, err := net.Dial("tcp", d.imap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := &imapClient{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.line()
	local, _, _ := strings.Cut(user, "@")
	c.cmd(fmt.Sprintf(`LOGIN %q "secret of %s"`, user, local))
	c.cmd("SELECT INBOX")
	return c
}

func (c *imapClient) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("imap: %v", err)
	}
	return s
}

// cmd sends a command that has to succeed and returns the literals in the answer.
func (c *imapClient) cmd(text string) (literals [][]byte) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("a%d ", c.n)
	if _, err := io.WriteString(c.conn, tag+text+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	for {
		s := c.line()
		if rest, ok := strings.CutPrefix(s, tag); ok {
			if !strings.HasPrefix(rest, "OK") {
				c.t.Fatalf("imap: %s -> %s", text, s)
			}
			return literals
		}
		if i := strings.LastIndexByte(s, '{'); i >= 0 && strings.HasSuffix(s, "}\r\n") {
			n, err := strconv.Atoi(s[i+1 : len(s)-3])
			if err != nil {
				c.t.Fatalf("imap: %q", s)
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(c.r, b); err != nil {
				c.t.Fatal(err)
			}
			literals = append(literals, b)
		}
	}
}

// messages is what is in the mailbox, whole and as it is.
func (c *imapClient) messages() [][]byte {
	c.t.Helper()
	c.cmd("NOOP")
	return c.cmd("UID FETCH 1:* (BODY.PEEK[])")
}

// next waits for a message and takes it out of the mailbox.
func (c *imapClient) next() []byte {
	c.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if all := c.messages(); len(all) > 0 {
			c.cmd(`UID STORE 1:* +FLAGS (\Deleted)`)
			c.cmd("EXPUNGE")
			if len(all) > 1 {
				c.t.Fatalf("%d messages at once", len(all))
			}
			return all[0]
		}
		time.Sleep(20 * time.Millisecond) // another program's delivery: nothing tells us
	}
	c.t.Fatal("no message")
	return nil
}

// swaks -> Postern -> Dovecot by LMTP, over TCP and over a unix socket, and back over IMAP,
// byte for byte; a recipient that Dovecot does not know comes back, the others are there.
func TestDovecotLMTP(t *testing.T) {
	t.Parallel()
	users := []string{"bob@example.org", "carol@example.org"}
	d := newDovecot(t, users, "")
	back := smtptest.New(t, smtptest.Options{})
	for i, hop := range []string{"lmtp://" + d.lmtp, "lmtp://unix:" + d.lmtpSocket} {
		g := start(t, forwarding("example.org", hop)+fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", back.Addr()))
		_, id := swaksOK(t, g.addr[0], "--from", "alice@example.net", "--to", "bob@example.org,nobody@example.org,carol@example.org",
			"--no-data-fixup", "--data", "@"+wireFile(t, odd))
		g.log.wait(t, "delivered", has("id", id, "to", "bob@example.org"))
		g.log.wait(t, "delivered", has("id", id, "to", "carol@example.org"))
		for _, user := range users {
			all := d.login(t, user).messages()
			if len(all) != i+1 {
				t.Fatalf("%d messages for %s, want %d", len(all), user, i+1)
			}
			untouched(t, all[i], []byte(odd))
			if !bytes.HasPrefix(all[i], []byte("Return-Path: <alice@example.net>\r\n")) {
				t.Errorf("envelope lost: %.300q", all[i])
			}
		}
		n := parseReport(t, back.Wait(t, i+1, patience)[i])
		if len(n.recipients) != 1 || n.recipients[0].Get("Final-Recipient") != "rfc822; nobody@example.org" || n.recipients[0].Get("Status") != "5.1.1" {
			t.Errorf("reported: %v", n.recipients)
		}
		if remote := n.recipients[0].Get("Remote-Mta"); remote != []string{"dns; [127.0.0.1]", "dns; mx.example.org"}[i] {
			t.Errorf("Remote-MTA: %q", remote)
		}
		g.drained()
	}
}

// Mail for one recipient more than once over a kept connection, and a large message: LMTP's
// answers by recipient are attributed to the right ones each time (RFC 2033 §4.2).
func TestDovecotLMTPManyMessages(t *testing.T) {
	t.Parallel()
	d := newDovecot(t, []string{"bob@example.org", "carol@example.org"}, "")
	g := start(t, forwarding("example.org", "lmtp://unix:"+d.lmtpSocket))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	want := map[string][]string{}
	for i := range 6 {
		text := fmt.Sprintf("Subject: number %d\r\n\r\n%s", i, strings.Repeat(fmt.Sprintf("line of %d\r\n", i), 1+i*4000))
		to := []string{"bob@example.org", "nobody@example.org", "carol@example.org"}[i%3:]
		id := c.message("", to, strings.TrimSuffix(text, "\r\n"))
		for _, rcpt := range to {
			if rcpt == "nobody@example.org" {
				g.log.wait(t, "failed", has("id", id, "to", rcpt))
				continue
			}
			g.log.wait(t, "delivered", has("id", id, "to", rcpt))
			want[rcpt] = append(want[rcpt], text)
		}
	}
	for user, texts := range want {
		all := d.login(t, user).messages()
		if len(all) != len(texts) {
			t.Fatalf("%d messages for %s, want %d", len(all), user, len(texts))
		}
		for i, text := range texts {
			untouched(t, all[i], []byte(text))
		}
	}
}
