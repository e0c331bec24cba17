package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/delivery"
	"github.com/postern-mail/postern/core/digest"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/mailbox"
	"github.com/postern-mail/postern/core/observe"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/reinject"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/core/tlsconf"
	"github.com/postern-mail/postern/core/trace"
)

// gateway is all the parts, put together.
type gateway struct {
	log     *slog.Logger
	started time.Time
	config  atomic.Pointer[config.Config]      // with the stored domains
	file    atomic.Pointer[config.Config]      // without
	stored  atomic.Pointer[[]directory.Domain] // those domains

	*keeping
	directory *directory.Directory
	host      *pluginhost.Host
	rooms     *mailbox.Rooms
	policy    currentPolicy
	gates     currentGates
	intake    *intake.Intake
	delivery  *delivery.Delivery
	observers *observe.Observers
	digest    *digest.Digest
	client    currentClient
	behind    *behind
	door      door
	control   *admin.Server
	// convictions are counted across reloads.
	convictions pipeline.Convictions
	services    services // for plugins
	desk        *reinject.Desk
	// parked is the delivery, once there is one: plugins may come and go before.
	parked atomic.Pointer[delivery.Delivery]

	mu      sync.Mutex // one reload at a time
	sockets map[string]*socket
	servers []*smtpd.Server // of the listeners
	retired []*smtpd.Server // of before a reload, while their sessions last
	unwatch context.CancelFunc
}

// newGateway builds and starts everything but the listeners' sessions: after an error
// nothing is left running.
func newGateway(ctx context.Context, c *config.Config, log *slog.Logger) (*gateway, error) {
	g := &gateway{log: log, started: time.Now(), sockets: make(map[string]*socket)}
	var undo []func()
	err := g.build(ctx, c, func(f func()) { undo = append(undo, f) })
	if err != nil {
		for _, f := range slices.Backward(undo) {
			f()
		}
		return nil, err
	}
	return g, nil
}

// build does newGateway's work. It calls undo with how to take back each step.
func (g *gateway) build(ctx context.Context, c *config.Config, undo func(func())) error {
	specs, err := pluginSpecs(c)
	if err != nil {
		return err
	}
	if g.keeping, err = openKeeping(c, g.log); err != nil {
		return err
	}
	undo(func() { g.keeping.Close() })
	opened, err := g.openSockets(c)
	if err != nil {
		return err
	}
	undo(func() { closeSockets(opened) })
	if g.directory, err = directory.Open(directory.Options{Path: directoryFile(c), Hostname: c.Hostname, Postmaster: c.Postmaster, OnlyDeclared: true, Log: g.log}); err != nil {
		return err
	}
	undo(func() { g.directory.Close() })
	file := c
	stored, err := g.directory.Domains(ctx)
	if err != nil {
		return err
	}
	if c, err = withDomains(file, stored); err != nil {
		return err
	}
	g.file.Store(file)
	g.stored.Store(&stored)
	if specs, err = pluginSpecs(c); err != nil {
		return err
	}
	if g.behind, err = newBehind(c, &g.client, g.log, g.clock); err != nil {
		return err
	}
	undo(func() { g.behind.Close() })
	g.desk = reinject.New(reinject.Options{Spool: g.spool, Log: g.log}, reinjectLimits(c))
	g.services.g = g
	host := hostOptions(c, filepath.Join(runDir(c), "plugins"), g.log)
	host.ContentGroup = contentGroup(c)
	host.Services = g.services.forPlugins()
	host.DraftDir = draftDir(c)
	host.Up = func(string) { g.unpark() }
	if g.host, err = pluginhost.Start(ctx, host, specs); err != nil {
		return err
	}
	undo(func() { g.host.Close(context.Background()) })
	g.rooms = g.newRooms()
	p, err := g.prepare(c, opened)
	if err != nil {
		return err
	}
	if err := g.assemble(c, p); err != nil {
		return err
	}
	g.adopt(c, p, opened)
	return nil
}

