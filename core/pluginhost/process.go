package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	goplugin "github.com/hashicorp/go-plugin/runner"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
	"github.com/postern-mail/postern/sdk/wire/stream"
)

// A process is one running, configured plugin. It is never restarted: there will be
// another one.
type process struct {
	spec    Spec
	desc    wire.Description
	run     *runner
	gp      *plugin.Client
	api     proto.PluginClient
	conn    *grpc.ClientConn
	filter  proto.FilterClient
	gates   proto.GateClient
	mailbox proto.MailboxClient
	started time.Time
	host    *hostServer // what it may ask of us
	wants   []string    // where a service listens
	barred  bool        // a service that must not work: the plugin is disabled
	calls   gate
	// answered counts the calls that it has completed, whatever the answer.
	answered atomic.Int64
	garbage  atomic.Int32 // answers in a row that broke the protocol
	strays   atomic.Int32 // answers to no call
	broken   atomic.Bool  // its stream of calls has ended
	hopeless atomic.Bool  // it died, as its successor would, of any message
	// Its death was a message's fault, or the plugin's. Guarded by its supervisor's mu.
	pardoned, counted bool
	// dead ends when the process does.
	dead context.Context
}

// launch starts and configures a process. On an error nothing is left of it.
func (h *Host) launch(ctx context.Context, spec Spec) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timing.start)
	defer cancel()
	_, online := h.online.Load(spec.Name + "\n" + spec.program)
	online = online || spec.Network
	var p *process
	var err error
	for range 3 { // a plugin that says what it needs is started again, with that
		if p, err = h.connect(ctx, spec, online); err == nil {
			err = p.configure(ctx, h)
		}
		if !errors.Is(err, errListeners) && (!errors.Is(err, errOnline) || online) {
			break
		}
		online = online || errors.Is(err, errOnline)
		p.kill()
	}
	if err == nil {
		return p, nil
	}
	h.sockets.tidy(spec.Name, nil, false)
	if p != nil {
		p.kill()
	}
	return nil, fmt.Errorf("plugin %q: %w", spec.Name, err)
}

// errOnline says that a process was started without the network, and its manifest asks for it.
var errOnline = errors.New("it needs the network")

// connect forks the process and shakes hands. The process returned with an error is to be
// killed.
func (h *Host) connect(ctx context.Context, spec Spec, online bool) (*process, error) {
	log := h.opt.Log.With("plugin", spec.Name)
	sockets := h.dir.sockets
	who, err := h.credential(spec)
	if err == nil && who != nil {
		sockets, err = h.dir.openSockets()
	}
	if err != nil {
		return nil, err
	}
	limit := rate.NewLimiter(lineRate, lineBurst)
	run := &runner{
		argv:      spec.argv(h.opt.SelfExe),
		mark:      fmt.Sprintf("%s.%d.", h.mark, h.generation.Add(1)),
		dir:       h.dir,
		fork:      h.fork,
		guard:     h.guard,
		parent:    h.lifeR,
		name:      spec.Name,
		spec:      spec,
		who:       who,
		online:    online,
		host:      h,
		listeners: h.sockets.of(spec.Name),
		out:       newOutput(log, limit, h.opt.Clock, "stdout"),
		err:       newOutput(log, limit, h.opt.Clock, "stderr"),
	}
	p := &process{spec: spec, run: run, started: h.opt.Clock(), host: newHostServer(h, spec.Name, log, limit)}
	run.services = p.host
	p.calls.idle = make(chan struct{})
	limits := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(proto.MaxMessage), grpc.MaxCallSendMsgSize(proto.MaxMessage))
	p.gp = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			MagicCookieKey:   proto.CookieKey,
			MagicCookieValue: proto.CookieValue,
		},
		VersionedPlugins: map[int]plugin.PluginSet{proto.Version: {}},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (goplugin.Runner, error) {
			return run, run.prepare(cmd.Env, dir)
		},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  append(stream.DialOptions(), limits, grpc.WithDisableRetry(), grpc.WithDisableServiceConfig()),
		SkipHostEnv:      true,
		StartTimeout:     h.timing.start,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: sockets},
		SyncStdout:       run.out,
		SyncStderr:       run.err,
		Logger:           hclog.NewNullLogger(),
	})
	stop := context.AfterFunc(ctx, func() { run.Kill(context.Background()) })
	defer stop()
	client, err := p.gp.Client()
	if err != nil {
		return p, startError(ctx, run, err, h.timing.start)
	}
	conn := client.(*plugin.GRPCClient).Conn
	p.conn = conn
	p.api, p.filter, p.mailbox = proto.NewPluginClient(conn), proto.NewFilterClient(conn), proto.NewMailboxClient(conn)
	p.gates = proto.NewGateClient(conn)
	dead, died := context.WithCancel(context.Background())
	p.dead = dead
	go func() {
		<-run.dead
		died()
		conn.Close() // a child may hold the other end, and calls would wait for it
	}()
	return p, nil
}

