// Package bcc is the plugin that sends copies of a domain's mail to an archive. See README.md.
//
// It keeps nothing between messages.
package bcc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Copies names, by domain, the address that gets a copy of what the domain sends or
	// receives; "*" stands for every message. Required.
	Copies map[string]string `toml:"copies"`
	// BounceTo is who hears of a copy that cannot be delivered: "postmaster" or "sender".
	// Default: "postmaster".
	BounceTo string `toml:"bounce_to"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings { return Settings{BounceTo: "postmaster"} }

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "bcc",
		Version: "1.0",
		Needs:   sdk.NeedHeader,
		May:     sdk.MayCopy,
		// A redirected message was copied when it came in, and reports would tell of
		// copies that failed.
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
	}
}

// Plugin asks for copies. It implements [sdk.Filter].
type Plugin struct {
	targets  map[mail.Domain]mail.Path
	all      mail.Path          // target of every message; zero: none
	archives map[mail.Path]bool // all targets, folded
	toSender bool
	bounces  mail.Path // where bounces go otherwise
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// Configure checks the addresses.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	if len(s.Copies) == 0 {
		return errors.New(`settings: copies is empty; name who gets copies, as in copies = {"example.org" = "archive@example.org"}`)
	}
	p.targets, p.archives = make(map[mail.Domain]mail.Path), make(map[mail.Path]bool)
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(s.Copies)) {
		if err := p.add(name, s.Copies[name]); err != nil {
			faults = append(faults, fmt.Errorf("settings: copies: %q: %w", name, err))
		}
	}
	switch s.BounceTo {
	case "sender":
		p.toSender = true
	case "postmaster":
		var err error
		if p.bounces, err = mail.ParsePath(c.Postmaster); err != nil || p.bounces.IsZero() {
			faults = append(faults, fmt.Errorf("the gateway's postmaster %q is not an address", c.Postmaster))
		}
	default:
		faults = append(faults, fmt.Errorf(`settings: bounce_to: %q is neither "postmaster" nor "sender"`, s.BounceTo))
	}
	return errors.Join(faults...)
}

func (p *Plugin) add(name, address string) error {
	target, err := mail.ParsePath(address)
	if err == nil && target.IsZero() {
		err = errors.New("the address is empty")
	}
	if err != nil {
		return err
	}
	p.archives[target.Fold()] = true
	if name == "*" {
		p.all = target
		return nil
	}
	d, err := mail.ParseDomain(name)
	if err != nil {
		return err
	}
	if old, ok := p.targets[d]; ok && old != target {
		return fmt.Errorf("the domain is there twice, the other time with %s", old)
	}
	p.targets[d] = target
	return nil
}

// Filter asks for one copy for every target that the message concerns.
func (p *Plugin) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) {
	v := sdk.Continue()
	// What another plugin copied is no mail of its own.
	if m.Notes[sdk.NoteEnvelope] == sdk.EnvelopeCopy || p.onlyTargets(&m.Envelope) {
		return v, nil
	}
	reverse := p.reversePath(m.Envelope.ReversePath)
	for _, target := range p.wanted(&m.Envelope) {
		if !receives(&m.Envelope, target) {
			v.AddCopy(target, reverse)
		}
	}
	return v, nil
}

// wanted lists the targets, each once, in the order in which the envelope names their
// domains.
func (p *Plugin) wanted(e *mail.Envelope) []mail.Path {
	var list []mail.Path
	seen := make(map[mail.Path]bool)
	add := func(target mail.Path) {
		if !target.IsZero() && !seen[target.Fold()] {
			seen[target.Fold()] = true
			list = append(list, target)
		}
	}
	add(p.all)
	add(p.targets[e.ReversePath.Domain])
	for _, r := range e.Recipients {
		add(p.targets[r.Path.Domain])
		add(p.targets[r.Given().Domain])
	}
	return list
}

// onlyTargets reports whether nobody but targets gets the message: it is a copy. Without
// this two archives could have copies of each other's copies for ever.
func (p *Plugin) onlyTargets(e *mail.Envelope) bool {
	return !slices.ContainsFunc(e.Recipients, func(r mail.Recipient) bool { return !p.archives[r.Path.Fold()] })
}

// receives reports whether the message goes to target anyway.
func receives(e *mail.Envelope, target mail.Path) bool {
	return slices.ContainsFunc(e.Recipients, func(r mail.Recipient) bool {
		return r.Path.Fold() == target.Fold()
	})
}

// reversePath is where bounces of a copy go. A copy of a bounce has none: otherwise an
// archive that cannot be reached would make bounces of the copies of its own bounces for
// ever.
func (p *Plugin) reversePath(original mail.Path) mail.Path {
	if p.toSender || original.IsZero() {
		return original
	}
	return p.bounces
}
