package sieve

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "sieve",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditRcpt | sdk.MayEditHeader | sdk.MayReplaceBody,
		Host: sdk.MaySubmit | sdk.MayLookup | sdk.MayKeepData | sdk.MayAskRemembered | sdk.MayLog | sdk.MayCount |
			sdk.MayAuthenticate | sdk.MayUseCertificate | sdk.MayAskFolders,
	}
}

// Plugin runs scripts. It implements [sdk.Planner], and [sdk.Service] for ManageSieve.
type Plugin struct {
	settings   Settings
	hostname   string
	postmaster string
	host       *sdk.Host
	scripts    *Store
	compiled   *cache
	files      *files
	gateway    *files
	around     map[mail.Domain]around // at domains that have some of their own
	clock      func() time.Time
	special    map[string]string // mailboxes by attribute, in lower case
}

var (
	_ sdk.Planner    = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{clock: time.Now} }

// Configure reads the admin's scripts. One that does not compile is an error.
func (p *Plugin) Configure(ctx context.Context, c sdk.Config) error {
	s, err := SettingsOf(c)
	if err != nil {
		return err
	}
	p.settings, p.hostname, p.postmaster, p.host = s, c.Hostname, c.Postmaster, c.Host
	p.scripts = s.Store(c.Host)
	p.compiled = newCache(s.EngineOptions())
	p.files = newFiles(p.compiled, p.clock)
	limited := s.EngineOptions()
	limited.Extensions = gatewayExtensions()
	p.gateway = newFiles(newCache(limited), p.clock)
	p.special = specialUse()
	for use, name := range s.SpecialUse {
		if !strings.HasPrefix(use, `\`) {
			return fmt.Errorf("settings: special_use: %q is no attribute, as \"\\\\Junk\" is", use)
		}
		p.special[strings.ToLower(use)] = name
	}
	for _, name := range s.Gateway {
		if _, err := p.gateway.load(name); err != nil {
			return fmt.Errorf("settings: gateway: %w", err)
		}
	}
	all := append(append(fileList{}, s.Before...), s.After...)
	p.around = make(map[mail.Domain]around)
	for name, d := range s.Domain {
		all = append(append(all, d.Before...), d.After...)
		domain, err := mail.ParseDomain(name)
		if err != nil {
			return err
		}
		p.around[domain] = around{before: slices.Concat(s.Before, d.Before), after: slices.Concat(d.After, s.After)}
	}
	for _, name := range all {
		if _, err := p.files.load(name); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
	}
	return nil
}

// around are the admin's scripts around those of recipients.
type around struct{ before, after []string }

// adminScripts are the files around the script of a recipient.
func (p *Plugin) adminScripts(to mail.Path) (before, after []string) {
	before, after = p.settings.Before, p.settings.After
	if a, ok := p.around[to.Domain]; ok {
		return a.before, a.after
	}
	return before, after
}
