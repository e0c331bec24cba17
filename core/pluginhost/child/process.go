package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
	"github.com/postern-mail/postern/sdk/proto"
)

const (
	maxNoise    = 64 << 10               // bytes that a plugin may print before its handshake
	outputGrace = 500 * time.Millisecond // for what is still in its pipes when it has ended
)

var handshakeLine = regexp.MustCompile(`^\d+\|\d+\|`)

// Spec is what a process is started with.
type Spec struct {
	Name string // of the plugin
	Argv []string
	// SHA256 is the checksum that the program must have, in hex; "": any.
	SHA256 string
	User   *confine.User // nil: the host's own
	Limits confine.Limits
	// Files are what it may open besides what every plugin needs; nil: whatever its user may.
	Files *confine.Files
	// AllowMail adds to the rules about files what the host will hand over.
	AllowMail func(*confine.Rules) error
	Network   bool // it may use it
	Listeners []Listener
	// Prepare is called before the start, when the socket directory is there. What it returns
	// goes into the environment.
	Prepare func(socketDir string) ([]string, error)
	Log     *pluginlog.Log
}

// Listener is a listening socket that a process is given.
type Listener struct {
	Address string // as the plugin names it
	File    *os.File
}

// A Process is one process of a plugin, as go-plugin wants it (it implements runner.Runner), with
// the host's own ideas of environment, output and killing.
type Process struct {
	spec   Spec
	parent *Parent
	mark   string // in the environment of it and its children
	// Out is for its standard output where that is no handshake, Err for its standard error.
	Out, Err *pluginlog.Stream

	who     *syscall.Credential // nil: the host's user
	own     *forker             // whose thread has its rules; nil: there are none
	cutOff  bool                // it has no network, as far as the kernel sees to it
	filesBy string              // how its files are restricted, for the log
	cage    *confine.Cage
	oom     bool // it ran out of the memory that it may take

	env        []string
	socketRoot string
	socketDir  string
	cmd        *exec.Cmd
	pid        int
	start      uint64
	hello      *io.PipeReader // what go-plugin reads: the handshake only
	helloW     *io.PipeWriter
	pipes      []*os.File // our ends of its output

	mu      sync.Mutex
	reaped  bool
	killed  bool // by the host, while it ran
	waitErr error
	noise   string        // first line that was no handshake
	dead    chan struct{} // closed when the process has ended
	exited  chan struct{} // and when everything about it is done
}

// Prepare takes what go-plugin has to say about the process: its part of the environment, and
// the directory for the socket, which becomes the plugin's. After an error nobody may wait for
// the process, else Start must follow.
func (p *Process) Prepare(env []string, socketDir string) error {
	p.socketDir = socketDir
	if p.who != nil {
		if err := os.Chown(socketDir, int(p.who.Uid), int(p.who.Gid)); err != nil {
			return err
		}
	}
	more, err := p.spec.Prepare(socketDir)
	if err != nil {
		return err
	}
	p.env = append(append(env, more...),
		"PATH="+confine.SearchPath,
		"LANG=C.UTF-8",
		proto.EnvParentFD+"=3",
		proto.EnvParentPID+"="+strconv.Itoa(os.Getpid()),
		proto.EnvName+"="+p.spec.Name,
		markEnv(p.mark),
	)
	if len(p.spec.Listeners) > 0 {
		p.env = append(p.env, listenersEnv(p.spec.Listeners))
	}
	if tz, ok := os.LookupEnv("TZ"); ok {
		p.env = append(p.env, "TZ="+tz)
	}
	p.hello, p.helloW = io.Pipe()
	p.dead, p.exited = make(chan struct{}), make(chan struct{})
	return nil
}

// listenersEnv names the descriptors: the first comes after the parent's.
func listenersEnv(list []Listener) string {
	var parts []string
	for i, l := range list {
		parts = append(parts, strconv.Itoa(4+i)+"="+l.Address)
	}
	return proto.EnvListeners + "=" + strings.Join(parts, ",")
}

// Start forks. Implements runner.Runner.
func (p *Process) Start(context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, outR.Close(), outW.Close())
	}
	p.pipes = []*os.File{outR, errR}
	err = p.execute(outW, errW)
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		close(p.dead)
		close(p.exited)
		return err
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.readStdout(outR) })
	readers.Go(func() { io.Copy(p.Err, errR) })
	go p.wait(&readers)
	return nil
}

