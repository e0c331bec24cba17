package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The rig runs the real binary, with real plugins, on loopback and free ports, in temporary
// folders. Waiting is for events (a log line, a reply, a message at a sink), never for time
// to pass; patience is only how long a test waits before it gives up.
const patience = 60 * time.Second

var binary string // the postern built by TestMain

func TestMain(m *testing.M) {
	// The binary is built here and not by go test, which therefore has to be told what its
	// results depend on: it notes the files that a test looks at.
	filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata")) {
			os.Stat(path)
		}
		return nil
	})
	dir, err := os.MkdirTemp("", "postern-bin")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "postern")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// gateway is a running postern.
type gateway struct {
	t    testing.TB
	dir  string // of the configuration; data_dir is "data" in it
	file string
	cmd  *exec.Cmd
	log  *watchedLog
	done chan struct{} // closed when the process has ended
	err  error         // of Wait
	// addr has the address of each listener, in the order of the configuration.
	addr []string
}

// basics is the top of most configurations: everything on free ports, quick retries.
const basics = `
hostname = "mx.example.org"
data_dir = "data"
postmaster = "postmaster@example.org"
[log]
format = "json"
level = "debug"
[relay]
networks = ["127.0.0.0/8"]
[queue]
retry_first = "1s"
retry_max = "5s"
[[listener]]
address = "127.0.0.1:0"
role = "mx"
[[destination]]
match = "*"
allow_private = true
`

// write makes a configuration file in dir and returns its path. A test that brings no DNS is
// not to depend on the one of the machine.
func write(t testing.TB, dir, config string) string {
	t.Helper()
	if !strings.Contains(config, "[dns]") {
		config += "\n[dns]\nclient_names = false\n"
	}
	file := filepath.Join(dir, "postern.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// start runs a gateway with a configuration of its own folder and stops it with the test.
func start(t testing.TB, config string) *gateway {
	t.Helper()
	return startIn(t, t.TempDir(), config)
}

// startIn is start in a folder that exists, with the data that is there.
func startIn(t testing.TB, dir, config string) *gateway {
	t.Helper()
	g := launch(t, dir, config)
	g.ready()
	return g
}

// launch starts the process without waiting for it. With wrapper it is started by that
// command, which has to become it.
func launch(t testing.TB, dir, config string, wrapper ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: dir, file: write(t, dir, config), log: newWatchedLog(), done: make(chan struct{})}
	line := append(wrapper, binary, "serve", "--config", g.file)
	g.cmd = exec.Command(line[0], line[1:]...)
	g.cmd.Stderr = g.log
	g.cmd.Stdout = g.log
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		g.err = g.cmd.Wait()
		g.log.close()
		close(g.done)
	}()
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.log.tail(60))
		}
	})
	return g
}

// ready waits until the gateway says that it is ready.
func (g *gateway) ready() {
	g.t.Helper()
	g.addr = nil
	line := g.log.wait(g.t, "ready", nil)
	for _, a := range line["listeners"].([]any) {
		g.addr = append(g.addr, a.(string))
	}
}

// kill ends the process as a power cut would, as far as a process can tell.
func (g *gateway) kill() {
	g.cmd.Process.Signal(syscall.SIGKILL)
	<-g.done
}

// stop ends it with SIGTERM and returns its exit code.
func (g *gateway) stop() int {
	g.t.Helper()
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(patience):
		g.t.Fatal("gateway does not stop")
	}
	return g.cmd.ProcessState.ExitCode()
}

// run executes a subcommand for this gateway and returns its output and exit code.
func (g *gateway) run(args ...string) (string, int) {
	g.t.Helper()
	return postern(g.t, "", append(args, "--config", g.file)...)
}

