package gateway

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/pluginhost/hostservice"
	"github.com/postern-mail/postern/core/reinject"
	"github.com/postern-mail/postern/core/smtpd"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// returning is what the sessions of a reinjection listener ask, and where their messages go.
// Who may connect is the listener's matter. Sender and recipients are of no interest before
// the message has shown its token: they are those of a message that was checked already, or
// of one that is refused.
type returning struct{ desk *reinject.Desk }

// Connect lets the clients of the listener in.
func (returning) Connect(context.Context, *mail.Client) mail.Status { return mail.Status{} }

// Mail has no objection.
func (returning) Mail(context.Context, *mail.Client, mail.Path, int64) mail.Status {
	return mail.Status{}
}

// Recipient has no objection.
func (returning) Recipient(context.Context, *mail.Envelope, mail.Path) mail.Status {
	return mail.Status{}
}

// Receive gives the message to who waits for it.
func (r returning) Receive(ctx context.Context, e *mail.Envelope, m io.Reader) (smtpd.Receipt, error) {
	if err := r.desk.Receive(ctx, e, m); err != nil {
		return smtpd.Receipt{}, err
	}
	return smtpd.Receipt{Reply: mail.OK(250, 0, 0, "Ok: back at the gateway")}, nil
}

// reinjecting makes the options of a listener those of one that only takes back. A filter is
// one client with all the mail, and adds to what it brings.
func reinjecting(o *smtpd.Options, desk *reinject.Desk, c *config.Config) {
	r := returning{desk}
	o.Policy, o.Intake, o.Authenticator = r, r, nil
	o.Limits.MessageSize = int64(c.Limits.MessageSize) + int64(c.Limits.HeaderSize)
	o.Limits.Recipients = 20_000 // groups have been expanded by now
	o.Limits.Reserved, o.Limits.ReservedFor = 0, nil
	o.Limits.Networks = []smtpd.NetworkLimit{{Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}}
}

func reinjectLimits(c *config.Config) reinject.Limits {
	return reinject.Limits{Header: min(int(c.Limits.HeaderSize), proto.MaxHeader), Body: int64(c.Limits.MessageSize)}
}

// waits are the waits as plugins ask for them.
type waits struct{ desk *reinject.Desk }

// waits is nil where nothing can come back: in a trial.
func (g *Gateway) waits() hostservice.Reinjections {
	if g.desk == nil {
		return nil
	}
	return waits{g.desk}
}

// Await begins one.
func (w waits) Await(_ string, recipients []mail.Path) (hostservice.Awaited, error) {
	return w.desk.Await(recipients), nil
}

// takesReinjected are the plugins that wait for what a filter brings back.
func takesReinjected(c *config.Config, host *pluginhost.Host) []string {
	var names []string
	for _, p := range c.Plugins {
		if f, ok := host.Filter(p.Name); ok && f.Manifest().Host&sdk.MayTakeReinjected != 0 {
			names = append(names, p.Name)
		}
	}
	return names
}

// checkReinjection compares listeners and plugins: neither is of use without the other.
func checkReinjection(c *config.Config, host *pluginhost.Host) error {
	listens := slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return smtpd.Role(l.Role) == smtpd.Reinjection })
	names := takesReinjected(c, host)
	switch {
	case len(names) > 0 && !listens:
		return errors.New("plugin " + names[0] + ` waits for what a content filter brings back, and no listener takes it: add a [[listener]] with role = "reinjection", and have the filter send there`)
	case len(names) == 0 && listens:
		return errors.New(`a listener has the role "reinjection", and no plugin waits for what comes back there: add the plugin smtpfilter, or remove the listener`)
	}
	return nil
}
