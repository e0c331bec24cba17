package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	goplugin "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/core/pluginhost/child"
	"github.com/postern-mail/postern/core/pluginhost/hostservice"
	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
	"github.com/postern-mail/postern/sdk/wire/stream"
)

// launch starts and configures a process. On an error nothing is left of it.
func (h *Host) launch(ctx context.Context, spec Spec) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timing.start)
	defer cancel()
	_, online := h.online.Load(spec.key())
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

// connect forks the process and shakes hands. The process returned with an error, if any, is to
// be killed.
func (h *Host) connect(ctx context.Context, spec Spec, online bool) (*process, error) {
	p := &process{spec: spec, calls: newInflight(), started: h.opt.Clock(), given: h.sockets.of(spec.Name)}
	p.log = pluginlog.New(h.opt.Log, spec.Name, h.opt.Clock)
	p.host = hostservice.New(hostservice.Options{Plugin: spec.Name, Services: h.opt.Services, Counters: &h.counters, Log: p.log, Fault: p.denied})
	var err error
	p.child, err = h.parent.New(child.Spec{
		Name:      spec.Name,
		Argv:      spec.argv(h.opt.SelfExe),
		SHA256:    spec.SHA256,
		User:      spec.User,
		Limits:    spec.limits(),
		Files:     spec.Files,
		AllowMail: h.allowMail,
		Network:   online,
		Listeners: p.given,
		Prepare:   p.host.Listen,
		Log:       p.log,
	})
	if err != nil {
		return nil, err
	}
	p.gp = plugin.NewClient(h.clientConfig(p.child))
	stop := context.AfterFunc(ctx, func() { p.child.Kill(context.Background()) })
	defer stop()
	client, err := p.gp.Client()
	if err != nil {
		return p, p.child.StartError(ctx, err, h.timing.start)
	}
	p.attach(client.(*plugin.GRPCClient).Conn)
	return p, nil
}

// clientConfig has go-plugin start that process.
func (h *Host) clientConfig(c *child.Process) *plugin.ClientConfig {
	limits := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(proto.MaxMessage), grpc.MaxCallSendMsgSize(proto.MaxMessage))
	return &plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			MagicCookieKey:   proto.CookieKey,
			MagicCookieValue: proto.CookieValue,
		},
		VersionedPlugins: map[int]plugin.PluginSet{proto.Version: {}},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (goplugin.Runner, error) {
			return c, c.Prepare(cmd.Env, dir)
		},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  append(stream.DialOptions(), limits, grpc.WithDisableRetry(), grpc.WithDisableServiceConfig()),
		SkipHostEnv:      true,
		StartTimeout:     h.timing.start,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: c.SocketRoot()},
		SyncStdout:       c.Out,
		SyncStderr:       c.Err,
		Logger:           hclog.NewNullLogger(),
	}
}

// attach takes the connection of a process that has shaken hands.
func (p *process) attach(conn *grpc.ClientConn) {
	p.conn = conn
	p.api, p.filter, p.mailbox = proto.NewPluginClient(conn), proto.NewFilterClient(conn), proto.NewMailboxClient(conn)
	p.gates = proto.NewGateClient(conn)
	dead, died := context.WithCancel(context.Background())
	p.dead = dead
	go func() {
		<-p.child.Dead()
		died()
		conn.Close() // a child may hold the other end, and calls would wait for it
	}()
}

// allowMail permits what the host hands over as files: the bodies of large messages, to be
// read, and drafts, to be written.
func (h *Host) allowMail(rules *confine.Rules) error {
	err := h.drafts.Allow(rules)
	if h.opt.ContentDir == "" || err != nil {
		return err
	}
	if err = rules.AllowNamed(h.opt.ContentDir); errors.Is(err, fs.ErrNotExist) { // no mail yet
		return nil
	}
	return err
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
	p.host.Grant(p.desc.Manifest.Host)
	if p.spec.Use != "" && p.desc.Manifest.Name != p.spec.Use {
		return fmt.Errorf("the built-in plugin %q calls itself %q", p.spec.Use, p.desc.Manifest.Name)
	}
	if p.desc.Manifest.Network && p.child.CutOff() {
		h.online.Store(p.spec.key(), true)
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
		return errors.New(pluginlog.Printable(r.Error))
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
			if s := p.owner.Load(); s != nil {
				s.stray(p, err)
			}
		},
		Broken: func(error) {
			p.broken.Store(true)
			if s := p.owner.Load(); s != nil {
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
