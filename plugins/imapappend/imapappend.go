package imapappend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/once"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

const (
	maxStored = 10_000          // deliveries that are remembered
	maxTime   = 5 * time.Minute // of a delivery without a deadline of its own
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{Name: "imapappend", Version: "1.0", Needs: sdk.NeedBody, Network: true}
}

// Plugin stores messages. It implements [sdk.Mailbox] and [sdk.Folders].
type Plugin struct {
	hostname string
	standard *server // nil: none
	domains  map[mail.Domain]*server
	pool     *pool
	keys     *once.Keys
	now      func() time.Time
}

var (
	_ sdk.Mailbox    = (*Plugin)(nil)
	_ sdk.Folders    = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{keys: once.New(maxStored), now: time.Now} }

// Configure checks the settings. It does not connect.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	if s.Connections < 1 || s.Connections > 1000 {
		return fmt.Errorf("settings: connections: %d is not between 1 and 1000", s.Connections)
	}
	p.hostname, p.pool, p.domains = c.Hostname, newPool(s.Connections), make(map[mail.Domain]*server)
	for _, name := range slices.Sorted(maps.Keys(s.Domain)) {
		d, err := mail.ParseDomain(name)
		if err != nil {
			return fmt.Errorf("settings: domain %q: %w", name, err)
		}
		if p.domains[d], err = newServer(s.Domain[name].inherit(s.Server), c.DataDir); err != nil {
			return fmt.Errorf("settings: domain %s: %w", name, err)
		}
	}
	if s.Address == "" && len(p.domains) > 0 {
		return nil
	}
	var err error
	if p.standard, err = newServer(s.Server, c.DataDir); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// Deliver stores one message for one recipient.
func (p *Plugin) Deliver(ctx context.Context, d *sdk.Delivery) error {
	s, user, err := p.server(d.Recipient)
	if err != nil {
		return err
	}
	if err := checkFolder(d.Folder); err != nil {
		return mail.Permanent(554, 2, 0, "No such folder: "+err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	release, err := p.keys.Claim(ctx, d.Key)
	if err != nil {
		return err
	}
	defer release()
	if p.keys.Remembered(d.Key) {
		return nil
	}
	a := &appending{p: p, s: s, user: user, d: d, id: "<" + d.Key + "@" + p.hostname + ">", fresh: d.Fresh}
	if err := a.run(ctx); err != nil {
		return a.report(err)
	}
	p.keys.Remember(d.Key)
	return nil
}

// server is where a recipient's mailbox is, and what he is called there.
func (p *Plugin) server(to mail.Path) (*server, string, error) {
	s := p.domains[to.Domain]
	if s == nil {
		s = p.standard
	}
	if s == nil {
		return nil, "", mail.Temporary(451, 3, 5, "No IMAP server is configured for this domain")
	}
	user, err := s.user(to)
	return s, user, err
}

// checkFolder refuses names that no server should see.
func checkFolder(name string) error {
	if name == "" {
		return nil
	}
	if len(name) > 1024 {
		return errName("it is too long")
	}
	for level := range strings.SplitSeq(name, "/") {
		if level == "" || level == "." || level == ".." {
			return errName("a part of it is empty or dots")
		}
	}
	for _, r := range name {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd {
			return errName("it is no text")
		}
	}
	return nil
}

type errName string

func (e errName) Error() string { return string(e) }
