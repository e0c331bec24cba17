package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// amavis is a running amavisd-new without scanners. It refuses attachments called *.exe, but
// throws them away for quiet@example.org and lets them pass for lax@example.org.
type amavis struct {
	addr string
	log  *watchedLog
	cmd  *exec.Cmd
	done chan struct{}
}

const amavisConfig = `
use strict;
$myhostname = 'filter.test'; $mydomain = 'filter.test';
$MYHOME = '%[1]s'; $TEMPBASE = "$MYHOME/tmp"; $db_home = "$MYHOME/db";
$lock_file = "$MYHOME/lock"; $pid_file = "$MYHOME/pid"; $QUARANTINEDIR = undef;
$daemon_user = '%[2]s'; $daemon_group = '%[3]s';
$do_syslog = 0; $log_level = 2; $enable_db = 0; $max_servers = 3;
$unix_socketname = undef; $inet_socket_bind = '127.0.0.1'; $inet_socket_port = %[4]s;
@inet_acl = ('127.0.0.1');
$forward_method = 'smtp:[127.0.0.1]:%[5]s';
$notify_method = 'smtp:[127.0.0.1]:%[5]s';
$smtp_connection_cache_enable = 0;
@bypass_virus_checks_maps = (1);
@bypass_spam_checks_maps = (1);
@bypass_header_checks_maps = (1);
@local_domains_maps = ([".example.org"]);
$final_banned_destiny = D_REJECT;
$banned_files_quarantine_method = undef;
$banned_filename_re = new_RE(qr'\.exe$'i);
@banned_files_lovers_maps = (['lax@example.org']);
$final_destiny_maps_by_ccat{+CC_BANNED} = [{'quiet@example.org' => D_DISCARD}, D_REJECT];
1;
`

// startAmavis starts one that brings mail back to a port.
func startAmavis(t testing.TB, port string) *amavis {
	t.Helper()
	peer(t, "amavisd")
	dir, err := os.MkdirTemp("", "amavis") // its parents have to be open to amavis' user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "home")
	// It runs as its own user, and only with a configuration that belongs to root.
	u, err := user.Lookup("amavis")
	if err != nil || os.Getuid() != 0 {
		require(t, "amavis has no user, or the test is not run as root")
	}
	group, err := user.LookupGroupId(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	for _, d := range []string{dir, home, home + "/tmp", home + "/db"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		os.Chmod(d, 0o755)
		if d != dir {
			os.Chown(d, uid, gid)
		}
	}
	_, own, _ := net.SplitHostPort(freeAddress(t))
	conf := filepath.Join(dir, "amavisd.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, amavisConfig, home, u.Username, group.Name, own, port), 0o644); err != nil {
		t.Fatal(err)
	}
	a := &amavis{addr: "127.0.0.1:" + own, log: newWatchedLog(), done: make(chan struct{})}
	a.cmd = exec.Command("amavisd", "-c", conf, "foreground")
	a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = dir, a.log, a.log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		a.cmd.Wait()
		a.log.close()
		close(a.done)
	}()
	t.Cleanup(func() {
		syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL) // the process group that was made for it
		<-a.done
		if t.Failed() {
			t.Logf("amavis:\n%s", a.log.tail(60))
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // another program: nothing else tells us
		if c, err := net.Dial("tcp", a.addr); err == nil {
			c.Close()
			return a
		}
		select {
		case <-a.done:
			t.Fatalf("amavis has ended:\n%s", a.log.tail(30))
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("amavis does not start:\n%s", a.log.tail(30))
		}
	}
}

// withAttachment is a message with a file of that name.
func withAttachment(name string) string {
	return "From: a@example.net\r\nTo: b@example.org\r\nSubject: file\r\nDate: Thu, 21 May 2026 05:33:29 -0700\r\nMessage-ID: <1@example.net>\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext \xe4\r\n--b\r\nContent-Type: application/octet-stream; name=" + name +
		"\r\nContent-Disposition: attachment; filename=" + name + "\r\n\r\nMZ\r\n--b--\r\n"
}

// The filter that Debian has: clean mail passes with its fields and is otherwise untouched, a
// forbidden attachment is refused in the dialogue, and what it throws away is on record.
func TestSMTPFilterAmavis(t *testing.T) {
	t.Parallel()
	back := freeAddress(t)
	_, port, _ := net.SplitHostPort(back)
	a := startAmavis(t, port)
	sink := smtptest.New(t, smtptest.Options{})
	config := forwarding("example.org", "smtp://"+sink.Addr()) + strings.Replace(withReinjection, "127.0.0.1:0", back, 1) + smtpfilter(a.addr, "timeout = \"50s\"")
	g := start(t, config)

	text := withAttachment("file.txt") + strings.Repeat("an epilogue \xff\r\n.\r\n..\r\n", 5000)
	code, reply := g.handIn("a@example.net", []string{"bob@example.org", "carol@elsewhere.example.org"}, strings.ReplaceAll(text, "\r\n.", "\r\n.."))
	if code != 250 || !strings.Contains(reply, "queued as") {
		t.Fatalf("clean: %d %s", code, reply)
	}
	m := sink.Wait(t, 1, patience)[0]
	header, _, _ := strings.Cut(string(m.Data), "\r\n\r\n")
	if !strings.HasPrefix(header, "Received: from mx.example.org") || strings.Contains(header, "Reinject") {
		t.Errorf("the header is\n%s", header)
	}
	at := strings.Index(string(m.Data), "From: a@example.net")
	if string(m.Data[at:]) != text {
		t.Errorf("the message was changed:\n%.600q", m.Data)
	}

	code, reply = g.handIn("a@example.net", []string{"bob@example.org"}, withAttachment("file.exe"))
	if code != 554 && code != 550 || !strings.Contains(strings.ToUpper(reply), "BANNED") {
		t.Errorf("forbidden: %d %s", code, reply)
	}
	if n := len(sink.Messages()); n != 1 {
		t.Errorf("%d delivered", n)
	}
	code, reply = g.handIn("a@example.net", []string{"quiet@example.org"}, withAttachment("file.exe"))
	if q := g.queue(); code != 250 || len(q) != 1 || q[0].State != "held" || !strings.Contains(q[0].Reason, "did not bring it back") {
		t.Errorf("thrown away: %d %s, %+v", code, reply, q)
	}
	g.stop()

	// Over LMTP each recipient has an answer.
	g = startIn(t, g.dir, config+"protocol = \"lmtp\"\n[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"lmtp\"\n")
	c := dial(t, g.addr[2])
	c.cmd(250, "LHLO client.example.net")
	c.cmd(250, "MAIL FROM:<a@example.net>")
	for _, to := range []string{"bob", "lax", "quiet"} {
		c.cmd(250, "RCPT TO:<%s@example.org>", to)
	}
	c.cmd(354, "DATA")
	c.send(withAttachment("file.exe") + ".\r\n")
	if text := c.expect(554); !strings.Contains(strings.ToUpper(text), "BANNED") {
		t.Error(text)
	}
	c.expect(250)
	c.expect(250)
	if m := sink.Wait(t, 2, patience)[1]; !slices.Equal(m.To, []string{"lax@example.org"}) || !strings.Contains(string(m.Data), "MZ") {
		t.Errorf("to %s\n%s", m.To, m.Data)
	}
	if n := g.held("did not bring it back"); n != 2 {
		t.Errorf("%d held", n)
	}
}
