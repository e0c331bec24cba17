package child

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/sdk/proto"
)

// When the host is killed, the kernel kills its plugins, but not what the plugins started:
// nobody is left to do that. The guard is: a process that reads from the host which groups
// there are, and kills them when its standard input ends.
//
//	+PID START    a plugin, the leader of its group, was started
//	-PID          it has ended, and its group with it
//	=MARK         the mark of this host's plugins
//	/DIR          a control group of a plugin was made
//	!DIR          it is gone

// Guard is the guard process's main; the gateway's binary runs it as "plugin guard". It
// says "ready" and returns when in has ended and everything is killed.
func Guard(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	if _, err := io.WriteString(out, "ready\n"); err != nil {
		return err
	}
	groups := make(map[int]uint64)
	cages := make(map[string]bool)
	mark := ""
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var pid int
		var start uint64
		line := lines.Text()
		if line == "" {
			continue
		}
		switch line[0] {
		case '+':
			if n, _ := fmt.Sscanf(line[1:], "%d %d", &pid, &start); n == 2 && pid > 1 {
				groups[pid] = start
			}
		case '-':
			if n, _ := fmt.Sscanf(line[1:], "%d", &pid); n == 1 {
				delete(groups, pid)
			}
		case '=':
			mark = line[1:]
		case '/':
			cages[line] = true
		case '!':
			delete(cages, line[1:])
		}
	}
	for pid, start := range groups {
		confine.KillGroup(pid, start)
	}
	for range 3 { // what forks meanwhile is found the next time
		if len(mark) < 16 || confine.KillMarked(markEnv(mark)) == 0 {
			break
		}
	}
	for dir := range cages {
		confine.RemoveGroup(dir)
	}
	return lines.Err()
}

// markEnv is how the mark stands in an environment.
func markEnv(mark string) string { return proto.EnvRun + "=" + mark }

// guardian is the host's side of the guard. It starts another one when the guard dies.
type guardian struct {
	exe  string
	mark string
	fork *forker

	mu     sync.Mutex
	groups map[int]uint64
	cages  map[string]bool
	in     *os.File // the guard's standard input
	cmd    *exec.Cmd
	closed bool
	done   chan struct{}
}

func startGuardian(exe, mark string, f *forker) (*guardian, error) {
	g := &guardian{exe: exe, mark: mark, fork: f, groups: make(map[int]uint64), cages: make(map[string]bool), done: make(chan struct{})}
	if err := g.spawn(); err != nil {
		return nil, fmt.Errorf("plugin host: the guard process cannot be started: %w", err)
	}
	go g.watch()
	return g, nil
}

func (g *guardian) spawn() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	defer outR.Close()
	cmd := exec.Command(g.exe, "plugin", "guard")
	cmd.Env = []string{"PATH=" + confine.SearchPath}
	cmd.Stdin, cmd.Stdout = r, outW
	// No death signal: it is to outlive the host, for a moment.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	g.fork.do(func() { err = cmd.Start() })
	r.Close()
	outW.Close()
	if err != nil {
		w.Close()
		return err
	}
	outR.SetReadDeadline(time.Now().Add(10 * time.Second))
	if hello, err := bufio.NewReader(io.LimitReader(outR, 64)).ReadString('\n'); err != nil || hello != "ready\n" {
		w.Close()
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("%s plugin guard does not answer", g.exe)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd, g.in = cmd, w
	g.say("=%s\n", g.mark)
	for pid, start := range g.groups {
		g.say("+%d %d\n", pid, start)
	}
	for dir := range g.cages {
		g.say("%s\n", dir)
	}
	if g.closed { // meanwhile
		g.in.Close()
	}
	return nil
}

// watch replaces a guard that dies before its time.
func (g *guardian) watch() {
	defer close(g.done)
	for {
		g.mu.Lock()
		cmd := g.cmd
		g.mu.Unlock()
		cmd.Wait()
		for {
			g.mu.Lock()
			closed := g.closed
			if !closed && g.in != nil {
				g.in.Close()
				g.in = nil
			}
			g.mu.Unlock()
			if closed {
				return
			}
			if g.spawn() == nil {
				break
			}
			time.Sleep(time.Second)
		}
	}
}

// say writes to the guard; g.mu is held. An error shows in watch.
func (g *guardian) say(format string, args ...any) {
	if g.in != nil {
		g.in.SetWriteDeadline(time.Now().Add(time.Second)) // it may be stopped
		fmt.Fprintf(g.in, format, args...)
	}
}

func (g *guardian) add(pid int, start uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.groups[pid] = start
	g.say("+%d %d\n", pid, start)
}

func (g *guardian) addCage(dirs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, dir := range dirs {
		g.cages[dir] = true
		g.say("%s\n", dir)
	}
}

func (g *guardian) removeCage(dirs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, dir := range dirs {
		delete(g.cages, dir)
		g.say("!%s\n", dir)
	}
}

func (g *guardian) remove(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.groups, pid)
	g.say("-%d\n", pid)
}

func (g *guardian) close() {
	g.mu.Lock()
	g.closed = true
	if g.in != nil {
		g.in.Close()
	}
	g.mu.Unlock()
	<-g.done
}
