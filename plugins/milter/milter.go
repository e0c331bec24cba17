// Package milter is the plugin that runs an existing milter (the filter protocol of Sendmail
// and Postfix) as a filter of Postern. See README.md.
//
// Each message is replayed to the milter as if its client were there now, over a connection
// of its own, and what the milter answers becomes one verdict. A milter that cannot be
// reached, that is too slow, or that breaks the protocol never is an answer: the message is
// unscanned. Nothing is kept between messages; calls run concurrently.
package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/milterwire"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Address is where the milter listens: "inet:host:port", "unix:/path", "host:port" or
	// "/path"; "inet:port@host", as milters write it, too. Required.
	Address string `toml:"address"`
	// Timeouts are how long to wait for the milter.
	Timeouts Timeouts `toml:"timeouts"`
	// Macros gives macros that the milter is sent other values, or adds some:
	// {daemon_name = "ORIGINATING"}.
	Macros map[string]string `toml:"macros"`
	// Owns are names of header fields that only the milter may write; with a * at the end, all
	// that begin so.
	Owns []string `toml:"owns"`
	// SkipHeaders are names of header fields that the milter is not shown.
	SkipHeaders []string `toml:"skip_headers"`
}

// Timeouts are how long to wait for the milter in each step. The plugin's own timeout, which
// is for all steps together, is a limit for each of them.
type Timeouts struct {
	Connect time.Duration `toml:"connect"` // to be connected
	Command time.Duration `toml:"command"` // for the answer to a command or header field
	Body    time.Duration `toml:"body"`    // for the answer to a piece of the body
	End     time.Duration `toml:"end"`     // for each packet of the answer to the whole message
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Timeouts: Timeouts{Connect: 10 * time.Second, Command: 30 * time.Second, Body: 30 * time.Second, End: 5 * time.Minute}}
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "milter",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayReject | sdk.MayDiscard | sdk.MayQuarantine | sdk.MayEditHeader | sdk.MayEditRcpt | sdk.MayEditReverse | sdk.MayReplaceBody,
		// As Postfix does: what somebody brings, not what the gateway makes of it.
		Origins: []mail.Origin{mail.Incoming, mail.Submitted, mail.Fetched},
		Network: true,
	}
}

// Plugin asks a milter. It implements [sdk.Filter].
type Plugin struct {
	network, address string
	timeouts         Timeouts
	hostname         string
	macros           map[string]string // by name in its canonical form
	skip             map[string]bool   // by name in lower case
	own              sdk.Manifest      // which says what the milter owns
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
	_ sdk.Owner      = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{} }

// Configure checks the settings. It does not connect: a milter may start after the gateway.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	var faults []error
	var err error
	if p.network, p.address, err = parseAddress(s.Address); err != nil {
		faults = append(faults, fmt.Errorf("settings: address: %w", err))
	}
	for name, d := range map[string]time.Duration{"connect": s.Timeouts.Connect, "command": s.Timeouts.Command, "body": s.Timeouts.Body, "end": s.Timeouts.End} {
		if d <= 0 || d > time.Hour {
			faults = append(faults, fmt.Errorf("settings: timeouts: %s: %s is not more than 0 and at most 1h", name, d))
		}
	}
	p.macros = make(map[string]string, len(s.Macros))
	for name, value := range s.Macros {
		key, err := macroName(name)
		if err == nil && (len(value) > 1024 || strings.ContainsAny(value, "\x00\r\n")) {
			err = errors.New("the value is not a short line of text")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("settings: macros: %q: %w", name, err))
		}
		p.macros[key] = value
	}
	p.skip = make(map[string]bool, len(s.SkipHeaders))
	for _, name := range s.SkipHeaders {
		if _, err := mail.FormatField(name, ""); err != nil {
			faults = append(faults, fmt.Errorf("settings: skip_headers: %w", err))
		}
		p.skip[strings.ToLower(name)] = true
	}
	p.timeouts, p.hostname, p.own.Owns = s.Timeouts, c.Hostname, s.Owns
	return errors.Join(faults...)
}

// Owns are the fields that the settings name.
func (p *Plugin) Owns() []string { return p.own.Owns }

// Filter replays the message to the milter.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	d := &dialogue{p: p, m: m, ctx: ctx, v: sdk.Continue()}
	v, err := d.run()
	if err == nil {
		return v, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("milter at %s: no end of the %s: %w", p.address, d.at, context.Cause(ctx))
	}
	// What is wrong is for the log; the reason may end up in a header field.
	slog.Warn("milter failed", "id", m.Envelope.ID, "address", p.network+":"+p.address, "step", d.at, "error", err.Error())
	return sdk.Unscanned(reason(err, d.at)), nil
}

// reason says in public words why there is no answer.
func reason(err error, at string) string {
	var perr milterwire.ProtocolError
	var nerr net.Error
	switch {
	case errors.Is(err, errField):
		return "header field too large"
	case errors.Is(err, errDial):
		return "milter not reachable"
	case errors.As(err, &nerr) && nerr.Timeout():
		return "milter timed out at " + at
	case errors.As(err, &perr), errors.Is(err, errAnswer):
		return "milter broke the protocol at " + at
	}
	return "milter failed at " + at
}
