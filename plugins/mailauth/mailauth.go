package mailauth

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimverify"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "mailauth",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayReject | sdk.MayQuarantine | sdk.MayEditHeader,
		// What our own users submit is theirs to vouch for.
		Origins: []mail.Origin{mail.Incoming, mail.Fetched},
		Network: true,
		Host:    sdk.MaySubmit,
		Owns:    []string{"Received-SPF"}, // which does not say whose it is
	}
}

// Plugin authenticates messages. It implements [sdk.Filter], and [sdk.Service] for aggregate
// reports.
type Plugin struct {
	id       string // authserv-id
	hostname string
	policy   policySettings
	timeout  time.Duration
	resolver Resolver
	dkim     *dkimverify.Verifier
	now      func() time.Time
	reports  *reports
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
	_ sdk.Service    = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// Configure checks the settings.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	err := c.Decode(&s)
	if err != nil {
		return err
	}
	if p.policy, err = s.check(); err != nil {
		return err
	}
	if p.reports, err = newReports(s.Reports, c); err != nil {
		return err
	}
	p.hostname, p.timeout = c.Hostname, s.Timeout
	if p.id = s.AuthservID; p.id == "" {
		p.id = c.Hostname
	}
	if _, err := mail.ParseDomain(p.id); err != nil {
		return fmt.Errorf("settings: authserv_id: %w; use a host name", err)
	}
	if p.resolver == nil { // else a test's
		p.resolver = resolve.NewCaching(c.DNSServers)
	}
	p.dkim, err = dkimverify.New(dkimverify.Options{Resolver: p.resolver, MaxSignatures: s.MaxSignatures, LookupTime: s.Timeout, Now: p.now})
	return err
}

// Filter finds out what there is to know, puts it into the header, and applies the policy of the
// author's domain.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	f, err := p.check(ctx, m)
	if err != nil {
		return nil, err
	}
	d := p.decide(m, f)
	p.observe(f, d)
	v := d.verdict()
	v.Edits = p.removeForged(m.Header)
	v.AddHeader(fieldName, p.field(f, d))
	f.note(v, d)
	return v, nil
}
