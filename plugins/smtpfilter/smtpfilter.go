// Package smtpfilter is the plugin that hands messages to an outside content filter that
// speaks SMTP or LMTP, as amavisd-new does, and takes back what the filter makes of them. See
// README.md.
//
// It keeps nothing between messages. A message is with the filter for as long as the call
// lasts: what the filter brings back after that is refused by the gateway.
package smtpfilter

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
	// Address is where the filter listens: "host:port" or "unix:/path". Required.
	Address string `toml:"address"`
	// Protocol is "smtp" or "lmtp". Default: "smtp".
	Protocol string `toml:"protocol"`
	// Helo is what the filter is greeted with. Default: "", the gateway's hostname.
	Helo string `toml:"helo"`
	// Connections is how many messages are with the filter at a time. Default: 10.
	Connections int `toml:"connections"`
	// ConnectTimeout is for the connection and the greeting. Default: "5s".
	ConnectTimeout time.Duration `toml:"connect_timeout"`
	// ReplyTimeout is for each reply but the last, which may take as long as the call may.
	// Default: "20s".
	ReplyTimeout time.Duration `toml:"reply_timeout"`
	// Swallowed is what becomes of mail that the filter takes and does not bring back:
	// "quarantine", "discard" or "tempfail". Default: "quarantine".
	Swallowed string `toml:"swallowed"`
	// Owns are names of header fields that only the filter may write; with a * at the end,
	// all that begin so. Default: none.
	Owns []string `toml:"owns"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Protocol: "smtp", Connections: 10, ConnectTimeout: 5 * time.Second, ReplyTimeout: 20 * time.Second, Swallowed: "quarantine"}
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "smtpfilter",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May: sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditHeader | sdk.MayEditRcpt |
			sdk.MayEditReverse | sdk.MayReplaceBody,
		// Reports that the gateway makes tell of mail that was filtered before.
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
		Network: true,
		Host:    sdk.MayTakeReinjected,
	}
}

// Plugin asks the filter. It implements [sdk.Filter].
type Plugin struct {
	settings Settings
	network  string // of the filter's address
	address  string
	host     *sdk.Host
	slots    chan struct{} // one for each message that is with the filter
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
	_ sdk.Owner      = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// Configure checks the settings. It does not talk to the filter, which may come up later.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("settings: "+format, args...))
		}
	}
	var err error
	if p.network, p.address, err = failover.Split(s.Address); s.Address == "" {
		err = errors.New(`it is missing; say where the content filter listens, as in address = "127.0.0.1:10024"`)
	}
	fault(err != nil, "address: %w", err)
	fault(s.Protocol != "smtp" && s.Protocol != "lmtp", `protocol: %q is neither "smtp" nor "lmtp"`, s.Protocol)
	if s.Helo == "" {
		s.Helo = c.Hostname
	}
	_, err = mail.ParseDomain(s.Helo)
	fault(err != nil, "helo: %q is not a domain name", s.Helo)
	fault(s.Connections < 1 || s.Connections > 100, "connections: %d is not a number from 1 to 100", s.Connections)
	fault(s.ConnectTimeout <= 0, "connect_timeout has to be longer than 0s")
	fault(s.ReplyTimeout <= 0, "reply_timeout has to be longer than 0s")
	fault(s.Swallowed != "quarantine" && s.Swallowed != "discard" && s.Swallowed != "tempfail",
		`swallowed: %q is none of "quarantine", "discard" and "tempfail"`, s.Swallowed)
	p.settings, p.host, p.slots = s, c.Host, make(chan struct{}, max(s.Connections, 1))
	return errors.Join(faults...)
}

// Owns are the fields that the settings name.
func (p *Plugin) Owns() []string { return p.settings.Owns }

// Filter hands the message over, waits for the filter's reply, and makes a verdict of that
// and of what came back.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%d messages are with the content filter already: %w", p.settings.Connections, ctx.Err())
	}
	// What it might find and leave would be taken for the sender's, and removed.
	given := *m
	given.Header.RemoveIf(p.owned)
	recipients := make([]mail.Path, len(m.Envelope.Recipients))
	for i, r := range m.Envelope.Recipients {
		recipients[i] = r.Path
	}
	wait, err := p.host.Reinjected(ctx, recipients)
	if err != nil {
		return nil, fmt.Errorf("cannot wait for what the content filter brings back: %w", err)
	}
	defer wait.Close()
	statuses, err := p.handOver(ctx, &given, wait.Token())
	var u unscanned
	if errors.As(err, &u) {
		return sdk.Unscanned(string(u)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("content filter at %s: %w", p.settings.Address, err)
	}
	back, err := wait.Take()
	if err != nil {
		return nil, err
	}
	return p.verdict(ctx, m, statuses, back)
}

// owned reports whether only the filter may write a field.
func (p *Plugin) owned(f mail.Field) bool {
	return sdk.Manifest{Owns: p.settings.Owns}.OwnsField(f.Name)
}

// unscanned says why a message cannot be given to the filter as it is.
type unscanned string

func (u unscanned) Error() string { return string(u) }
