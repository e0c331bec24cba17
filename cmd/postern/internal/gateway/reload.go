package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/core/clientname"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/delivery"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/core/tlsconf"
)

// prepared is what a configuration gives and nothing uses yet: a reload that fails is
// thrown away here.
type prepared struct {
	directories *directories
	sending     *sendingOn
	policy      *policy.Policy
	routes      *route.Table
	names       *clientname.Names
	client      *smtpclient.Client
	certs       *tlsconf.Server
	auth        *auth.Authenticator
	servers     []*smtpd.Server // one for each listener
}

// prepare builds what can fail. sockets are those that this configuration adds.
func (g *Gateway) prepare(c *config.Config, opened map[string]*socket) (*prepared, error) {
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
	p.names = newNames(c, r)
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

func (g *Gateway) serverOptions(c *config.Config, l config.Listener, p *prepared) smtpd.Options {
	o := smtpd.Options{
		Hostname: c.Hostname.String(), Name: l.Address, Role: smtpd.Role(l.Role), TLS: smtpd.TLSMode(l.TLS), TLSConfig: p.certs.Config(),
		Auth: smtpd.AuthMode(l.Auth), Policy: &guard{&g.policy, &g.gates, &g.names, l.Role == "submission"}, Authenticator: smtpLogins{p.auth}, Intake: &g.door, Clients: c.Prefixes(l.Clients), ProxyFrom: c.Prefixes(l.ProxyFrom), DSN: l.DSN, Log: g.log,
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

func (g *Gateway) intakeRules(c *config.Config, p *prepared) intake.Rules {
	r := intakeRules(c, g.newPipeline(c), p.directories, p.routes)
	p.sending.extend(&r)
	r.Author = p.policy.Author
	return r
}

func deliveryRules(c *config.Config, p *prepared) delivery.Rules {
	return delivery.Rules{Route: p.routes.Route, Planner: planners(c), Subaddress: subaddresses(c), Total: c.Queue.Concurrency, PerNextHop: c.Queue.ConcurrencyPerDestination,
		Lifetime: lifetimes(c), DelayWarning: time.Duration(c.Queue.DelayWarning)}
}

// adopt makes a prepared configuration the one in force. It cannot fail.
func (g *Gateway) adopt(c *config.Config, p *prepared, opened map[string]*socket) {
	g.directory.Declare(Declared(c), c.Postmaster)
	g.policy.Store(p.policy)
	g.gates.Store(g.newGates(c))
	g.names.Store(p.names)
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
	g.services.routes.Store(p.routes)
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
func (g *Gateway) retire(replaced []*smtpd.Server) {
	g.retired = slices.DeleteFunc(append(g.retired, replaced...), func(s *smtpd.Server) bool {
		if !s.Idle() {
			return false
		}
		go s.Shutdown(context.Background()) // it has no session: that takes no time
		return true
	})
}

// Reload puts another configuration in force, or leaves everything as it is.
func (g *Gateway) Reload(ctx context.Context, file *config.Config) error {
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
		if specs, err = PluginSpecs(c); err == nil {
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
func (g *Gateway) unpark() {
	if d := g.parked.Load(); d != nil {
		d.Unpark()
	} // else nothing is lost: the delivery begins with that
}
