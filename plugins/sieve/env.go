package sieve

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// addresses finds out whose script it is, and the address that the message was sent to: the
// one that the client gave if it means the owner alone, else the owner's.
func (p *planning) addresses() error {
	r := p.m.Envelope.Recipients[0]
	p.given, p.owner = r.Path, r.Path.Fold()
	if user, _, found := strings.Cut(p.owner.Local, p.settings.Delimiter); found && user != "" {
		p.owner.Local = user
	}
	if r.Original.IsZero() || r.Original.Fold() == r.Path.Fold() {
		return nil
	}
	of := r.Original.Fold()
	if user, _, found := strings.Cut(of.Local, p.settings.Delimiter); found && of.Domain == p.owner.Domain && user == p.owner.Local {
		p.given = r.Original
		return nil
	}
	a, err := p.host.Lookup(p.ctx, r.Original)
	if err != nil && !errors.Is(err, sdk.ErrNoHost) {
		return err
	}
	if len(a.Targets) == 1 && a.Targets[0].Fold() == r.Path.Fold() {
		p.given = r.Original
	}
	return nil
}

// env is what a script is told about the world.
func (p *planning) env(s step) *engine.Env {
	e := &p.m.Envelope
	env := &engine.Env{From: e.ReversePath.String(), To: p.given.String(), Auth: e.Client.User, Now: p.clock(), Delimiter: p.settings.Delimiter,
		Addresses: []string{p.owner.String()}, Mailboxes: &p.boxes, Script: p.included,
		Items: p.items(e, p.owner.Domain.String(), "MDA")}
	env.Spam, env.Virus = p.scores(p.m)
	env.Remembered = func(ctx context.Context, key string) (bool, error) { return p.remembered(ctx, s.key(key)) }
	if s.admin {
		env.Script = p.includedByAdmin
		addFindings(env.Items, p.m)
	}
	return env
}

// items are those of RFC 5183 §4.
func (p *Plugin) items(e *mail.Envelope, domain, location string) map[string]string {
	items := map[string]string{"name": "Postern", "host": p.hostname, "domain": domain, "location": location, "phase": "during"}
	if e.Client.Addr.IsValid() {
		items["remote-ip"] = e.Client.Addr.Unmap().String()
		items["remote-host"] = e.Client.Host
	}
	return items
}

// addFindings adds what the plugins before said, as items of our own (RFC 5183 §4.2). Scripts of
// the admin see them, and those of recipients do not: not all that a filter notes is for them.
func addFindings(items map[string]string, m *mail.Message) {
	for name, text := range m.Notes {
		items["vnd.postern.note."+strings.ToLower(name)] = text
	}
	for name, score := range m.Scores {
		items["vnd.postern.score."+strings.ToLower(name)] = strconv.FormatFloat(score, 'f', -1, 64)
	}
}

// scores are what the filters for spam and viruses have said (RFC 5235).
func (p *Plugin) scores(m *mail.Message) (spam, virus int) {
	spam = -1
	if percent, ok := m.Scores[p.settings.Spam+"/percent"]; ok {
		spam = int(max(0, min(percent, 100)))
	}
	switch m.Notes[p.settings.Antivirus+"/result"] {
	case "clean":
		virus = 1
	case "infected":
		virus = 5
	}
	return spam, virus
}

// included finds a script that another one includes: the owner's, or the admin's.
func (p *planning) included(ctx context.Context, location, name string) ([]byte, error) {
	if location != "personal" {
		return p.global(name)
	}
	_, text, err := p.scripts.Get(ctx, p.owner, name)
	if errors.Is(err, ErrNoScript) {
		err = engine.ErrNoScript
	}
	return text, err
}

// includedByAdmin is included for scripts of the admin: all that they include is his.
func (p *Plugin) includedByAdmin(_ context.Context, _, name string) ([]byte, error) {
	return p.global(name)
}

func (p *Plugin) global(name string) ([]byte, error) {
	if p.settings.GlobalDir == "" || !engine.ValidScriptName(name) || strings.HasPrefix(name, ".") {
		return nil, engine.ErrNoScript
	}
	text, err := readScript(filepath.Join(p.settings.GlobalDir, name+".sieve"))
	if errors.Is(err, os.ErrNotExist) {
		err = engine.ErrNoScript
	}
	return text, err
}

// remembered says whether a plan for this recipient has remembered the key.
func (p *planning) remembered(ctx context.Context, key string) (bool, error) {
	yes, err := p.host.Remembered(ctx, p.m.Envelope.Recipients[0].Path, key)
	if errors.Is(err, sdk.ErrNoHost) {
		err = nil
	}
	return yes, err
}