// wait notices the end of the process and cleans up after it.
func (p *Process) wait(readers *sync.WaitGroup) {
	// While the ended process is not waited for, its pid, and with that the name of its
	// group, cannot be given to another.
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	close(p.dead)
	p.mu.Lock()
	syscall.Kill(-p.pid, syscall.SIGKILL)
	p.reaped = true
	p.waitErr = p.cmd.Wait()
	p.mu.Unlock()
	confine.KillMarked(markEnv(p.mark)) // children that left the group
	p.oom = p.cage.Exhausted()
	p.cage.Remove()
	p.parent.guard.removeCage(p.cage.Groups)
	p.parent.dir.forget(p.pid)
	p.parent.guard.remove(p.pid)
	// A child that got away may hold our pipes; what was written is read by now or lost.
	unblock := make(chan struct{})
	go func() { readers.Wait(); close(unblock) }()
	select {
	case <-unblock:
	case <-time.After(outputGrace):
	}
	for _, pipe := range p.pipes {
		pipe.Close()
	}
	<-unblock
	p.Out.Close()
	p.Err.Close()
	p.helloW.Close()
	if p.own != nil {
		p.own.close()
	}
	close(p.exited)
}

// readStdout passes the handshake on and everything else to the log.
func (p *Process) readStdout(f *os.File) {
	in := bufio.NewReaderSize(f, 16<<10)
	for read := 0; read < maxNoise; {
		line, err := in.ReadSlice('\n')
		read += len(line)
		if err == nil && handshakeLine.Match(line) {
			p.helloW.Write(line)
			p.helloW.Close()
			break
		}
		p.mu.Lock()
		if p.noise == "" {
			p.noise = pluginlog.Printable(strings.TrimSpace(string(line[:min(len(line), 200)])))
		}
		p.mu.Unlock()
		p.Out.Write(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
	// Nothing more is expected, but a full pipe would block the plugin. Without a
	// handshake go-plugin is told that there will be none.
	p.helloW.Close()
	io.Copy(p.Out, in)
}

// Wait returns when the process has ended. Implements runner.Runner.
func (p *Process) Wait(context.Context) error {
	<-p.exited
	return p.waitErr
}

// How says how an ended process ended.
func (p *Process) How() string {
	if s := p.cmd.ProcessState; s != nil {
		return s.String()
	}
	return "ended"
}

// End says how an ended process ended, with the reason if it is known.
func (p *Process) End() string {
	if p.oom {
		return fmt.Sprintf("%s: it took more than its memory of %d bytes", p.How(), p.spec.Limits.Memory)
	}
	return p.How()
}

// Killed reports whether the host ended the process, and not the process itself.
func (p *Process) Killed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// Pid is 0 before the start.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Dead is closed when the process has ended; nil before Prepare.
func (p *Process) Dead() <-chan struct{} { return p.dead }

// Exited is closed when all about the process is done: what it started is ended too, and what
// it said is read. Nil before Prepare.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// SocketRoot is where go-plugin is to make the socket directory.
func (p *Process) SocketRoot() string { return p.socketRoot }

// SocketDir is the only place for its socket; "" before Prepare. It is left when the process
// ends.
func (p *Process) SocketDir() string { return p.socketDir }

// CutOff reports whether the kernel keeps it from the network.
func (p *Process) CutOff() bool { return p.cutOff }

// Kill ends the process and its group. Implements runner.Runner.
func (p *Process) Kill(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 && !p.reaped {
		p.killed = true
		syscall.Kill(-p.pid, syscall.SIGKILL)
		syscall.Kill(p.pid, syscall.SIGKILL) // the group is made by the child itself
	}
	return nil
}

// Stdout is the handshake and then the end. Implements runner.Runner.
func (p *Process) Stdout() io.ReadCloser { return p.hello }

// Stderr is empty, because the host reads it itself. Implements runner.Runner.
func (p *Process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements runner.Runner.
func (p *Process) Name() string { return p.spec.Name }

// ID implements runner.Runner.
func (p *Process) ID() string {
	if pid := p.Pid(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// Diagnose implements runner.Runner.
func (p *Process) Diagnose(context.Context) string { return "" }

// PluginToHost accepts a socket in the plugin's own directory and nothing else: nobody but
// this user can reach it there, and a plugin cannot send the host elsewhere.
func (p *Process) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(addr)) != filepath.Clean(p.socketDir) {
		return "", "", fmt.Errorf("it listens on %s %q, and not on a unix socket in the directory %s names",
			pluginlog.Printable(network), pluginlog.Printable(addr), "PLUGIN_UNIX_SOCKET_DIR")
	}
	fi, err := os.Lstat(addr)
	if err != nil || fi.Mode().Type() != os.ModeSocket {
		return "", "", errors.New("the address it names is not a socket")
	}
	return network, addr, nil
}

// HostToPlugin implements runner.Runner.
func (p *Process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
