package dnsbl

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "dnsbl",
		Version: "1.0",
		May:     sdk.MayReject,
		// Whoever logged in or is in a relay network submits.
		Origins: []mail.Origin{mail.Incoming},
		Stages:  sdk.AtConnect | sdk.AtMail,
		Network: true,
		Host:    sdk.MayCount,
	}
}

// Plugin asks the lists. It implements [sdk.Gate].
type Plugin struct {
	s        Settings
	lists    []*list
	networks peer.Networks
	later    bool // there is something to do at MAIL
	dns      *asker
	resolver peer.Resolver
	host     *sdk.Host
	now      func() time.Time
}

var (
	_ sdk.Gate       = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// Configure checks the settings. No list is asked before there is a client.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	p.s = Defaults()
	err := c.Decode(&p.s)
	if err != nil {
		return err
	}
	if p.lists, p.networks, err = p.s.check(); err != nil {
		return err
	}
	p.later = p.s.RefuseAt == "mail" || slices.ContainsFunc(p.lists, func(l *list) bool {
		return slices.ContainsFunc(l.of, func(of string) bool { return of != ofClient })
	})
	p.host = c.Host
	p.resolver = resolve.New(c.DNSServers)
	p.dns = newAsker(c.DNSServers, p.s.Timeout, p.now)
	return nil
}

// Gate asks the lists about a client, and at MAIL about all that it says it is.
func (p *Plugin) Gate(ctx context.Context, a *sdk.Attempt) (*sdk.Verdict, error) {
	if p.exempt(&a.Envelope.Client) || a.Stage == sdk.AtMail && !p.later {
		return sdk.Continue(), nil
	}
	r := p.collect(ctx, p.subjects(ctx, a))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	v := sdk.Continue()
	if a.Stage == sdk.AtMail || p.s.RefuseAt == "connect" {
		switch {
		case p.s.Reject.reached(r.score) && len(r.hits) > 0:
			p.count("rejected")
			code := 550
			if a.Stage == sdk.AtConnect { // RFC 5321 §3.1
				code = 554
			}
			v = sdk.Reject(mail.Permanent(code, 7, 1, p.reply(ctx, r)))
		case p.s.Tempfail.reached(r.score) && len(r.hits) > 0:
			p.count("deferred")
			code := 451
			if a.Stage == sdk.AtConnect {
				code = 421
			}
			v = sdk.Tempfail(mail.Temporary(code, 7, 1, p.reply(ctx, r)))
		}
	}
	p.note(v, r)
	return v, nil
}

// unlisted are networks that no list knows anything about: shared address space (RFC 6598),
// and this host and network.
var unlisted = peer.Networks{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("0.0.0.0/8")}

// exempt reports whether no list is asked about a client.
func (p *Plugin) exempt(c *mail.Client) bool {
	addr := peer.Addr(c)
	if c.Class != mail.Stranger || c.User != "" || !addr.IsGlobalUnicast() || addr.IsPrivate() { // nor loopback, link-local
		return true
	}
	return unlisted.Contains(addr) || p.networks.Contains(addr)
}

// count adds to a counter, beside the session: it may come late or not at all.
func (p *Plugin) count(name string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), p.s.Timeout)
		defer cancel()
		_ = p.host.Count(ctx, name, 1)
	}()
}