// startError says what the admin can do about a process that did not shake hands.
func startError(ctx context.Context, run *runner, err error, wait time.Duration) error {
	var pe *fs.PathError
	var errno syscall.Errno
	switch {
	case strings.HasPrefix(err.Error(), "files."):
		return fmt.Errorf("cannot be started: %w; what files in its [[plugin]] table names has to be there", err)
	case errors.As(err, &pe) || errors.As(err, &errno):
		return fmt.Errorf("cannot be started: %w; check the command in its [[plugin]] table", err)
	case run.pid == 0:
		return fmt.Errorf("cannot be started: %w", err)
	}
	run.mu.Lock()
	noise, ended := run.noise, run.reaped
	run.mu.Unlock()
	what := ""
	switch {
	case ctx.Err() != nil || strings.Contains(err.Error(), "timeout"):
		what = fmt.Sprintf("did not print its handshake within %s", wait)
	case ended:
		<-run.exited
		what = "ended before the handshake (" + run.how() + ")"
	default:
		what = "did not shake hands: " + printable(strings.SplitN(err.Error(), "\n", 2)[0])
	}
	if noise != "" {
		what += fmt.Sprintf("; it printed %q to standard output", noise)
	}
	if last := lastLine(run.err.last()); last != "" {
		what += fmt.Sprintf("; its last words: %q", last)
	}
	return errors.New(what + "; is it a plugin for this gateway?")
}

// lastLine is the last line that speaks of an error, for the last one of a stack trace says
// nothing; else the last line.
func lastLine(s string) string {
	lines := strings.Split(s, "\n")
	last := lines[len(lines)-1]
	for _, l := range slices.Backward(lines) {
		if strings.Contains(l, "Error: ") || strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			last = strings.TrimSpace(l)
			break
		}
	}
	return printable(last[:min(len(last), 300)])
}

// configure asks what the plugin is and gives it its settings.
func (p *process) configure(ctx context.Context, h *Host) error {
	m, err := p.api.Describe(ctx, &proto.DescribeRequest{HostVersion: h.opt.Version})
	if err != nil {
		return fmt.Errorf("does not say what it is: %w", classify(ctx, p.spec.Name, p.isDead(), err))
	}
	if p.desc, err = wire.Describe(m); err != nil {
		return err
	}
	p.host.grant(p.desc.Manifest.Host)
	if p.spec.Use != "" && p.desc.Manifest.Name != p.spec.Use {
		return fmt.Errorf("the built-in plugin %q calls itself %q", p.spec.Use, p.desc.Manifest.Name)
	}
	if p.desc.Manifest.Network && p.run.cutOff {
		h.online.Store(p.spec.Name+"\n"+p.spec.program, true)
		return errOnline
	}
	r, err := p.api.Configure(ctx, wire.ConfigureRequest(sdk.Config{
		Settings:   p.spec.Settings,
		Hostname:   h.opt.Hostname,
		Postmaster: h.opt.Postmaster,
		DataDir:    h.opt.DataDir,
		DNSServers: h.opt.DNSServers,
	}))
	if err != nil {
		return fmt.Errorf("cannot be configured: %w", classify(ctx, p.spec.Name, p.isDead(), err))
	}
	if r.Error != "" {
		return errors.New(printable(r.Error))
	}
	if err := p.desc.Configured(r); err != nil {
		return err
	}
	if p.desc.Stream && !h.timing.unary {
		if err := p.openStream(); err != nil {
			return fmt.Errorf("its stream of calls cannot be opened: %w", err)
		}
	}
	return p.listeners(ctx, h)
}

// openStream has filter and gate asked over one stream.
func (p *process) openStream() error {
	st, err := stream.Open(p.conn, stream.Events{
		Fault: func(err error) {
			if s := p.host.owner.Load(); s != nil {
				s.stray(p, err)
			}
		},
		Broken: func(error) {
			p.broken.Store(true)
			if s := p.host.owner.Load(); s != nil {
				s.lookAt()
			}
		},
	})
	if err != nil {
		return err
	}
	p.filter, p.gates = st, st
	return nil
}

func (p *process) isDead() bool { return p.dead != nil && p.dead.Err() != nil }

// healthy asks for a sign of life.
func (p *process) healthy(ctx context.Context, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err := p.api.Health(ctx, &proto.HealthRequest{})
	return err == nil
}

// drain lets no further call in, waits for those that are, and tells the plugin. It is
// bounded by ctx.
func (p *process) drain(ctx context.Context) {
	p.calls.close()
	select {
	case <-p.calls.idle:
	case <-ctx.Done():
		return
	case <-p.dead.Done():
		return
	}
	p.api.Drain(ctx, &proto.DrainRequest{})
}

// kill ends the process and frees what belonged to it. It returns when the process is gone.
func (p *process) kill() {
	p.calls.close()
	p.run.Kill(context.Background())
	if p.run.exited != nil {
		<-p.run.exited
	}
	done := make(chan struct{})
	go func() { // closes the connection; may wait for goroutines of its own
		defer close(done)
		p.gp.Kill()
	}()
	select {
	case <-done:
	case <-after(killGrace):
	}
	p.host.close()
	if d := p.run.socketDir; d != "" {
		os.RemoveAll(d)
	}
}

// A gate counts the calls in flight and can be closed.
type gate struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when the gate is closed and nobody is inside
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.closed {
		close(g.idle)
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		if g.n == 0 {
			close(g.idle)
		}
	}
}