// assemble makes the parts that live as long as the gateway.
func (g *gateway) assemble(c *config.Config, p *prepared) error {
	g.intake = intake.New(intake.Options{Hostname: c.Hostname.String(), Postmaster: c.Postmaster, IDs: &queue.IDs{}, Spool: g.spool, Store: g.store,
		Backoff: backoff(c), Trace: g.trace, Log: g.log, Clock: g.clock}, g.intakeRules(c, p))
	g.door.intake = g.intake
	g.services.intake.Store(g.intake)
	expander := &expand.Expander{Intake: g.intake, Log: g.log, Clock: g.clock, Planner: func(name string) (expand.Planner, bool) {
		p, ok := g.host.Planner(name)
		return p, ok
	}}
	transport := &mailbox.Transport{Log: g.log, Backend: func(name string) (mailbox.Backend, bool) {
		m, ok := g.host.Mailbox(name)
		return m, ok
	}}
	g.delivery = delivery.New(delivery.Options{Store: g.store, Intake: g.intake, SMTP: g.behind, Mailbox: transport, Expand: expander, Trace: g.trace, Log: g.log,
		Clock: g.clock, Owner: c.Hostname.String(), Lease: leaseTime}, deliveryRules(c, p))
	g.parked.Store(g.delivery)
	g.observers = observe.New(observe.Options{Feed: g.store, Log: g.log})
	g.digest = g.newDigest(c)
	l, err := admin.Listen(controlSocket(c))
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	g.control = admin.NewServer(g.steered(c), g, g.log)
	go func() {
		if err := g.control.Serve(l); err != nil {
			g.log.Error("control socket failed", "error", err)
		}
	}()
	return nil
}

// steered is the queue for commands. first is the configuration until there is one in force.
func (g *gateway) steered(first *config.Config) *admin.Queue {
	return &admin.Queue{Store: g.store, Trace: g.trace, Clock: g.clock, Reopen: g.delivery.Reopen, Lifetime: func() time.Duration {
		c := g.config.Load()
		if c == nil {
			c = first
		}
		return time.Duration(c.Queue.Lifetime)
	}}
}

// prepared is what a configuration gives and nothing uses yet: a reload that fails is
// thrown away here.
type prepared struct {
	directories *directories
	sending     *sendingOn
	policy      *policy.Policy
	routes      *route.Table
	client      *smtpclient.Client
	certs       *tlsconf.Server
	auth        *auth.Authenticator
	servers     []*smtpd.Server // one for each listener
}

// prepare builds what can fail. sockets are those that this configuration adds.
func (g *gateway) prepare(c *config.Config, opened map[string]*socket) (*prepared, error) {
	own := g.ownAddresses(c, opened)
	p := &prepared{directories: newDirectories(c, g.directory, g.host)}
	var err error
	if p.sending, err = newSendingOn(c, g.directory); err != nil {
		return nil, err
	}
	if p.routes, err = routes(c, own); err != nil {
		return nil, err
	}
	rules := policyOptions(c, p.directories, g.behind, g.policy.Load(), g.log)
	rules.Room = room(g.rooms, p.routes)
	rules.Returned = p.sending.returned
	p.directories.extend(&rules)
	if p.policy, err = policy.New(rules); err != nil {
		return nil, err
	}
	r, err := newResolver(c, g.log)
	if err != nil {
		return nil, err
	}
	if p.client, err = smtpclient.New(clientOptions(c, r, own, g.log)); err != nil {
		return nil, err
	}
	if p.certs, err = tlsconf.Load(tlsconf.Options{Certificate: c.TLS.Certificate, Key: c.TLS.Key, DataDir: c.DataDir, Hostname: c.Hostname.String(), Log: g.log}); err != nil {
		return nil, err
	}
	if p.auth, err = newAuthenticator(c, g.directory, p.directories, g.log); err != nil {
		return nil, err
	}
	for _, l := range c.Listeners {
		s, err := smtpd.New(g.serverOptions(c, l, p))
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", l.Address, err)
		}
		p.servers = append(p.servers, s)
	}
	return p, nil
}

func (g *gateway) serverOptions(c *config.Config, l config.Listener, p *prepared) smtpd.Options {
	o := smtpd.Options{
		Hostname: c.Hostname.String(), Name: l.Address, Role: smtpd.Role(l.Role), TLS: smtpd.TLSMode(l.TLS), TLSConfig: p.certs.Config(),
		Auth: smtpd.AuthMode(l.Auth), Policy: &guard{&g.policy, &g.gates, l.Role == "submission"}, Authenticator: smtpLogins{p.auth}, Intake: &g.door, Clients: c.Prefixes(l.Clients), ProxyFrom: c.Prefixes(l.ProxyFrom), DSN: l.DSN, Log: g.log,
		Limits: smtpd.Limits{MessageSize: int64(c.Limits.MessageSize), Recipients: c.Limits.Recipients, Sessions: c.Limits.Connections,
			PerAddress: c.Limits.ConnectionsPerClient, Errors: c.Limits.Errors},
		Timeouts: smtpd.Timeouts{Greet: time.Duration(l.GreetDelay)},
	}
	if len(l.Clients) > 0 && o.Clients == nil { // names of empty networks: nobody
		o.Clients = []netip.Prefix{}
	}
	if c.Limits.Connections >= 20 {
		o.Limits.Reserved, o.Limits.ReservedFor = c.Limits.Connections/10, c.Prefixes(c.Relay.Networks)
	}
	// Of several networks that have a client, the smallest counts: they come first.
	for _, n := range policyOptions(c, p.directories, g.behind, nil, g.log).Networks {
		for _, prefix := range n.Networks {
			o.Limits.Networks = append(o.Limits.Networks, smtpd.NetworkLimit{Networks: []netip.Prefix{prefix}, PerAddress: n.Limits.Connections})
		}
	}
	slices.SortFunc(o.Limits.Networks, func(a, b smtpd.NetworkLimit) int { return b.Networks[0].Bits() - a.Networks[0].Bits() })
	if o.Role == smtpd.Reinjection {
		reinjecting(&o, g.desk, c)
	}
	return o
}

