// Package peertest starts the real engines that tests of filters talk to: rspamd, clamd and
// spamd, on loopback and unix sockets, in a folder of their own, with rules and signatures of
// our own, and without a network beyond this machine.
//
// An engine is up when its Start function returns and ends with the test. A machine that
// lacks it skips the test, or fails it where POSTERN_REQUIRE_PEERS is 1. The package is for
// tests only.
package peertest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long an engine may take to start; a loaded machine is slow.
const patience = 60 * time.Second

// grace is how long it has to end by itself.
const grace = 2 * time.Second

// Engine is a process that serves at addresses.
type Engine struct {
	t       testing.TB
	command []string
	address []string // each answers when the engine is up: a path, or host:port
	dir     string

	mu   sync.Mutex
	log  bytes.Buffer
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// Write takes what the engine says. It implements [io.Writer].
func (e *Engine) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(p)
}

// Log is what the engine has said so far.
func (e *Engine) Log() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.String()
}

// Restart starts an engine that was stopped, at the same addresses.
func (e *Engine) Restart() {
	e.t.Helper()
	if err := e.start(); err != nil {
		e.t.Fatal(err)
	}
}

// Stop ends the engine and waits for that.
func (e *Engine) Stop() {
	e.signal(syscall.SIGCONT)
	e.signal(syscall.SIGTERM)
	select {
	case <-e.done:
	case <-time.After(grace):
	}
	e.signal(syscall.SIGKILL) // and its children, if it has left any
	<-e.done
}

// Freeze makes the engine hang: connections are taken, nothing answers.
func (e *Engine) Freeze() { e.signal(syscall.SIGSTOP) }

// Thaw lets a frozen engine go on.
func (e *Engine) Thaw() { e.signal(syscall.SIGCONT) }

// signal goes to the engine and its children, which are a process group.
func (e *Engine) signal(s syscall.Signal) { syscall.Kill(-e.cmd.Process.Pid, s) }

// PID is that of the engine's first process.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// CPU is what the engine and its children, which are a process group, have used, in seconds.
func (e *Engine) CPU() float64 {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	ticks := 0
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := bytes.Cut(b, []byte(") ")) // behind the name of the program
		f := bytes.Fields(rest)
		if len(f) < 13 || string(f[2]) != strconv.Itoa(e.PID()) {
			continue
		}
		for _, field := range f[11:13] { // utime and stime, in hundredths (proc(5))
			n, _ := strconv.Atoi(string(field))
			ticks += n
		}
	}
	return float64(ticks) / 100
}

// launch starts an engine, with a second try because the free ports that it was given may
// have been taken meanwhile.
func launch(t testing.TB, configure func(e *Engine)) *Engine {
	t.Helper()
	var err error
	for range 3 {
		e := &Engine{t: t, dir: folder(t)}
		configure(e)
		if err = e.start(); err == nil {
			t.Cleanup(func() {
				e.Stop()
				if t.Failed() {
					t.Logf("%s said:\n%.4000s", e.command[0], e.Log())
				}
			})
			return e
		}
	}
	t.Fatal(err)
	return nil
}

func (e *Engine) start() error {
	e.done = make(chan struct{})
	e.cmd = exec.Command(e.command[0], e.command[1:]...)
	e.cmd.Dir, e.cmd.Stdout, e.cmd.Stderr = e.dir, e, e
	e.cmd.WaitDelay = patience
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// The signal at our end goes by the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := e.cmd.Start()
		started <- err
		if err == nil {
			e.cmd.Wait()
			close(e.done)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	for _, a := range e.address {
		if err := e.answers(a); err != nil {
			e.signal(syscall.SIGKILL)
			<-e.done
			return err
		}
	}
	return nil
}

// answers waits until something accepts connections at an address.
func (e *Engine) answers(address string) error {
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if c, err := net.Dial(network, address); err == nil {
			c.Close()
			return nil
		}
		select {
		case <-e.done:
			return fmt.Errorf("%s has ended: %s", e.command[0], e.Log())
		case <-time.After(20 * time.Millisecond): // another program: nothing else tells us
		}
	}
	return fmt.Errorf("%s does not answer at %s: %s", e.command[0], address, e.Log())
}

// Program is the path of an installed program. Without it the test is skipped, or fails where
// all peers are required.
func Program(t testing.TB, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	if p := "/usr/sbin/" + name; isFile(p) {
		return p
	}
	if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("SKIP: %s is not installed", name)
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// folder makes a folder that an engine can enter under any user, with a name short enough
// for sockets.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func file(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// port is an address on loopback that was free a moment ago.
func port(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
