package suite

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire/stream"
)

const (
	startLimit = 10 * time.Second // for the handshake, as in the gateway
	endLimit   = 5 * time.Second  // for a plugin whose gateway is dead
	safePath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	tailSize   = 8 << 10
)

// A process is one running plugin.
type process struct {
	cmd    *exec.Cmd
	mark   string   // in the environment of it and its children
	life   *os.File // while it is open, the gateway lives
	host   *host
	conn   *grpc.ClientConn
	calls  streamed
	dir    string // of its socket
	stdout *tail  // what was printed there besides the handshake
	stderr *tail
	dead   chan struct{}
	err    error // of Wait, once dead
}

// start runs the program and shakes hands. The process is returned with an error too, if
// there is one; it is to be ended.
func start(ctx context.Context, p Program, dir string, handed ...listener) (*process, error) {
	sockets, err := os.MkdirTemp(dir, "s")
	if err != nil {
		return nil, err
	}
	h, err := startHost(sockets)
	if err != nil {
		return nil, err
	}
	lifeR, lifeW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer lifeR.Close()
	pr := &process{mark: proto.EnvRun + "=sdktest-" + rand.Text(), life: lifeW, host: h, dir: sockets, stdout: &tail{}, stderr: &tail{}, dead: make(chan struct{})}
	pr.cmd = exec.Command(p.Path, p.Args...)
	pr.cmd.Dir = "/"
	pr.cmd.Env = environment(pr.mark, sockets, h)
	pr.cmd.ExtraFiles = []*os.File{lifeR}
	for _, l := range handed {
		pr.cmd.ExtraFiles = append(pr.cmd.ExtraFiles, l.file)
	}
	if len(handed) > 0 {
		pr.cmd.Env = append(pr.cmd.Env, listenersEnv(handed))
	}
	pr.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pr.cmd.WaitDelay = time.Second // a child may hold the pipes
	pr.cmd.Stderr = pr.stderr
	hello := make(chan string, 1)
	pr.cmd.Stdout = &handshake{line: hello, rest: pr.stdout}
	if err := pr.cmd.Start(); err != nil {
		lifeW.Close()
		h.server.Stop()
		return nil, err
	}
	go func() { pr.err = pr.cmd.Wait(); close(pr.dead) }()
	wait := time.NewTimer(startLimit)
	defer wait.Stop()
	select {
	case line := <-hello:
		addr, err := address(line, sockets)
		if err != nil {
			return pr, err
		}
		limits := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(proto.MaxMessage), grpc.MaxCallSendMsgSize(proto.MaxMessage))
		options := append(stream.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), limits, grpc.WithDisableRetry())
		pr.conn, err = grpc.NewClient("unix:"+addr, options...)
		return pr, err
	case <-pr.dead:
		return pr, fmt.Errorf("it ended before its handshake: %s", pr.words())
	case <-wait.C:
		return pr, fmt.Errorf("it printed no handshake line within %s: %s", startLimit, pr.words())
	case <-ctx.Done():
		return pr, ctx.Err()
	}
}

// environment is what the gateway gives, and nothing else.
func environment(mark, sockets string, h *host) []string {
	return []string{
		proto.CookieKey + "=" + proto.CookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=" + strconv.Itoa(proto.Version),
		"PLUGIN_UNIX_SOCKET_DIR=" + sockets,
		"PATH=" + safePath,
		"LANG=C.UTF-8",
		proto.EnvParentFD + "=3",
		proto.EnvParentPID + "=" + strconv.Itoa(os.Getpid()),
		proto.EnvName + "=sdktest",
		proto.EnvHostAddress + "=" + h.address,
		proto.EnvHostToken + "=" + h.token,
		mark,
	}
}

// address reads a handshake line: "1|1|unix|/path|grpc".
func address(line, sockets string) (string, error) {
	f := strings.Split(strings.TrimSpace(line), "|")
	if len(f) < 5 {
		return "", fmt.Errorf("its first line on standard output is %q, and no handshake: 1|%d|unix|PATH|grpc", clip(line), proto.Version)
	}
	want := []string{"1", strconv.Itoa(proto.Version), "unix", f[3], "grpc"}
	for i, what := range []string{"version of the handshake", "version of the contract", "network", "", "protocol"} {
		if f[i] != want[i] {
			return "", fmt.Errorf("handshake: the %s is %q, not %q", what, clip(f[i]), want[i])
		}
	}
	if filepath.Dir(filepath.Clean(f[3])) != filepath.Clean(sockets) {
		return "", fmt.Errorf("handshake: the socket %q is not directly in the directory that PLUGIN_UNIX_SOCKET_DIR names", clip(f[3]))
	}
	if fi, err := os.Lstat(f[3]); err != nil || fi.Mode().Type() != os.ModeSocket {
		return "", fmt.Errorf("handshake: %q is not a socket yet: listen first, then print the line", clip(f[3]))
	}
	return f[3], nil
}

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// words is how it ended, if it has, and what it said last.
func (p *process) words() string {
	how := "it runs"
	if p.isDead() {
		how = p.cmd.ProcessState.String()
	}
	if last := p.stderr.String(); last != "" {
		return how + "; the end of its standard error:\n" + last
	}
	return how
}

// abandon does what the death of the gateway does, and returns how long the plugin lived on.
func (p *process) abandon(limit time.Duration) (time.Duration, error) {
	p.life.Close()
	begun := time.Now()
	select {
	case <-p.dead:
	case <-time.After(limit):
		return 0, fmt.Errorf("it still runs %s after the gateway's end of the pipe (%s) was closed", limit, proto.EnvParentFD)
	}
	took := time.Since(begun)
	for left := marked(p.mark); len(left) > 0; left = marked(p.mark) {
		if time.Since(begun) > limit {
			return 0, fmt.Errorf("it left %d processes behind, among them process %d", len(left), left[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
	return took, nil
}

// end kills it with everything that it started. It may be called twice.
func (p *process) end() {
	p.life.Close()
	if p.conn != nil {
		p.conn.Close()
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	// One that is killed may just have started another.
	for begun := time.Now(); time.Since(begun) < endLimit; time.Sleep(time.Millisecond) {
		left := marked(p.mark)
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.dead
	p.host.server.Stop()
	os.RemoveAll(p.dir)
}

// marked returns the processes with the mark in their environment, where there is a /proc.
func marked(mark string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*/environ")
	var pids []int
	for _, name := range dirs {
		env, err := os.ReadFile(name) // empty for what has ended and was not waited for
		if err != nil || !bytes.Contains(env, []byte(mark)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// handshake takes standard output apart: the first line, and what should not be there.
type handshake struct {
	line chan<- string
	buf  []byte
	done bool
	rest *tail
}

func (h *handshake) Write(b []byte) (int, error) {
	n := len(b)
	if !h.done {
		h.buf = append(h.buf, b...)
		i := bytes.IndexByte(h.buf, '\n')
		if i < 0 && len(h.buf) < tailSize {
			return n, nil
		}
		if i < 0 {
			i = len(h.buf) - 1
		}
		h.done = true
		h.line <- string(h.buf[:i+1])
		b = h.buf[i+1:]
	}
	h.rest.Write(b)
	return n, nil
}

// tail keeps the end of what was written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailSize):]...)
	t.buf = t.buf[max(0, len(t.buf)-tailSize):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(printable(string(t.buf)))
}

// printable keeps control characters off the author's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && (r < 0x7f || r >= 0xa0) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}

func clip(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return printable(s)
}
