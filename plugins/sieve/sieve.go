package sieve

import (
	"context"
	"fmt"
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
			sdk.MayAuthenticate | sdk.MayUseCertificate,
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
	for _, d := range s.Domain {
		all = append(append(all, d.Before...), d.After...)
	}
	for _, name := range all {
		if _, err := p.files.load(name); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
	}
	return nil
}

// adminScripts are the files around the script of a recipient.
func (p *Plugin) adminScripts(to mail.Path) (before, after []string) {
	before, after = p.settings.Before, p.settings.After
	for name, d := range p.settings.Domain {
		if n, err := mail.ParseDomain(name); err == nil && n == to.Domain {
			before = append(append([]string{}, before...), d.Before...)
			after = append(append([]string{}, d.After...), after...)
		}
	}
	return before, after
}
