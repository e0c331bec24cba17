// Package gateway puts the parts together: it reads a configuration, builds what it names, starts
// it, replaces it at a reload and stops it in order. It decides nothing itself: policies,
// pipeline, queue and transports are packages of core, which know neither the configuration nor
// each other. Beside the running gateway there are one aside, for trials, and what commands do
// without one.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/admin"
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
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/reinject"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/core/trace"
)

// Gateway is all the parts, put together.
type Gateway struct {
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
	names     currentNames
	intake    *intake.Intake
	delivery  *delivery.Delivery
	observers *observe.Observers
	digest    *digest.Digest
	client    currentClient
	behind    *behind
	door      door
	control   *admin.Server
	// convictions, and what plugins decide, are counted across reloads.
	convictions pipeline.Convictions
	tally       pipeline.Tally
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

// New builds and starts everything but the listeners' sessions: after an error
// nothing is left running.
func New(ctx context.Context, c *config.Config, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{log: log, started: time.Now(), sockets: make(map[string]*socket)}
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

// build does New's work. It calls undo with how to take back each step.
func (g *Gateway) build(ctx context.Context, c *config.Config, undo func(func())) error {
	_, err := PluginSpecs(c) // what is wrong with the file is said before anything is opened
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
	specs, err := PluginSpecs(c)
	if err != nil {
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
func (g *Gateway) assemble(c *config.Config, p *prepared) error {
	g.intake = intake.New(intake.Options{Hostname: c.Hostname.String(), Postmaster: c.Postmaster, IDs: &queue.IDs{}, Spool: g.spool, Store: g.store,
		Backoff: backoff(c), Trace: g.trace, Log: g.log, Clock: g.clock}, g.intakeRules(c, p))
	g.door = door{g.intake, &g.names}
	g.services.intake.Store(g.intake)
	expander := &expand.Expander{Intake: g.intake, Log: g.log, Clock: g.clock, Planner: func(name string) (expand.Planner, bool) {
		p, ok := g.host.Planner(name)
		return p, ok
	}}
	transport := &mailbox.Transport{Log: g.log, Backend: func(name string) (mailbox.Backend, bool) {
		m, ok := g.host.Mailbox(name)
		return m, ok
	}}
	g.delivery = delivery.New(delivery.Options{Store: g.store, Intake: g.intake, SMTP: g.behind, Mailbox: transport, Expand: expander, Trace: g.trace, Log: g.log, Convictions: &g.convictions,
		Clock: g.clock, Owner: c.Hostname.String(), Lease: leaseTime}, deliveryRules(c, p))
	g.parked.Store(g.delivery)
	g.observers = observe.New(observe.Options{Feed: g.store, Log: g.log})
	g.digest = g.newDigest(c)
	l, err := admin.Listen(ControlSocket(c))
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
func (g *Gateway) steered(first *config.Config) *admin.Queue {
	return &admin.Queue{Store: g.store, Trace: g.trace, Clock: g.clock, Reopen: g.delivery.Reopen, Lifetime: func(class queue.Class) time.Duration {
		c := g.config.Load()
		if c == nil {
			c = first
		}
		return lifetimes(c)(class)
	}}
}

// Run serves until ctx ends, and then stops in order and in bounded time.
func (g *Gateway) Run(ctx context.Context) {
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

// Listening is the addresses in the order of the configuration.
func (g *Gateway) Listening() []string {
	var out []string
	for _, key := range socketKeys(g.config.Load()) {
		out = append(out, g.sockets[key].Addr().String())
	}
	return out
}

// Story is what the trace knows of a message.
func (g *Gateway) Story(id string) []trace.Event { return g.trace.Story(id) }

// Status is what the gateway says of itself.
func (g *Gateway) Status() admin.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := admin.Status{Version: Version(), Pid: os.Getpid(), Started: g.started, Listeners: g.Listening(), InFlight: g.delivery.InFlight()}
	for _, p := range g.host.Status() {
		s.Plugins = append(s.Plugins, admin.Plugin{Name: p.Name, Pid: p.Pid, State: p.State, Restarts: p.Restarts})
	}
	return s
}
