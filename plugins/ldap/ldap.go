package ldap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/plugins/internal/setting"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// maxPacket bounds one message of a server, an entry say. There is one bound for the process.
const maxPacket = 4 << 20

// Manifest declares the plugin.
func Manifest() sdk.Manifest { return sdk.Manifest{Name: "ldap", Version: "1.0", Network: true} }

// Plugin asks LDAP servers. It implements [sdk.Directory].
type Plugin struct {
	s       Settings
	filter  filter
	logins  filter
	order   *failover.Servers
	servers map[string]*server // by URL
}

var (
	_ sdk.Directory  = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// Configure checks the settings. It asks no server: one that is away must not keep the gateway
// from starting.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	var roots *x509.CertPool // nil: the system's
	password := ""
	var err error
	if s.CAFile != "" {
		if roots, err = readCAs(setting.File(c.DataDir, s.CAFile)); err != nil {
			return fmt.Errorf("settings: ca_file: %w", err)
		}
	}
	if s.PasswordFile != "" {
		if password, err = setting.Secret(setting.File(c.DataDir, s.PasswordFile)); err != nil {
			return fmt.Errorf("settings: password_file: %w", err)
		}
	}
	ber.MaxPacketLengthBytes = maxPacket
	p.s, p.servers = s, make(map[string]*server)
	p.filter, _ = parseFilter(s.Filter)
	p.logins, _ = parseFilter(s.LoginFilter)
	for _, u := range s.URL {
		at, _ := parseURL(u)
		p.servers[u] = newServer(at, &s, roots, password)
	}
	p.order = failover.New(s.URL, time.Now)
	return nil
}

// ask calls f with one server after the other until it returns nil.
func (p *Plugin) ask(ctx context.Context, f func(ctx context.Context, s *server) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.s.Timeout)
	defer cancel()
	return p.order.Ask(ctx, func(ctx context.Context, url string) error { return f(ctx, p.servers[url]) })
}

// Resolve returns what an address stands for.
func (p *Plugin) Resolve(ctx context.Context, address mail.Path) ([]mail.Path, error) {
	var targets []mail.Path
	err := p.ask(ctx, func(ctx context.Context, s *server) (err error) {
		targets, err = p.resolve(ctx, s, address)
		return err
	})
	return targets, err
}

// CheckPassword returns the account if the password is right.
func (p *Plugin) CheckPassword(ctx context.Context, login mail.Path, password string) (mail.Path, error) {
	if password == "" {
		return mail.Path{}, nil
	}
	var account mail.Path
	err := p.ask(ctx, func(ctx context.Context, s *server) error {
		account = mail.Path{}
		entries, err := p.search(ctx, s, p.logins, login)
		if err != nil {
			return err
		}
		if len(entries) > 1 {
			return failover.Stop(errors.New("login_filter finds more than one entry for a login"))
		}
		dn, found := p.nobody(), mail.Path{}
		if len(entries) == 1 {
			dn = entries[0].DN
			if found = p.own(entries[0], login); found.IsZero() {
				found = login.Fold()
			}
		}
		right, err := s.login(ctx, dn, password) // also for nobody, so that it takes as long
		if right {
			account = found
		}
		return err
	})
	return account, err
}

// nobody is the name of an entry that there is not.
func (p *Plugin) nobody() string { return "cn=no such entry," + p.s.Base }
