package main_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// call is a system call in the order of the trace: begun and ended are its places there.
type call struct {
	name, args   string
	result       string
	begun, ended int
}

var (
	wholeCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (.*)$`)
	begunCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	resumedCall = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)$`)
)

// readTrace parses what strace -f wrote.
func readTrace(t testing.TB, file string) []*call {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var calls []*call
	open := make(map[string]*call) // by thread
	for i, line := range strings.Split(string(text), "\n") {
		if m := wholeCall.FindStringSubmatch(line); m != nil {
			calls = append(calls, &call{m[2], m[3], m[4], i, i})
		} else if m := begunCall.FindStringSubmatch(line); m != nil {
			c := &call{name: m[2], args: m[3], begun: i, ended: 1 << 30}
			open[m[1]] = c
			calls = append(calls, c)
		} else if m := resumedCall.FindStringSubmatch(line); m != nil && open[m[1]] != nil {
			open[m[1]].ended, open[m[1]].result = i, m[4]
		}
	}
	return calls
}

// last returns the last call that ended before a place in the trace.
func last(calls []*call, before int, ok func(*call) bool) *call {
	var found *call
	for _, c := range calls {
		if c.ended < before && ok(c) && (found == nil || c.ended > found.ended) {
			found = c
		}
	}
	return found
}

// TestD03SyscallOrder reads from a trace that everything a 250 promises was synced, and had
// said so, before the 250 was written.
func TestD03SyscallOrder(t *testing.T) {
	peer(t, "strace")
	for name, size := range map[string]int{"small": small, "large": large} {
		t.Run(name, func(t *testing.T) {
			s, l, dir := newSink(t), newLedger(t), t.TempDir()
			s.tarpit() // only the acceptance writes
			file := filepath.Join(t.TempDir(), "trace")
			// -D: strace is no parent of the gateway, which is then ours to kill.
			g := launch(t, dir, relayTo(s), "strace", "-D", "-f", "-y", "-s", "256", "-o", file,
				"-e", "trace=write,pwrite64,writev,pwritev,fsync,fdatasync,sync_file_range,rename,renameat")
			g.ready()
			m := l.write(size, "rcpt@example.com")
			l.accepted(g, m)
			g.kill()
			eventually(t, "the trace is complete", func() bool {
				text, _ := os.ReadFile(file)
				return strings.Contains(string(text), "+++ killed by SIGKILL +++")
			})
			checkOrder(t, readTrace(t, file), g, m, size == large)
		})
	}
}

func checkOrder(t *testing.T, calls []*call, g *gateway, m *letter, hasContent bool) {
	t.Helper()
	var reply *call
	for _, c := range calls {
		if strings.HasPrefix(c.name, "write") && strings.Contains(c.args, "queued as "+m.queue) && strings.Contains(c.args, "250 2.0.0") {
			reply = c
		}
	}
	if reply == nil {
		t.Fatal("the trace has no 250")
	}
	// want finds a successful call that came after another and was over before a third.
	want := func(what string, after, before int, ok func(*call) bool) *call {
		t.Helper()
		c := last(calls, before, ok)
		if c == nil || c.begun < after {
			t.Fatalf("no %s between lines %d and %d of the trace: the 250 was too early", what, after, before)
		}
		return c
	}
	isSync := func(c *call, path string) bool {
		return (c.name == "fsync" || c.name == "fdatasync") && strings.Contains(c.args, path) && c.result == "0"
	}
	written := want("write to the log", 0, reply.begun, func(c *call) bool { return c.name == "pwrite64" && strings.Contains(c.args, ".log>") })
	want("sync of the log", written.ended, reply.begun, func(c *call) bool { return isSync(c, ".log>") })
	if !hasContent {
		return
	}
	content := g.contents()
	if len(content) != 1 {
		t.Fatalf("content files: %v", content)
	}
	name := filepath.Base(content[0]) + ">"
	written2 := want("write of the content", 0, reply.begun, func(c *call) bool { return c.name == "write" && strings.Contains(c.args, name) })
	synced := want("sync of the content", written2.ended, written.begun, func(c *call) bool { return isSync(c, name) })
	want("sync of the content's directory", synced.ended, written.begun, func(c *call) bool { return isSync(c, "/data/content>") })
}

// saboteur is an strace that makes system calls of a running gateway fail.
type saboteur struct {
	t    testing.TB
	cmd  *exec.Cmd
	file string
	out  *bufio.Reader
}

// sabotage begins; what are expressions for strace.
func (g *gateway) sabotage(what ...string) *saboteur {
	g.t.Helper()
	peer(g.t, "strace")
	s := &saboteur{t: g.t, file: filepath.Join(g.t.TempDir(), "injected")}
	s.cmd = exec.Command("strace", append([]string{"-f", "-o", s.file, "-p", strconv.Itoa(g.cmd.Process.Pid)}, what...)...)
	stderr, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	s.out = bufio.NewReader(stderr)
	g.t.Cleanup(func() { s.cmd.Process.Kill() })
	line, err := s.out.ReadString('\n')
	if err != nil || !strings.Contains(line, "attached") {
		s.cmd.Wait()
		require(g.t, "strace cannot attach: "+line)
	}
	return s
}

// end lets the gateway go, and returns how many calls were made to fail.
func (s *saboteur) end() int {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGINT)
	io.Copy(io.Discard, s.out)
	s.cmd.Wait()
	text, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Count(string(text), "(INJECTED)")
}

