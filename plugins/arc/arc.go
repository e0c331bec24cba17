package arc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/arcchain"
	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/plugins/internal/setting"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Domain that seals: ours. Required.
	Domain string `toml:"domain"`
	// Selector of the key. Default: "arc".
	Selector string `toml:"selector"`
	// KeyDir has the private key, DOMAIN.SELECTOR.pem; relative to the gateway's data
	// directory. Default: "dkim".
	KeyDir string `toml:"key_dir"`
	// AuthservID is the name under which our results of authentication are in the header. Default:
	// the gateway's hostname.
	AuthservID string `toml:"authserv_id"`
	// ResultsFrom is the name of the plugin that authenticated the message. Default:
	// "mailauth".
	ResultsFrom string `toml:"results_from"`
	// Timeout is how long the DNS is waited for, for each key of a chain that nobody has validated
	// yet. Default: 5s.
	Timeout time.Duration `toml:"timeout"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Selector: "arc", KeyDir: "dkim", ResultsFrom: "mailauth", Timeout: 5 * time.Second}
}

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "arc",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayEditHeader,
		// Our own mail has our DKIM signature.
		Origins: []mail.Origin{mail.Incoming, mail.Redirected, mail.Fetched},
		Signs:   true,
		Network: true,
	}
}

// Plugin seals messages. It implements [sdk.Filter].
type Plugin struct {
	s         Settings
	key       *dkimkey.Key
	shown     shown
	ours      bool // the gateway itself removes results that claim to be ours
	sealer    arcchain.Sealer
	validator *arcchain.Validator
	resolver  dkimsig.Resolver
	now       func() time.Time
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// ResultsFrom is the name of the plugin that authenticates, as these settings have it.
func ResultsFrom(settings []byte) (string, error) {
	s := Defaults()
	err := sdk.Config{Settings: settings}.Decode(&s)
	return s.ResultsFrom, err
}

// Configure reads the key.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	if s.Domain == "" {
		return errors.New(`settings: domain is empty; name the domain that seals, as in domain = "example.org"`)
	}
	d, err := mail.ParseDomain(s.Domain)
	if err != nil {
		return fmt.Errorf("settings: domain: %w", err)
	}
	if err := dkimkey.CheckSelector(s.Selector); err != nil {
		return fmt.Errorf("settings: selector: %w", err)
	}
	if s.AuthservID == "" {
		s.AuthservID = c.Hostname
	}
	if s.Timeout < 100*time.Millisecond || s.Timeout > 5*time.Minute {
		return fmt.Errorf("settings: timeout is %s; it has to be from 100ms to 5m", s.Timeout)
	}
	if p.key, err = dkimkey.Load(setting.File(c.DataDir, s.KeyDir), d, s.Selector); err != nil {
		return err
	}
	if p.key.Short() {
		slog.Warn("rsa key is short", "file", p.key.Path, "bits", p.key.Bits, "advised", dkimkey.AdviseBits)
	}
	if p.key.Algorithm != dkimsig.RSA {
		slog.Warn("many receivers know no seals but those of rsa keys", "file", p.key.Path)
	}
	if p.resolver == nil { // else a test's
		p.resolver = resolve.New(c.DNSServers)
	}
	p.s, p.ours = s, authres.SameID(s.AuthservID, c.Hostname)
	p.validator, err = arcchain.New(arcchain.Options{Resolver: p.resolver, LookupTime: s.Timeout})
	return err
}

// Filter seals a message.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	results, err := p.results(m)
	if err != nil {
		return unsealed(err.Error()), nil
	}
	if there := p.shown.look(ctx, p.key, p.resolver, p.now); there == dkimkey.Missing || there == dkimkey.Different {
		return unsealed("the DNS does not have our key under " + p.key.Name()), nil
	}
	state, err := p.state(ctx, m)
	if errors.Is(err, errUnknown) {
		return unsealed(err.Error()), nil
	}
	if err != nil {
		return nil, err
	}
	set, err := p.sealer.Seal(ctx, m, p.key, state, results, p.now())
	if errors.Is(err, arcchain.ErrEnded) || errors.Is(err, arcchain.ErrFull) {
		return unsealed(err.Error()), nil
	}
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	v := sdk.Continue()
	for _, f := range set.Fields {
		v.AddHeader(f.Name, f.Value)
	}
	return v.Note("sealed", fmt.Sprintf("i=%d cv=%s d=%s s=%s", set.Instance, set.State, p.key.Domain, p.key.Selector)), nil
}

func unsealed(why string) *sdk.Verdict { return sdk.Continue().Note("unsealed", why) }

// maxResults is how many fields of ours are taken together.
const maxResults = 10

// results are what we found out about the message: all results in our name (RFC 8617 §4.1.1).
// They are believed only where nobody else can have written them.
func (p *Plugin) results(m *mail.Message) (authres.Header, error) {
	all := authres.Header{ID: p.s.AuthservID}
	if !p.ours && !p.authenticated(m) {
		return all, fmt.Errorf("the plugin %s has not seen the message", p.s.ResultsFrom)
	}
	found := 0
	for _, value := range m.Header.Values(authres.FieldName) {
		if !authres.SameID(authres.ServID(value), p.s.AuthservID) {
			continue
		}
		h, err := authres.Parse(value)
		if err != nil {
			return all, fmt.Errorf("the results of authentication cannot be read: %w", err)
		}
		all.Results = append(all.Results, h.Results...)
		if found++; found == maxResults {
			break
		}
	}
	if found == 0 {
		return all, fmt.Errorf("the header has no %s of %s", authres.FieldName, p.s.AuthservID)
	}
	return all, nil
}

// authenticated reports whether the plugin that authenticates has seen the message in this
// run: it removes what claims to be its own.
func (p *Plugin) authenticated(m *mail.Message) bool {
	for name := range m.Notes {
		if strings.HasPrefix(name, p.s.ResultsFrom+"/") {
			return true
		}
	}
	return false
}

var errUnknown = errors.New("the state of the chain is not known: the DNS does not answer")

// state is what the chain was when the message arrived. Where another plugin has found that
// out it counts: the message may have been changed since.
func (p *Plugin) state(ctx context.Context, m *mail.Message) (arcchain.CV, error) {
	switch note := arcchain.CV(m.Notes[p.s.ResultsFrom+"/arc"]); note {
	case arcchain.None, arcchain.Pass, arcchain.Fail:
		return note, nil
	case "temperror":
		return "", errUnknown
	}
	c, err := p.validator.Validate(ctx, m)
	if err != nil {
		return "", err
	}
	if c.Unknown {
		return "", errUnknown
	}
	return c.State, nil
}
