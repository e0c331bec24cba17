// Package journal is the plugin that sends a report of every message, with the message
// attached, to an archive. See README.md.
//
// It keeps nothing between messages but a key, by which it knows its reports. A report is a copy in the sense of the gateway: it is
// durable together with the message and goes when that is refused. Nothing that a message
// says can begin another line of a report, or end the attachment.
package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// To is who gets a report of every message. Default: "".
	To string `toml:"to"`
	// Domains names, by domain, who gets a report of what the domain sends or receives.
	// Default: none.
	Domains map[string]string `toml:"domains"`
	// BounceTo is who hears of a report that cannot be delivered; reports come from there.
	// Default: the gateway's postmaster.
	BounceTo string `toml:"bounce_to"`
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "journal",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayCopy | sdk.MayReplaceBody, // of the copy
		// Reports about mail, also those of journal reports, are internal; a redirected
		// message was journaled when it came in.
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
	}
}

// Plugin makes reports. It implements [sdk.Filter].
type Plugin struct {
	all      mail.Path // target of every message; zero: none
	domains  map[mail.Domain]mail.Path
	targets  map[string]bool // all targets, folded
	bounces  mail.Path
	hostname string
	seals    seals
	now      func() time.Time
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// Configure checks the addresses.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Settings{BounceTo: c.Postmaster}
	if err := c.Decode(&s); err != nil {
		return err
	}
	p.hostname, p.targets, p.domains = c.Hostname, make(map[string]bool), make(map[mail.Domain]mail.Path)
	var faults []string
	address := func(key, text string) mail.Path {
		a, err := mail.ParsePath(text)
		if err == nil && (a.IsZero() || !a.IsASCII()) {
			err = errors.New("it has to be an address in ASCII")
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("settings: %s: %q: %v", key, text, err))
		}
		return a
	}
	if s.To == "" && len(s.Domains) == 0 {
		faults = append(faults, `settings: nobody gets reports; say to = "archive@example.org", or domains = {"example.org" = "archive@example.org"}`)
	}
	if s.To != "" {
		p.all = address("to", s.To)
		p.targets[p.all.Fold().String()] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.Domains)) {
		d, err := mail.ParseDomain(name)
		if _, twice := p.domains[d]; err == nil && twice {
			err = errors.New("the domain is there twice")
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("settings: domains: %q: %v", name, err))
			continue
		}
		p.domains[d] = address("domains", s.Domains[name])
		p.targets[p.domains[d].Fold().String()] = true
	}
	p.bounces = address("bounce_to", s.BounceTo)
	if c.DataDir != "" {
		p.seals.file = filepath.Join(c.DataDir, "journal", "key")
	}
	if len(faults) > 0 { // in one line: the host shows no other
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

// Filter reports a message once, whatever versions of it there are.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	switch m.Notes[sdk.NoteEnvelope] {
	case sdk.EnvelopeCopy: // another archive's
		return sdk.Continue(), nil
	case sdk.EnvelopeAsked:
		return sdk.Continue().Note("reported", "with the other recipients"), nil
	}
	fates := sdk.WholeEnvelope(m)
	targets := p.wanted(&m.Envelope, fates)
	if len(targets) == 0 || p.ours(&m.Envelope, fates) {
		return sdk.Continue(), nil
	}
	key, err := p.seals.load()
	if err != nil {
		return nil, fmt.Errorf("the key that tells reports from other mail: %w", err)
	}
	if sealed(key, m.Header) {
		return sdk.Continue().Note("reported", "no: it is a report"), nil
	}
	body, err := sdk.NewBody(ctx)
	if err != nil {
		return nil, err
	}
	r := report{m: m, seal: seal(key, word(m.Envelope.ID)), fates: fates, hostname: p.hostname, from: p.bounces, time: p.now(), boundary: boundary()}
	if err := r.write(body); err != nil {
		return nil, fmt.Errorf("writing the report: %w", err)
	}
	// A report of a bounce has no reverse-path: an archive that cannot be reached would
	// otherwise make bounces of the reports of its own bounces for ever.
	reverse := p.bounces
	if m.Envelope.ReversePath.IsZero() {
		reverse = mail.Path{}
	}
	v := sdk.Continue()
	var names []string
	for _, t := range targets {
		v.CopyOwn(t, reverse, r.header(t), body)
		names = append(names, t.String())
	}
	return v.Note("reported", "to "+strings.Join(names, ", ")), nil
}

// wanted lists the targets, each once.
func (p *Plugin) wanted(e *mail.Envelope, fates []sdk.Fate) []mail.Path {
	var list []mail.Path
	add := func(t mail.Path) {
		if !t.IsZero() && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	add(p.all)
	add(p.domains[e.ReversePath.Domain])
	for _, f := range fates {
		for _, text := range []string{f.To, f.Given} {
			if a, err := mail.ParsePath(text); err == nil {
				add(p.domains[a.Domain])
			}
		}
	}
	return list
}

// ours reports whether a message is a report, or a report about one: it goes to archives only,
// or is a bounce for whoever hears of those.
func (p *Plugin) ours(e *mail.Envelope, fates []sdk.Fate) bool {
	others := slices.ContainsFunc(fates, func(f sdk.Fate) bool {
		a, err := mail.ParsePath(f.To)
		return err != nil || !p.targets[a.Fold().String()]
	})
	bounce := e.ReversePath.IsZero() && len(fates) == 1 && strings.EqualFold(fates[0].To, p.bounces.String())
	return !others || bounce
}