func (g *gateway) intakeRules(c *config.Config, p *prepared) intake.Rules {
	r := intakeRules(c, newPipeline(c, g.host, g.directory, g.trace, &g.convictions, g.log), p.directories, p.routes)
	p.sending.extend(&r)
	return r
}

func deliveryRules(c *config.Config, p *prepared) delivery.Rules {
	return delivery.Rules{Route: p.routes.Route, Planner: planners(c), Subaddress: subaddresses(c), Total: c.Queue.Concurrency, PerNextHop: c.Queue.ConcurrencyPerDestination,
		Lifetime: time.Duration(c.Queue.Lifetime), DelayWarning: time.Duration(c.Queue.DelayWarning)}
}

// adopt makes a prepared configuration the one in force. It cannot fail.
func (g *gateway) adopt(c *config.Config, p *prepared, opened map[string]*socket) {
	g.directory.Declare(declared(c), c.Postmaster)
	g.policy.Store(p.policy)
	g.gates.Store(newGates(c, g.host, g.log))
	if old := g.client.Swap(p.client); old != nil {
		old.Close()
	}
	g.behind.Reload(callaheadRules(c, p.routes))
	g.intake.Reload(g.intakeRules(c, p))
	g.desk.Reload(reinjectLimits(c))
	if err := checkReinjection(c, g.host); err != nil {
		g.log.Warn("reinjection is half configured", "error", err)
	}
	g.delivery.Reload(deliveryRules(c, p))
	g.digest.Reload(digestRules(c, g.directory))
	if err := g.observers.Set(observers(c, g.host)); err != nil {
		g.log.Error("observers are not told", "error", err)
	}
	g.config.Store(c)
	g.services.directories.Store(p.directories)
	g.services.authenticator.Store(p.auth)
	g.services.certs.Store(p.certs)
	if g.unwatch != nil {
		g.unwatch()
	}
	watch, cancel := context.WithCancel(context.Background())
	g.unwatch = cancel
	go p.certs.Watch(watch, time.Minute)
	replaced := g.servers
	g.servers = nil
	maps.Copy(g.sockets, opened)
	keys := socketKeys(c)
	for i, key := range keys {
		s, facade := p.servers[i], g.sockets[key].hand()
		g.servers = append(g.servers, s)
		go func() {
			if err := s.Serve(facade); err != nil && !errors.Is(err, net.ErrClosed) {
				g.log.Error("listener failed", "address", key, "error", err)
			}
		}()
	}
	for key, s := range g.sockets {
		if !slices.Contains(keys, key) {
			s.Close()
			delete(g.sockets, key)
		}
	}
	g.retire(replaced)
}

// retire lets the sessions of replaced servers come to their own end, and ends those servers
// that have none any more. Their sockets must have been handed over before: until then a
// connection may be on its way to them. The caller holds mu, or nothing else runs yet.
func (g *gateway) retire(replaced []*smtpd.Server) {
	g.retired = slices.DeleteFunc(append(g.retired, replaced...), func(s *smtpd.Server) bool {
		if !s.Idle() {
			return false
		}
		go s.Shutdown(context.Background()) // it has no session: that takes no time
		return true
	})
}

// Reload puts another configuration in force, or leaves everything as it is.
func (g *gateway) Reload(ctx context.Context, file *config.Config) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	stored, err := g.directory.Domains(ctx)
	if err != nil {
		return err
	}
	c, err := withDomains(file, stored)
	if err != nil {
		return err
	}
	if old := g.config.Load(); c.DataDir != old.DataDir || c.Hostname != old.Hostname {
		return errors.New("hostname and data_dir cannot change while the gateway runs: restart it")
	}
	opened, err := g.openSockets(c)
	if err != nil {
		return err
	}
	p, err := g.prepare(c, opened)
	if err == nil {
		var specs []pluginhost.Spec
		if specs, err = pluginSpecs(c); err == nil {
			err = g.host.Reload(ctx, specs)
		}
	}
	if err != nil {
		closeSockets(opened)
		return err
	}
	g.adopt(c, p, opened)
	g.file.Store(file)
	g.stored.Store(&stored)
	g.unpark()
	return nil
}

