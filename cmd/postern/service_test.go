package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// echoing is the configuration of a gateway with the test service.
func echoing(binary, dir, greeting string) string {
	return basics + fmt.Sprintf(`
[[plugin]]
name = "echo"
command = %q
[plugin.settings]
addresses = ["127.0.0.1:0", "unix:%s/s"]
greeting = %q
file = %q
`, binary, dir, greeting, filepath.Join(dir, "active"))
}

// say opens a connection, says a line and returns the answer, which is waited for.
func say(t *testing.T, network, address, line string) string {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, line)
	answer, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer)
}

// A service listens where it wants to; a reload and a crash hand its listeners to the next
// process: no client is refused, and no two processes are active.
func TestServiceListens(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "svc") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := sdktest.Build(t, "../../testdata/plugins/service")
	g := start(t, echoing(binary, dir, "hello"))
	active := g.log.wait(t, "service active", has("plugin", "echo"))
	tcp, unix := active["listeners"].([]any)[0].(string), filepath.Join(dir, "s")
	answer := func(network, address string, pid any, greeting string) {
		t.Helper()
		if got, want := say(t, network, address, "x y"), fmt.Sprintf("%s %v x y", greeting, pid); got != want {
			t.Errorf("the answer is %q, want %q", got, want)
		}
	}
	answer("tcp", tcp, active["pid"], "hello")
	answer("unix", unix, active["pid"], "hello")
	if out, code := g.run("check"); code != 0 { // beside the one that runs
		t.Errorf("check: %s", out)
	}

	// Clients come all the time, while it is replaced and while it dies.
	stop, refused := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(refused)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", tcp)
			if err != nil {
				refused <- err.Error()
				return
			}
			c.Close()
		}
	}()
	write(t, g.dir, echoing(binary, dir, "good day"))
	n := g.log.len()
	g.cmd.Process.Signal(syscall.SIGHUP)
	next := g.log.waitFrom(t, n, "service active", nil)
	if next["pid"] == active["pid"] || next["listeners"].([]any)[0] != tcp {
		t.Errorf("first %v, then %v", active, next)
	}
	answer("tcp", tcp, next["pid"], "good day")
	answer("unix", unix, next["pid"], "good day")
	n = g.log.len()
	say(t, "tcp", tcp, "exit")
	answer("tcp", tcp, g.log.waitFrom(t, n, "service active", nil)["pid"], "good day")
	close(stop)
	if err, ok := <-refused; ok {
		t.Errorf("a client was refused: %s", err)
	}
	if n := g.log.count("the service ended before its time", nil); n != 0 {
		t.Error("two processes were active at the same time")
	}

	// Without the plugin nobody listens any more.
	write(t, g.dir, basics)
	n = g.log.len()
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.log.waitFrom(t, n, "plugin stopped", has("plugin", "echo"))
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // the log line comes just before
		c, err := net.Dial("tcp", tcp)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("somebody still listens")
		}
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A reload to an address that is taken is refused, and the old service goes on.
func TestServiceAddressTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := func(addresses string) string {
		return strings.Replace(echoing(sdktest.Build(t, "../../testdata/plugins/service"), dir, "hello"), fmt.Sprintf(`["127.0.0.1:0", "unix:%s/s"]`, dir), addresses, 1)
	}
	g := start(t, config(`["127.0.0.1:0"]`))
	active := g.log.wait(t, "service active", nil)
	write(t, g.dir, config(fmt.Sprintf(`["127.0.0.1:0", %q]`, taken.Addr())))
	n := g.log.len()
	g.cmd.Process.Signal(syscall.SIGHUP)
	line := g.log.waitFrom(t, n, "configuration not reloaded, the old one stays in force", nil)
	if !strings.Contains(fmt.Sprint(line["error"]), "address already in use") {
		t.Errorf("the log says %v", line)
	}
	if got, want := say(t, "tcp", active["listeners"].([]any)[0].(string), "x"), fmt.Sprintf("hello %v x", active["pid"]); got != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
}

// A disabled service neither listens nor works, also after a reload, until it is enabled.
func TestServiceDisabled(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "svc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := sdktest.Build(t, "../../testdata/plugins/service")
	g := start(t, echoing(binary, dir, "hello"))
	g.log.wait(t, "service active", nil)
	n := g.log.len()
	g.must("plugin", "disable", "echo")
	g.log.waitFrom(t, n, "plugin stopped", has("plugin", "echo"))
	n = g.log.len()
	write(t, g.dir, echoing(binary, dir, "good day"))
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.log.waitFrom(t, n, "plugin stopped", has("plugin", "echo"))
	if active := g.log.count("service active", nil); active != 1 {
		t.Errorf("it was active %d times", active)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // the log line comes just before
		c, err := net.Dial("unix", filepath.Join(dir, "s"))
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("somebody still listens")
		}
	}
	n = g.log.len()
	g.must("plugin", "enable", "echo")
	active := g.log.waitFrom(t, n, "service active", nil)
	if got, want := say(t, "unix", filepath.Join(dir, "s"), "x"), fmt.Sprintf("good day %v x", active["pid"]); got != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
}
