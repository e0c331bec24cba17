package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// postfix is a real Postfix with everything it needs in a temporary folder.
type postfix struct {
	dir  string
	addr string // where it takes mail
	cmd  *exec.Cmd
	done chan struct{}
}

// newPostfix writes the configuration of one: main.cf's basics, and what a test adds.
func newPostfix(t testing.TB, mainCf string) *postfix {
	t.Helper()
	dir, err := os.MkdirTemp("", "postfix") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	p := &postfix{dir: dir, addr: freePort(t), done: make(chan struct{})}
	for _, d := range []string{"conf", "queue", "data", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"data", "mail"} {
		run(t, "chown", "postfix", filepath.Join(dir, d))
	}
	p.file(t, "conf/main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
smtp_host_lookup = native
smtp_dns_support_level = disabled
biff = no
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
%[2]s
`, dir, mainCf))
	p.file(t, "conf/master.cf", fmt.Sprintf(`%s inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
`, p.addr))
	return p
}

func (p *postfix) file(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start runs it, in the control group whose cgroup.procs is named, if any.
func (p *postfix) start(t testing.TB, procs string) {
	t.Helper()
	if os.Getuid() != 0 {
		require(t, "Postfix needs root")
	}
	args := []string{"-c", filepath.Join(p.dir, "conf"), "start-fg"}
	p.cmd = exec.Command("postfix", args...)
	if procs != "" {
		p.cmd = inGroup(procs, "postfix", args...)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := newWatchedLog()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("Postfix:\n%s\n%s", log.tail(20), p.log())
		}
	})
	waitFor(t, p.addr, p.done)
}

func (p *postfix) log() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "mail.log"))
	return string(b[max(0, len(b)-8000):])
}

// stop ends it and all its processes.
func (p *postfix) stop() {
	exec.Command("postfix", "-c", filepath.Join(p.dir, "conf"), "abort").Run()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// freePort is an address that nobody listens on now, for programs that cannot choose one
// themselves. It is below those that the system gives to everybody who asks for any, so that
// nobody takes it meanwhile, and no two callers get the same.
func freePort(t testing.TB) string {
	t.Helper()
	const first, count = 10000, 20000
	for range count {
		n := (os.Getpid()*97 + int(portsGiven.Add(1))) % count
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+n)); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

var portsGiven atomic.Int32

// waitFor waits until somebody accepts connections at addr, or the process that should has
// ended.
func waitFor(t testing.TB, addr string, ended <-chan struct{}) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("ended before it listened on %s", addr)
		case <-time.After(20 * time.Millisecond): // nothing tells us but the port itself
		}
	}
	t.Fatalf("nobody listens on %s", addr)
}

// run executes a program that has to succeed and returns its output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
