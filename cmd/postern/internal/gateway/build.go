package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/postern-mail/postern/cmd/postern/internal/builtin"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/observe"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/core/resolver"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// This file translates the configuration into what each part wants to know.

// messageTime is what all plugins together may take for one message.
const messageTime = 60 * time.Second

// smarthostLogin is the name of the smarthost's credentials.
const smarthostLogin = "smarthost"

func policyOptions(c *config.Config, dir policy.Directory, behind policy.Behind, previous *policy.Policy, log *slog.Logger) policy.Options {
	o := policy.Options{
		Hostname: c.Hostname, Directory: dir, Behind: behind, Relay: c.Prefixes(c.Relay.Networks),
		Limits: policy.Limits{
			MessageSize: int64(c.Limits.MessageSize), Recipients: c.Limits.Recipients, Connections: c.Limits.ConnectionsPerClient,
			MessagesPerMinute: c.Limits.MessagesPerMinute, RecipientsPerHour: c.Limits.RecipientsPerHour,
		},
		SenderLogin: c.Auth.SenderLogin == "strict", Log: log, Previous: previous,
	}
	for _, d := range c.Domains {
		if d.Recipients == "any" {
			o.AnyRecipient = append(o.AnyRecipient, d.Name)
		}
	}
	o.Callahead = callaheadDomains(c)
	for _, r := range c.Access.Clients {
		o.Clients = append(o.Clients, policy.ClientRule{Networks: c.Prefixes(r.Match), Reject: r.Action == "reject", Text: r.Text})
	}
	o.Senders = addressRules(c.Access.Senders)
	o.Recipients = addressRules(c.Access.Recipients)
	for name, n := range c.Limits.Networks {
		l := o.Limits
		override(&l.MessageSize, n.MessageSize)
		override(&l.Connections, n.ConnectionsPerClient)
		override(&l.MessagesPerMinute, n.MessagesPerMinute)
		override(&l.RecipientsPerHour, n.RecipientsPerHour)
		o.Networks = append(o.Networks, policy.NetworkLimits{Networks: c.Prefixes(config.Strings{name}), Limits: l})
	}
	return o
}

// override sets *to where the configuration says something.
func override[T ~int | ~int64, S ~int | ~int64](to *T, from *S) {
	if from != nil {
		*to = T(*from)
	}
}

func addressRules(rules []config.AccessRule) []policy.AddressRule {
	var out []policy.AddressRule
	for _, r := range rules {
		out = append(out, policy.AddressRule{Match: r.Match, Reject: r.Action == "reject", Text: r.Text})
	}
	return out
}

func routes(c *config.Config, own []netip.AddrPort) (*route.Table, error) {
	o := route.Options{Domains: make(map[mail.Domain][]string), Smarthost: c.Smarthost.Address, Hostname: c.Hostname, Own: own}
	for _, d := range c.Domains {
		o.Domains[d.Name] = d.Deliver
		for _, a := range d.Aliases {
			o.Domains[a] = d.Deliver
		}
	}
	if c.Smarthost.Username != "" {
		o.Credentials = smarthostLogin
	}
	return route.New(o)
}

// planners returns which plugin plans for a recipient, "" for none.
func planners(c *config.Config) func(mail.Path) string {
	names := make(map[mail.Domain]string)
	for _, d := range c.Domains {
		names[d.Name] = d.Planner
		for _, a := range d.Aliases {
			names[a] = d.Planner
		}
	}
	return func(to mail.Path) string { return names[to.Domain] }
}

func newResolver(c *config.Config, log *slog.Logger) (resolver.Resolver, error) {
	return resolver.New(resolver.Options{Servers: c.DNS.Servers, Log: log})
}

func clientOptions(c *config.Config, r resolver.Resolver, own []netip.AddrPort, log *slog.Logger) smtpclient.Options {
	o := smtpclient.Options{Hostname: c.Hostname.String(), Resolver: r, OwnAddresses: own, Log: log}
	for _, d := range c.Destinations {
		tls := smtpclient.Opportunistic
		if d.TLS == "required" {
			tls = smtpclient.Required
		}
		o.Destinations = append(o.Destinations, smtpclient.Destination{Match: d.Match, TLS: tls, CAFile: d.CAFile, Pin: d.Pin, AllowPrivate: d.AllowPrivate})
	}
	o.Credentials = func(name string) (smtpclient.Credentials, error) {
		if name != smarthostLogin {
			return smtpclient.Credentials{}, errors.New("no such log-in")
		}
		password, err := c.Smarthost.Password()
		return smtpclient.Credentials{Username: c.Smarthost.Username, Password: password}, err
	}
	return o
}