// unpark has mail go on that waits for a plugin.
func (g *gateway) unpark() {
	if d := g.parked.Load(); d != nil {
		d.Unpark()
	} // else nothing is lost: the delivery begins with that
}

// socketKeys name the listeners of c. Port 0 may be listened on more than once.
func socketKeys(c *config.Config) []string {
	keys := make([]string, len(c.Listeners))
	for i, l := range c.Listeners {
		keys[i] = l.Address
		for slices.Contains(keys[:i], keys[i]) {
			keys[i] += " again"
		}
	}
	return keys
}

// openSockets opens what c listens on and is not open yet.
func (g *gateway) openSockets(c *config.Config) (map[string]*socket, error) {
	opened := make(map[string]*socket)
	for i, key := range socketKeys(c) {
		if g.sockets[key] != nil {
			continue
		}
		network, address := c.Listeners[i].Network()
		s, err := openSocket(network, address, g.log)
		if err != nil {
			closeSockets(opened)
			if network == "tcp" && errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("%w: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE", err)
			}
			return nil, fmt.Errorf("cannot listen on %s: %w", c.Listeners[i].Address, err)
		}
		opened[key] = s
	}
	return opened, nil
}

func closeSockets(sockets map[string]*socket) {
	for _, s := range sockets {
		s.Close()
	}
}

// ownAddresses is what we listen on, so that no mail is sent there.
func (g *gateway) ownAddresses(c *config.Config, opened map[string]*socket) []netip.AddrPort {
	var own []netip.AddrPort
	for _, key := range socketKeys(c) {
		s := g.sockets[key]
		if s == nil {
			s = opened[key]
		}
		if a, ok := s.Addr().(*net.TCPAddr); ok {
			own = append(own, a.AddrPort())
		}
	}
	return own
}

// Run serves until ctx ends, and then stops in order and in bounded time.
func (g *gateway) Run(ctx context.Context) {
	const grace = 30 * time.Second
	deliver, endDelivery := context.WithCancel(context.WithoutCancel(ctx))
	stop, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	delivered := make(chan struct{})
	go func() {
		g.delivery.Run(deliver, stop)
		close(delivered)
	}()
	var following sync.WaitGroup
	follow, unfollow := context.WithCancel(ctx)
	defer unfollow()
	following.Go(func() { g.followDomains(follow) })
	var digests sync.WaitGroup
	digests.Go(func() { g.digest.Run(ctx) })
	<-ctx.Done()
	g.log.Info("stopping")
	following.Wait() // it may be in a reload
	time.AfterFunc(grace, cut)
	g.mu.Lock()
	defer g.mu.Unlock()
	// Who waits for a content filter needs the listeners of role reinjection to the end.
	var sessions sync.WaitGroup
	shutdown := func(last bool) {
		for i, key := range socketKeys(g.config.Load()) {
			if (g.servers[i].Role() == smtpd.Reinjection) == last {
				g.sockets[key].Close()
			}
		}
		for _, s := range append(g.retired, g.servers...) {
			if (s.Role() == smtpd.Reinjection) == last {
				sessions.Go(func() { s.Shutdown(stop) })
			}
		}
	}
	shutdown(false)
	g.unwatch()
	endDelivery()
	sessions.Wait()
	digests.Wait()
	<-delivered
	shutdown(true)
	sessions.Wait()
	g.observers.Close()
	g.control.Close()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	g.host.Close(closing)
	if old := g.client.Load(); old != nil {
		old.Close()
	}
	if err := errors.Join(g.behind.Close(), g.directory.Close(), g.keeping.Close()); err != nil {
		g.log.Error("not closed cleanly", "error", err)
	}
	g.log.Info("stopped")
}

// listening is the addresses in the order of the configuration.
func (g *gateway) listening() []string {
	var out []string
	for _, key := range socketKeys(g.config.Load()) {
		out = append(out, g.sockets[key].Addr().String())
	}
	return out
}

// Story is what the trace knows of a message.
func (g *gateway) Story(id string) []trace.Event { return g.trace.Story(id) }

// Status is what the gateway says of itself.
func (g *gateway) Status() admin.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := admin.Status{Version: version(), Pid: os.Getpid(), Started: g.started, Listeners: g.listening(), InFlight: g.delivery.InFlight()}
	for _, p := range g.host.Status() {
		s.Plugins = append(s.Plugins, admin.Plugin{Name: p.Name, Pid: p.Pid, State: p.State, Restarts: p.Restarts})
	}
	return s
}
