package pluginhost

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

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/sdk/proto"
)

// maxNoise is how many bytes a plugin may print before its handshake.
const maxNoise = 64 << 10

var handshakeLine = regexp.MustCompile(`^\d+\|\d+\|`)

// A runner is one process of one plugin, as go-plugin wants it (it implements
// runner.Runner), with the host's own ideas of environment, output and killing.
type runner struct {
	argv      []string
	mark      string // in the environment of it and its children
	dir       *runDir
	fork      *forker
	guard     *guardian
	parent    *os.File // the pipe whose end says that the host is dead
	name      string   // of the plugin
	spec      Spec
	who       *syscall.Credential // nil: the host's user
	online    bool                // it may use the network
	cutOff    bool                // it cannot, as far as the kernel sees to it
	own       *forker             // whose thread has its rules; nil: there are none
	filesBy   string              // how its files are restricted, for the log
	host      *Host
	services  *hostServer // what the plugin may ask
	listeners []handed    // for a service
	out       *output     // standard output that is no handshake
	err       *output

	cage *confine.Cage
	oom  bool // it ran out of the memory that it may take

	env       []string
	socketDir string // the only place for its socket
	cmd       *exec.Cmd
	pid       int
	start     uint64
	hello     *io.PipeReader // what go-plugin reads: the handshake only
	helloW    *io.PipeWriter
	pipes     []*os.File // our ends of its output

	mu      sync.Mutex
	reaped  bool
	killed  bool // by the host, while it ran
	waitErr error
	noise   string        // first line that was no handshake
	dead    chan struct{} // closed when the process has ended
	exited  chan struct{} // and when everything about it is done
}

// prepare takes what go-plugin has to say about the process.
func (r *runner) prepare(env []string, socketDir string) error {
	r.socketDir = socketDir
	if r.who != nil {
		if err := os.Chown(socketDir, int(r.who.Uid), int(r.who.Gid)); err != nil {
			return err
		}
	}
	if err := r.services.listen(socketDir); err != nil {
		return err
	}
	r.env = append(append(env, r.services.env()...),
		"PATH="+confine.SearchPath,
		"LANG=C.UTF-8",
		proto.EnvParentFD+"=3",
		proto.EnvParentPID+"="+strconv.Itoa(os.Getpid()),
		proto.EnvName+"="+r.name,
		markEnv(r.mark),
	)
	if len(r.listeners) > 0 {
		r.env = append(r.env, listenersEnv(r.listeners))
	}
	if tz, ok := os.LookupEnv("TZ"); ok {
		r.env = append(r.env, "TZ="+tz)
	}
	r.hello, r.helloW = io.Pipe()
	// From here on somebody may wait for the process to end, and Start must follow.
	r.dead, r.exited = make(chan struct{}), make(chan struct{})
	return nil
}

// Start forks. Implements runner.Runner.
func (r *runner) Start(context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, outR.Close(), outW.Close())
	}
	r.pipes = []*os.File{outR, errR}
	err = r.execute(outW, errW)
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		close(r.dead)
		close(r.exited)
		return err
	}
	var readers sync.WaitGroup
	readers.Go(func() { r.readStdout(outR) })
	readers.Go(func() { copyOutput(r.err, errR) })
	go r.wait(&readers)
	return nil
}

// wait notices the end of the process and cleans up after it.
func (r *runner) wait(readers *sync.WaitGroup) {
	// While the ended process is not waited for, its pid, and with that the name of its
	// group, cannot be given to another.
	for {
		err := unix.Waitid(unix.P_PID, r.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	close(r.dead)
	r.mu.Lock()
	syscall.Kill(-r.pid, syscall.SIGKILL)
	r.reaped = true
	r.waitErr = r.cmd.Wait()
	r.mu.Unlock()
	confine.KillMarked(markEnv(r.mark)) // children that left the group
	r.oom = r.cage.Exhausted()
	r.cage.Remove()
	r.guard.removeCage(r.cage.Groups)
	r.dir.forget(r.pid)
	r.guard.remove(r.pid)
	// A child that got away may hold our pipes; what was written is read by now or lost.
	unblock := make(chan struct{})
	go func() { readers.Wait(); close(unblock) }()
	select {
	case <-unblock:
	case <-after(outputGrace):
	}
	for _, p := range r.pipes {
		p.Close()
	}
	<-unblock
	r.out.Close()
	r.err.Close()
	r.helloW.Close()
	if r.own != nil {
		r.own.close()
	}
	close(r.exited)
}

// readStdout passes the handshake on and everything else to the log.
func (r *runner) readStdout(f *os.File) {
	in := bufio.NewReaderSize(f, 16<<10)
	for read := 0; read < maxNoise; {
		line, err := in.ReadSlice('\n')
		read += len(line)
		if err == nil && handshakeLine.Match(line) {
			r.helloW.Write(line)
			r.helloW.Close()
			break
		}
		r.mu.Lock()
		if r.noise == "" {
			r.noise = printable(strings.TrimSpace(string(line[:min(len(line), 200)])))
		}
		r.mu.Unlock()
		r.out.Write(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
	// Nothing more is expected, but a full pipe would block the plugin. Without a
	// handshake go-plugin is told that there will be none.
	r.helloW.Close()
	copyOutput(r.out, in)
}

func copyOutput(o *output, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		o.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// Wait returns when the process has ended. Implements runner.Runner.
func (r *runner) Wait(context.Context) error {
	<-r.exited
	return r.waitErr
}

// how says how an ended process ended.
func (r *runner) how() string {
	if s := r.cmd.ProcessState; s != nil {
		return s.String()
	}
	return "ended"
}

// end says how an ended process ended, with the reason if it is known.
func (r *runner) end() string {
	if r.oom {
		return fmt.Sprintf("%s: it took more than its memory of %d bytes", r.how(), r.spec.Memory)
	}
	return r.how()
}

// wasKilled reports whether the host ended the process, and not the process itself.
func (r *runner) wasKilled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.killed
}

// Kill ends the process and its group. Implements runner.Runner.
func (r *runner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pid != 0 && !r.reaped {
		r.killed = true
		syscall.Kill(-r.pid, syscall.SIGKILL)
		syscall.Kill(r.pid, syscall.SIGKILL) // the group is made by the child itself
	}
	return nil
}

// Stdout is the handshake and then the end. Implements runner.Runner.
func (r *runner) Stdout() io.ReadCloser { return r.hello }

// Stderr is empty, because the host reads it itself. Implements runner.Runner.
func (r *runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements runner.Runner.
func (r *runner) Name() string { return r.name }

// ID implements runner.Runner.
func (r *runner) ID() string {
	if r.pid == 0 {
		return ""
	}
	return strconv.Itoa(r.pid)
}

// Diagnose implements runner.Runner.
func (r *runner) Diagnose(context.Context) string { return "" }

// PluginToHost accepts a socket in the plugin's own directory and nothing else: nobody but
// this user can reach it there, and a plugin cannot send the host elsewhere.
func (r *runner) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(addr)) != filepath.Clean(r.socketDir) {
		return "", "", fmt.Errorf("it listens on %s %q, and not on a unix socket in the directory %s names",
			printable(network), printable(addr), "PLUGIN_UNIX_SOCKET_DIR")
	}
	fi, err := os.Lstat(addr)
	if err != nil || fi.Mode().Type() != os.ModeSocket {
		return "", "", errors.New("the address it names is not a socket")
	}
	return network, addr, nil
}

// HostToPlugin implements runner.Runner.
func (r *runner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
