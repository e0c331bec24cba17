package spam

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/plugins/internal/setting"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "spam",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditHeader,
		Origins: []mail.Origin{mail.Incoming, mail.Fetched},
		Network: true,
		Host:    sdk.MayKeepState,
		Owns:    []string{"X-Spam*"}, // those of other filters too: people's rules read them
	}
}

// engine is a program that judges mail.
type engine interface {
	// check asks the engine at an address. Errors that are the message's fault are marked
	// with [failover.Stop].
	check(ctx context.Context, address string, e *mail.Envelope, c content) (*result, error)
}

// Plugin has messages judged. It implements [sdk.Filter].
type Plugin struct {
	engine   engine
	servers  *failover.Servers
	policy   policy
	domains  map[mail.Domain]policy
	maxSize  int64
	head     bool // of what is larger, look at the head
	headers  bool
	greylist greylist
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// Configure checks the settings and reads the password.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	faults := p.choose(&s, c)
	p.policy = policy{s.Tag, s.Quarantine, s.Reject}
	p.domains = make(map[mail.Domain]policy)
	for name, d := range s.Domains {
		domain, err := mail.ParseDomain(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("settings: domains: %w", err))
			continue
		}
		p.domains[domain] = policy{d.Tag.or(s.Tag), d.Quarantine.or(s.Quarantine), d.Reject.or(s.Reject)}
	}
	if s.Oversize != "head" && s.Oversize != "unscanned" {
		faults = append(faults, fmt.Errorf(`settings: oversize: %q is neither "head" nor "unscanned"`, s.Oversize))
	}
	if p.maxSize = int64(s.MaxSize); p.maxSize < minSize {
		faults = append(faults, fmt.Errorf("settings: max_size is below %d", minSize))
	}
	if s.GreylistDelay < 0 || s.GreylistDelay > maxDelay {
		faults = append(faults, fmt.Errorf("settings: greylist_delay is not between 0s and %s", maxDelay))
	}
	p.head, p.headers = s.Oversize == "head", s.Headers
	p.greylist = greylist{host: c.Host, delay: s.GreylistDelay, now: time.Now}
	return errors.Join(faults...)
}

// choose sets up the engine.
func (p *Plugin) choose(s *Settings, c sdk.Config) (faults []error) {
	addresses := s.URL
	switch s.Engine {
	case "rspamd":
		r := newRspamd(c.Hostname, s.SettingsID)
		if s.PasswordFile != "" {
			var err error
			if r.password, err = setting.Secret(setting.File(c.DataDir, s.PasswordFile)); err != nil {
				faults = append(faults, fmt.Errorf("settings: password_file: %w", err))
			}
		}
		p.engine = r
		faults = append(faults, checkEach("url", s.URL, checkURL)...)
	case "spamassassin":
		addresses = s.Address
		p.engine = &spamd{user: s.User}
		if !plainWord(s.User) {
			faults = append(faults, fmt.Errorf("settings: user: %q is not the name of a user", s.User))
		}
		faults = append(faults, checkEach("address", s.Address, func(a string) error { _, _, err := failover.Split(a); return err })...)
	default:
		return []error{fmt.Errorf(`settings: engine: %q is neither "rspamd" nor "spamassassin"`, s.Engine)}
	}
	p.servers = failover.New(addresses, time.Now)
	return faults
}

// Filter has a message judged and does for each recipient what the settings say.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	c := whole(m)
	cut := c.size > p.maxSize
	if cut {
		if !p.head {
			return sdk.Unscanned("too large"), nil
		}
		var err error
		if c, err = head(m); errors.Is(err, errTooLarge) {
			return sdk.Unscanned("too large"), nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the message: %w", err)
		}
	}
	var r *result
	err := p.servers.Ask(ctx, func(ctx context.Context, address string) (err error) {
		r, err = p.engine.check(ctx, address, &m.Envelope, c)
		return err
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return sdk.Unscanned("timeout"), nil
	case err != nil:
		return nil, fmt.Errorf("no engine judged the message: %w", err)
	}
	v := p.verdict(ctx, m, r)
	if cut {
		v.Note("scanned", "head")
	}
	return v, nil
}
