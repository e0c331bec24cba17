package greylist

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "greylist",
		Version: "1.0",
		May:     sdk.MayReject,
		// Whoever logged in or is in a relay network submits.
		Origins: []mail.Origin{mail.Incoming},
		Stages:  sdk.AtRcpt,
		Network: true, // for reverse_name
		Host:    sdk.MayKeepState | sdk.MayCount,
	}
}

// Plugin makes new senders wait. It implements [sdk.Gate].
type Plugin struct {
	s        Settings
	networks peer.Networks
	host     *sdk.Host
	kept     *kept
	resolver peer.Resolver
	now      func() time.Time
	silent   atomic.Int64 // no word of a failing state until then, Unix time
}

var (
	_ sdk.Gate       = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// Configure checks the settings and reads who passed before.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	p.s = Defaults()
	if err := c.Decode(&p.s); err != nil {
		return err
	}
	var err error
	if p.networks, err = p.s.check(); err != nil {
		return err
	}
	p.host = c.Host
	if p.resolver == nil { // else a test's
		p.resolver = resolve.New(c.DNSServers)
	}
	dir := ""
	if c.DataDir != "" {
		dir = filepath.Join(c.DataDir, "greylist")
	}
	if p.kept, err = openKept(dir, p.now); err != nil {
		slog.Warn("who passed before cannot be read; new senders wait", "error", err)
	}
	return nil
}

const (
	// stateTime limits all that is asked about one recipient.
	stateTime = 2 * time.Second
	// nameTime limits the search for a client's name.
	nameTime = 3 * time.Second
	// quiet is how long nothing more is said about a state that fails.
	quiet = time.Minute
)

// Gate lets a recipient pass, or asks the sender to come back.
func (p *Plugin) Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error) {
	e := &a.Envelope
	if why := p.exempt(e); why != "" {
		return sdk.Continue().Note("result", why), nil
	}
	stateCtx, cancel := context.WithTimeout(ctx, stateTime)
	defer cancel()
	w, err := p.judge(stateCtx, ctx, e, a.Recipient)
	switch {
	case ctx.Err() != nil: // nobody waits for the answer
		return nil, ctx.Err()
	case err != nil:
		if now := p.now().Unix(); p.silent.Swap(now+int64(quiet/time.Second)) <= now {
			slog.Warn("nothing can be remembered, mail passes", "error", err)
		}
		p.count("unavailable")
		return sdk.Continue().Note("result", "passed: nothing can be remembered"), nil
	case w.left > 0:
		p.count("deferred")
		left := int64((w.left + time.Second - 1) / time.Second)
		return sdk.Tempfail(mail.Temporary(451, 7, 1, fmt.Sprintf("Greylisted, try again in %d seconds", left))).Note("result", "deferred"), nil
	}
	v := sdk.Continue().Note("result", w.why)
	if w.waited > 0 {
		p.count("passed")
		v.Note("waited", w.waited.Truncate(time.Second).String())
	}
	return v, nil
}

// exempt says why somebody never waits; "" if he may have to.
func (p *Plugin) exempt(e *mail.Envelope) string {
	addr := peer.Addr(&e.Client)
	switch {
	case e.Client.Class != mail.Stranger || e.Client.User != "":
		return "passed: known client"
	case !addr.IsValid():
		return "passed: no client"
	case e.ReversePath.IsZero():
		// A gate has no say at DATA. At RCPT it would break the checks of others whether an
		// address of ours exists, and a bounce is sent to one who wrote before.
		return "passed: null reverse-path"
	}
	if p.networks.Contains(addr) {
		return "passed: network"
	}
	return ""
}

// named reports whether the client has a name in the domain of the reverse-path that leads
// back to it (RFC 8601 §3).
func (p *Plugin) named(ctx context.Context, e *mail.Envelope) bool {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	_, err := peer.Name(ctx, p.resolver, &e.Client, func(name string) bool {
		d, err := mail.ParseDomain(name)
		return err == nil && d.Under(e.ReversePath.Domain)
	})
	return err == nil
}

// count adds to a counter, beside the session: it may come late or not at all.
func (p *Plugin) count(name string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), stateTime)
		defer cancel()
		_ = p.host.Count(ctx, name, 1)
	}()
}