// abandon ends it when its gateway is dead: it may wait for the dead for ever.
func (s *saboteur) abandon() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// TestD05SyncFails makes syncs fail, those of the log, of content files and of directories,
// once for each thread or always: 451, never 250, nothing of it is ever delivered, also not
// after a crash, and the next message is taken.
func TestD05SyncFails(t *testing.T) {
	peer(t, "strace")
	for _, c := range []struct {
		name    string
		inject  []string
		size    int
		code    int
		segment bool // only calls on the current segment
		goesOn  bool // the same process takes the next message; else it is killed at once
	}{
		{name: "log", inject: []string{"fdatasync:error=EIO"}, size: small, code: 451, segment: true},
		{name: "log", inject: []string{"fdatasync:error=EIO"}, size: small, code: 451, segment: true, goesOn: true},
		{name: "log once", inject: []string{"fdatasync:error=EIO:when=1"}, size: small, code: 451},
		// Without any disk the refusal is final once there is one again.
		{name: "log everything", inject: []string{"fsync,fdatasync:error=EIO"}, size: small, code: 451, goesOn: true},
		{name: "log write", inject: []string{"pwrite64:error=EIO"}, size: small, code: 451, segment: true},
		{name: "log of large", inject: []string{"fdatasync:error=EIO"}, size: large, code: 451, segment: true},
		{name: "content", inject: []string{"fdatasync:error=EIO"}, size: large, code: 451},
		{name: "content", inject: []string{"fdatasync:error=EIO"}, size: large, code: 451, goesOn: true},
		{name: "content directory", inject: []string{"fsync:error=EIO"}, size: large, code: 451},
		{name: "content directory", inject: []string{"fsync:error=EIO"}, size: large, code: 451, goesOn: true},
		{name: "log full", inject: []string{"pwrite64:error=ENOSPC"}, size: small, code: 452, segment: true},
		{name: "log full", inject: []string{"pwrite64:error=ENOSPC"}, size: small, code: 452, segment: true, goesOn: true},
		{name: "log sync full", inject: []string{"fdatasync:error=EDQUOT"}, size: small, code: 452, segment: true},
		{name: "content sync full", inject: []string{"fdatasync:error=ENOSPC"}, size: large, code: 452},
		{name: "content open full", inject: []string{"openat:error=ENOSPC"}, size: large, code: 452},
		{name: "content open full", inject: []string{"openat:error=ENOSPC"}, size: large, code: 452, goesOn: true},
		{name: "content open read-only", inject: []string{"openat:error=EROFS"}, size: large, code: 451},
	} {
		name := c.name
		if c.goesOn {
			name += ", goes on"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, l, dir := newSink(t), newLedger(t), t.TempDir()
			g := startIn(t, dir, relayTo(s))
			l.accepted(g, l.write(small, "rcpt@example.com"))
			g.drained()
			var args []string
			for _, i := range c.inject {
				args = append(args, "-e", "inject="+i)
			}
			if c.segment {
				all := g.segments()
				args = append(args, "-P", all[len(all)-1])
			}
			saboteur := g.sabotage(args...)
			m := l.write(c.size, "rcpt@example.com")
			code, err := l.post(g.addr[0], m, nil)
			if n := saboteur.end(); n == 0 {
				t.Fatal("nothing was made to fail")
			}
			if err != nil || code != c.code {
				t.Errorf("got %d %v, want %d", code, err, c.code)
			}
			if c.goesOn {
				l.accepted(g, l.write(c.size, "rcpt@example.com"))
				l.accepted(g, l.write(small, "rcpt@example.com"))
			}
			g.kill()
			s.restarted()
			g = startIn(t, dir, relayTo(s))
			l.accepted(g, l.write(c.size, "rcpt@example.com"))
			l.arrive(s)
			g.drained()
			l.check(nil, 2, s)
			if n := len(g.contents()); n > 0 {
				t.Errorf("%d content files are left", n)
			}
		})
	}
}

// TestD26SharedSyncFails: of many sessions that wait for one sync that fails, none sees a
// 250, and the gateway goes on without a restart.
func TestD26SharedSyncFails(t *testing.T) {
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	s.tarpit() // only acceptances are written
	g := startIn(t, dir, relayTo(s))
	shared := 0
	for round := 0; shared < 2; round++ {
		if round == 5 {
			t.Fatal("no two sessions ever waited for a sync that failed")
		}
		shared = failTogether(g, l)
	}
	t.Logf("%d of 32 refused", shared)
	l.accepted(g, l.write(small, "rcpt@example.com"))
	g.kill()
	s.restarted()
	s.open()
	s.hangup()
	g = startIn(t, dir, relayTo(s))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
}

// failTogether sends 32 messages at once and returns how many were refused. Writes to the
// log are slow, so that sessions gather behind the first, whose sync succeeds: those of a
// thread fail from the second on.
func failTogether(g *gateway, l *ledger) int {
	g.t.Helper()
	all := g.segments()
	saboteur := g.sabotage("-P", all[len(all)-1], "-e", "inject=pwrite64:delay_enter=300000", "-e", "inject=fdatasync:error=EIO:when=2+")
	var work sync.WaitGroup
	var letters []*letter
	for range 32 {
		m := l.write(small, "rcpt@example.com")
		letters = append(letters, m)
		work.Go(func() { l.post(g.addr[0], m, nil) })
	}
	work.Wait()
	injected := saboteur.end()
	refused := 0
	for _, m := range letters {
		switch m.code {
		case 451:
			refused++
		case 250:
		default:
			g.t.Errorf("got %d", m.code)
		}
	}
	if refused > 0 && injected == 0 {
		g.t.Error("refused though nothing failed")
	}
	return refused
}