// PluginSpecs are the plugins to run: those listed, and mailbox plugins that a domain
// names and nobody listed, with their defaults.
func PluginSpecs(c *config.Config) ([]pluginhost.Spec, error) {
	var specs []pluginhost.Spec
	listed := make(map[string]bool)
	for _, p := range c.Plugins {
		s := pluginhost.Spec{Name: p.Name, Use: p.Use, Command: p.Command, Settings: p.Settings.TOML, Timeout: time.Duration(p.Timeout)}
		if len(s.Command) == 0 {
			if s.Use == "" {
				s.Use = p.Name
			}
			if _, ok := builtin.Plugins[s.Use]; !ok {
				return nil, fmt.Errorf("plugin %q: there is no built-in plugin %q: the built-in ones are %s; for another, name its program with command", p.Name, s.Use, builtin.Names())
			}
		}
		if err := restrict(&s, p); err != nil {
			return nil, err
		}
		listed[p.Name] = true
		specs = append(specs, s)
	}
	for _, d := range c.Domains {
		for _, deliver := range d.Deliver {
			h, err := route.ParseHop(deliver)
			if err != nil || h.Scheme != route.SchemeMailbox || listed[h.Address] {
				continue
			}
			b, ok := builtin.Plugins[h.Address]
			if !ok || !b.Mailbox {
				return nil, fmt.Errorf("domain %s: deliver = %q: that is no mailbox plugin that is built in or listed", d.Name, h.Address)
			}
			listed[h.Address] = true
			specs = append(specs, pluginhost.Spec{Name: h.Address, Use: h.Address, Timeout: defaultPluginTime})
		}
	}
	return specs, nil
}

func hostOptions(c *config.Config, runDir string, log *slog.Logger) pluginhost.Options {
	return pluginhost.Options{RunDir: runDir, SelfExe: "/proc/self/exe", Hostname: c.Hostname.String(), Postmaster: c.Postmaster.String(),
		DataDir: c.DataDir, ContentDir: contentDir(c), DNSServers: c.DNS.Servers, Version: Version(), Log: log}
}

// defaultPluginTime is the timeout of plugins that nobody listed.
const defaultPluginTime = 20 * time.Second

// steps are the filters among the plugins, in the configuration's order.
func steps(c *config.Config, host *pluginhost.Host) []pipeline.Step {
	var out []pipeline.Step
	for _, p := range c.Plugins {
		f, ok := filterOf(p, host)
		if !ok {
			continue
		}
		out = append(out, pipeline.Step{Name: p.Name, Filter: f, Origins: origins(p, f.Manifest()), Timeout: time.Duration(p.Timeout), OnFailure: failurePolicy(p.OnFailure)})
	}
	return out
}

// filterOf is the filter that a listed plugin is; false if it is none.
func filterOf(p config.Plugin, host *pluginhost.Host) (*pluginhost.Filter, bool) {
	if len(p.Command) == 0 {
		if b := builtin.Plugins[cmp.Or(p.Use, p.Name)]; b.Filters != nil && !b.Filters(p.Settings.TOML) {
			return nil, false
		}
	}
	return host.Filter(p.Name)
}

// origins are the mail that a plugin is asked about: the admin's choice, else the plugin's,
// else everything but copies.
func origins(p config.Plugin, m sdk.Manifest) []mail.Origin {
	switch {
	case len(p.Origins) > 0:
		return p.Origins
	case len(m.Origins) > 0:
		return m.Origins
	}
	return []mail.Origin{mail.Incoming, mail.Submitted, mail.Internal, mail.Redirected, mail.Fetched}
}

// observers are the plugins that are told what became of mail.
func observers(c *config.Config, host *pluginhost.Host) map[string]observe.Observer {
	out := make(map[string]observe.Observer)
	for _, p := range c.Plugins {
		if o, ok := host.Observer(p.Name); ok {
			out[p.Name] = o
		}
	}
	return out
}

func failurePolicy(o config.OnFailure) pipeline.FailurePolicy {
	f := pipeline.FailurePolicy{Default: pipeline.OnFailure(o.Default), ByClass: make(map[mail.Class]pipeline.OnFailure), ByReason: make(map[pipeline.Reason]pipeline.OnFailure)}
	for class, s := range map[mail.Class]string{mail.Stranger: o.Stranger, mail.Authenticated: o.Authenticated, mail.Relay: o.Relay} {
		if s != "" {
			f.ByClass[class] = pipeline.OnFailure(s)
		}
	}
	for reason, s := range map[pipeline.Reason]string{pipeline.Down: o.Down, pipeline.Timeout: o.Timeout, pipeline.Error: o.Error} {
		if s != "" {
			f.ByReason[reason] = pipeline.OnFailure(s)
		}
	}
	return f
}

func (g *Gateway) newPipeline(c *config.Config) *pipeline.Pipeline {
	return pipeline.New(pipeline.Options{Steps: steps(c, g.host), Timeout: messageTime, Trace: g.trace, Clock: time.Now,
		Convictions: &g.convictions, Tally: &g.tally, Allowed: allowance(c, g.directory, g.log)})
}

// intakeRules are the rules for messages that come in.
func intakeRules(c *config.Config, p *pipeline.Pipeline, dirs *directories, table *route.Table) intake.Rules {
	return intake.Rules{Pipeline: p, Expand: dirs.Expand, Reaches: dirs.Reaches, Sender: dirs.Sender, HeaderSize: int(c.Limits.HeaderSize), Hops: c.Limits.ReceivedHops, BodySize: int64(c.Limits.MessageSize),
		Quarantine: time.Duration(c.Quarantine.Keep),
		Destination: func(to mail.Path) string {
			r, err := table.Route(to)
			if err != nil {
				return "none" // the attempt will say why
			}
			return r.Key
		}}
}
