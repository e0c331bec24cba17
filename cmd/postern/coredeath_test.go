package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// orphaned is a gateway with a plugin that has grandchildren, each in a session of its own
// and deaf to polite signals, and one with an innocent plugin. family is all their processes.
func orphaned(t *testing.T) (g *gateway, config string, out *sink, family []int) {
	t.Helper()
	out = newSink(t)
	pids := t.TempDir()
	config = basics + exampleTo(out) +
		fmt.Sprintf("[[plugin]]\nname = \"hostile\"\ncommand = %q\n[plugin.settings]\ndir = %q\n", program(t, "hostile"), pids) +
		fmt.Sprintf("[[plugin]]\nname = \"look\"\ncommand = %q\n", program(t, "look"))
	g = start(t, config)
	for range 2 {
		g.deliver("a@example.net", []string{"b@example.org"}, "X-Do: orphan\r\n\r\ntext")
	}
	for _, p := range pluginsOf(g) {
		family = append(family, p.Pid)
	}
	family = append(family, startedIn(t, pids)...)
	if len(family) != 4 {
		t.Fatalf("the processes are %v", family)
	}
	for _, pid := range family {
		if !alive(pid) {
			t.Fatalf("process %d does not live", pid)
		}
	}
	return g, config, out, family
}

// buried checks that a gateway that has just ended takes its family with it, and that the
// next one works.
func buried(t *testing.T, g *gateway, config string, out *sink, family []int) {
	t.Helper()
	for _, pid := range family {
		eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) })
	}
	n := len(out.mail())
	g = startIn(t, g.dir, config)
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: the next life\r\n\r\ntext")
	out.wait(t, "mail of the next life", func(got []arrived) bool {
		for _, m := range got[min(n, len(got)):] {
			if strings.Contains(m.Data, "Subject: the next life\r\n") {
				return true
			}
		}
		return false
	})
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// G-11: the gateway dies as a Go program does that panics: the runtime prints all stacks and
// ends the process at once, and no deferred function runs.
func TestG11CorePanics(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGQUIT": syscall.SIGQUIT, "SIGABRT": syscall.SIGABRT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, config, out, family := orphaned(t)
			g.cmd.Process.Signal(signal)
			<-g.done
			if log := g.log.tail(1 << 20); !strings.Contains(log, "\ngoroutine ") {
				t.Error("it did not die of that")
			}
			buried(t, g, config, out, family)
		})
	}
}

// G-11: the kernel kills the gateway, and nothing else, because it takes more memory than
// there is.
func TestG11CoreOutOfMemory(t *testing.T) {
	t.Parallel()
	group := memoryGroup(t)
	g, config, out, family := orphaned(t)
	// Only the gateway itself: what its plugins take is not counted.
	put(t, filepath.Join(group, "cgroup.procs"), strconv.Itoa(g.cmd.Process.Pid))
	limit := "memory.limit_in_bytes"
	if _, err := os.Stat(filepath.Join(group, limit)); err != nil {
		limit = "memory.max"
	}
	put(t, filepath.Join(group, limit), strconv.Itoa(8<<20))
	// A header is kept in memory while it comes in: 90 MB in all, from more addresses than one
	// client may have sessions.
	var load sync.WaitGroup
	fields := strings.Repeat("X-Field: "+strings.Repeat("x", 989)+"\r\n", 900)
	for i := range 100 {
		load.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+i%10))}}
			conn, err := d.Dial("tcp", g.addr[0])
			if err != nil {
				return // it has ended
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			r := bufio.NewReader(conn)
			if replies(r, 1) != nil {
				return
			}
			for _, line := range []string{"EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA"} {
				if fmt.Fprintf(conn, "%s\r\n", line); replies(r, 1) != nil {
					return
				}
			}
			conn.Write([]byte(fields))
			<-g.done // the end of the message never comes
		})
	}
	select {
	case <-g.done:
	case <-time.After(patience):
		g.kill()
		t.Error("the kernel did not kill the gateway")
	}
	load.Wait()
	if s := g.cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Errorf("the gateway ended with %v", g.cmd.ProcessState)
	}
	buried(t, g, config, out, family)
}

// memoryGroup makes a control group that can limit memory.
func memoryGroup(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("postern-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for root, limit := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, limit)); err != nil {
			os.Remove(dir)
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		for _, swap := range []string{"memory.swappiness", "memory.swap.max"} { // where there is one
			if _, err := os.Stat(filepath.Join(dir, swap)); err == nil {
				put(t, filepath.Join(dir, swap), "0")
			}
		}
		return dir
	}
	require(t, "no control group can limit memory here; run as root, with the memory controller")
	return ""
}

func put(t testing.TB, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}