// must is run for commands that have to succeed.
func (g *gateway) must(args ...string) string {
	g.t.Helper()
	out, code := g.run(args...)
	if code != 0 {
		g.t.Fatalf("postern %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// postern executes the binary.
func postern(t testing.TB, stdin string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// queued is a line of `queue list --json`.
type queued struct {
	ID, From, Recipient, State, Reason string
	Attempts                           int
	Active                             bool
}

func (g *gateway) queue() []queued {
	g.t.Helper()
	var all []queued
	for d := json.NewDecoder(strings.NewReader(g.must("queue", "list", "--json"))); ; {
		var q queued
		if err := d.Decode(&q); err == io.EOF {
			return all
		} else if err != nil {
			g.t.Fatal(err)
		}
		all = append(all, q)
	}
}

// client is a byte-exact SMTP client.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the banner.
func dial(t testing.TB, addr string) *client {
	t.Helper()
	c := connect(t, addr)
	c.expect(220)
	return c
}

func connect(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{t, conn, bufio.NewReader(conn)}
}

// send writes bytes as they are.
func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one reply.
func (c *client) reply() (int, string, error) {
	return textproto.NewReader(c.r).ReadResponse(0)
}

// expect reads one reply and wants its code.
func (c *client) expect(code int) string {
	c.t.Helper()
	got, text, err := c.reply()
	if err != nil {
		c.t.Fatalf("want %d: %v", code, err)
	}
	if got != code {
		c.t.Fatalf("got %d %s, want %d", got, text, code)
	}
	return text
}

// cmd sends a command and wants the code of its reply.
func (c *client) cmd(code int, format string, args ...any) string {
	c.t.Helper()
	c.send(fmt.Sprintf(format, args...) + "\r\n")
	return c.expect(code)
}

// message sends one message in an open session and returns the queue id.
func (c *client) message(from string, to []string, text string) string {
	c.t.Helper()
	c.cmd(250, "MAIL FROM:<%s>", from)
	for _, rcpt := range to {
		c.cmd(250, "RCPT TO:<%s>", rcpt)
	}
	c.cmd(354, "DATA")
	c.send(text + "\r\n.\r\n")
	return queuedAs(c.t, c.expect(250))
}

func queuedAs(t testing.TB, reply string) string {
	t.Helper()
	_, id, ok := strings.Cut(reply, "Ok: queued as ")
	if !ok {
		t.Fatalf("%q is not an accepting reply", reply)
	}
	return id
}

// deliver sends one message in a session of its own and returns the queue id.
func (g *gateway) deliver(from string, to []string, text string) string {
	g.t.Helper()
	c := dial(g.t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	id := c.message(from, to, text)
	c.cmd(221, "QUIT")
	c.conn.Close()
	return id
}

// watchedLog takes a gateway's JSON log and lets tests wait for lines.
type watchedLog struct {
	mu     sync.Mutex
	cond   *sync.Cond
	rest   []byte
	lines  []map[string]any
	raw    []string
	closed bool
}

func newWatchedLog() *watchedLog {
	l := &watchedLog{}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (l *watchedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			break
		}
		text := string(l.rest[:i])
		l.rest = l.rest[i+1:]
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) != nil {
			line = map[string]any{"msg": text}
		}
		l.lines = append(l.lines, line)
		l.raw = append(l.raw, text)
	}
	l.cond.Broadcast()
	return len(p), nil
}

func (l *watchedLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.cond.Broadcast()
}

// wait returns the first line with that message for which ok (nil: always) is true.
func (l *watchedLog) wait(t testing.TB, msg string, ok func(map[string]any) bool) map[string]any {
	t.Helper()
	return l.waitFrom(t, 0, msg, ok)
}

// waitFrom is wait, leaving out the first n lines.
func (l *watchedLog) waitFrom(t testing.TB, n int, msg string, ok func(map[string]any) bool) map[string]any {
	t.Helper()
	expired := false
	timer := time.AfterFunc(patience, func() {
		l.mu.Lock()
		expired = true
		l.mu.Unlock()
		l.cond.Broadcast()
	})
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := n; ; i++ {
		for i >= len(l.lines) {
			if l.closed || expired {
				t.Fatalf("the log never said %q; its end:\n%s", msg, strings.Join(l.raw[max(0, len(l.raw)-30):], "\n"))
			}
			l.cond.Wait()
		}
		if l.lines[i]["msg"] == msg && (ok == nil || ok(l.lines[i])) {
			return l.lines[i]
		}
	}
}

// count returns the number of lines with that message for which ok is true.
func (l *watchedLog) count(msg string, ok func(map[string]any) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if line["msg"] == msg && (ok == nil || ok(line)) {
			n++
		}
	}
	return n
}

func (l *watchedLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

func (l *watchedLog) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(l.raw[max(0, len(l.raw)-n):], string(l.rest)), "\n")
}

// has is a condition for wait: the line has these values.
func has(pairs ...string) func(map[string]any) bool {
	return func(line map[string]any) bool {
		for i := 0; i < len(pairs); i += 2 {
			if fmt.Sprint(line[pairs[i]]) != pairs[i+1] {
				return false
			}
		}
		return true
	}
}

// peer skips loudly when a real peer is not installed, and fails where it is required.
func peer(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if _, err := os.Stat("/usr/sbin/" + name); err == nil {
			continue
		}
		require(t, name+" is not installed")
	}
}

// require says what a test lacks: it skips, or fails with POSTERN_REQUIRE_PEERS=1.
func require(t testing.TB, lack string) {
	t.Helper()
	if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
		t.Fatal(lack)
	}
	t.Skip("SKIP: " + lack)
}
