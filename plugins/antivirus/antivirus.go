// Package antivirus is the plugin that has mail scanned by clamd. See README.md.
//
// It keeps nothing between messages but which clamd failed lately. Messages are read in
// pieces, so memory does not depend on their size. No answer of clamd is longer than a line
// of limited length, and every one that is not understood is a failure, never a pass.
package antivirus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Addresses of clamd: "unix:/path" or "host:port", tried in order. Default:
	// ["unix:/run/clamav/clamd.ctl"].
	Addresses []string `toml:"addresses"`
	// FILDES hands messages of up to 1 MiB to clamd on a unix socket as a file in memory
	// instead of sending them: true, false, or "auto", which is true until clamd cannot take
	// one. Default: "auto".
	FILDES choice `toml:"fildes"`
	// Infected is what becomes of a message with a virus: "reject", "quarantine", "discard",
	// "tag", "accept" or "unscanned". Default: "reject".
	Infected string `toml:"infected"`
	// Encrypted is the same for what clamd cannot look into. Default: "quarantine".
	Encrypted string `toml:"encrypted"`
	// TooLarge is the same for what exceeds clamd's limits. Default: "quarantine".
	TooLarge string `toml:"too_large"`
	// Broken is the same for damaged programs and pictures. Default: "quarantine".
	Broken string `toml:"broken"`
	// Header adds X-Virus-Status to every message that passes, not to those alone in which
	// something was found. Default: false.
	Header bool `toml:"header"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{
		Addresses: []string{"unix:/run/clamav/clamd.ctl"}, FILDES: auto,
		Infected: "reject", Encrypted: "quarantine", TooLarge: "quarantine", Broken: "quarantine",
	}
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "antivirus",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditHeader,
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
		Owns:    []string{field},
		Network: true,
	}
}

// Plugin has messages scanned. It implements [sdk.Filter].
type Plugin struct {
	servers  *failover.Servers
	clamd    clamd
	policies map[finding]policy
	header   bool
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// Configure checks addresses and policies.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	var faults []error
	if len(s.Addresses) == 0 {
		faults = append(faults, errors.New(`settings: addresses is empty; name a clamd, as in addresses = ["unix:/run/clamav/clamd.ctl"]`))
	}
	for _, a := range s.Addresses {
		if _, _, err := failover.Split(a); err != nil {
			faults = append(faults, fmt.Errorf("settings: addresses: %w", err))
		}
	}
	p.policies = make(map[finding]policy)
	for f, name := range map[finding]string{infected: s.Infected, encrypted: s.Encrypted, tooLarge: s.TooLarge, broken: s.Broken} {
		pol, err := parsePolicy(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("settings: %s: %w", f.key(), err))
		}
		p.policies[f] = pol
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	p.servers = failover.New(s.Addresses, time.Now)
	p.clamd.handing.choice = s.FILDES
	p.header = s.Header
	return nil
}

// Filter has a message scanned and applies the policy for what was found.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	var a answer
	err := p.servers.Ask(ctx, func(ctx context.Context, address string) (err error) {
		a, err = p.clamd.scan(ctx, address, m)
		return err
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return unscanned("timeout"), nil
	case err != nil:
		return nil, fmt.Errorf("no clamd scanned the message: %w", err)
	case a.finding == timedOut:
		return unscanned("timeout"), nil
	}
	return p.mark(p.verdict(a), a), nil
}

func unscanned(reason string) *sdk.Verdict { return sdk.Unscanned(reason).Note("result", reason) }

// field is the header field of the plugin.
const field = "X-Virus-Status"

// mark makes the header say what was found.
func (p *Plugin) mark(v *sdk.Verdict, a answer) *sdk.Verdict {
	switch v.Action {
	case sdk.ActionReject, sdk.ActionDiscard, sdk.ActionUnscanned:
		return v
	}
	if p.header || a.finding != clean && p.policies[a.finding] != accept {
		v.AddHeader(field, a.status())
	}
	return v
}
