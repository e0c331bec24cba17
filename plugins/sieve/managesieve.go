package sieve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/plugins/sieve/managesieve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

var _ sdk.Service = (*Plugin)(nil)

// checkManageSieve checks what the settings say of it.
func (s *Settings) checkManageSieve() error {
	seen := make(map[string]bool)
	for _, a := range s.ManageSieve {
		_, port, err := net.SplitHostPort(a) // of a unix socket the client's address is not known, which log-ins need
		if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || seen[a] {
			return fmt.Errorf(`settings: managesieve: %q is not an address like "127.0.0.1:4190", or is there twice`, a)
		}
		seen[a] = true
	}
	if s.ManageSieveConnections < 1 || s.ManageSievePerClient < 1 {
		return errors.New("settings: managesieve_connections and managesieve_per_client are at least 1")
	}
	return nil
}

// Listeners are where ManageSieve is served. It implements [sdk.Service].
func (p *Plugin) Listeners(context.Context) ([]string, error) { return p.settings.ManageSieve, nil }

// Serve serves ManageSieve. It implements [sdk.Service].
func (p *Plugin) Serve(ctx context.Context, listeners []net.Listener) error {
	if len(listeners) == 0 {
		<-ctx.Done()
		return nil
	}
	s, err := managesieve.New(p.manageOptions())
	if err != nil {
		return err
	}
	return s.Serve(ctx, listeners)
}

// certificate is the gateway's, once it has been had.
type certificate struct {
	get func(context.Context) (*tls.Config, error)
	mu  sync.Mutex
	got *tls.Config
}

// config waits while the gateway starts: there is none before.
func (c *certificate) config(ctx context.Context) (*tls.Config, error) {
	const tries, pause = 20, 100 * time.Millisecond
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; c.got == nil; n++ {
		var err error
		if c.got, err = c.get(ctx); err == nil {
			break
		}
		c.got = nil
		if n == tries {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
	return c.got, nil
}

func (p *Plugin) manageOptions() managesieve.Options {
	c := &certificate{get: p.host.TLSConfig}
	return managesieve.Options{
		Scripts: managed{p.scripts}, Logins: logins{p.host}, TLS: c.config,
		Implementation: "Postern ManageSieve " + Manifest().Version,
		Extensions:     extensions(p.scripts.Engine), Notify: []string{"mailto"}, Redirects: p.settings.Redirects,
		MaxScript: p.scripts.Engine.Limits.ScriptSize, MaxConnections: p.settings.ManageSieveConnections, MaxPerClient: p.settings.ManageSievePerClient,
		Log: slog.Default(),
	}
}

// extensions are what scripts may require.
func extensions(o engine.Options) []string {
	if o.Extensions != nil {
		return o.Extensions
	}
	return engine.Extensions()
}

// logins are the gateway's.
type logins struct{ host *sdk.Host }

// Mechanisms are those of the gateway.
func (l logins) Mechanisms(ctx context.Context) ([]string, error) { return l.host.Mechanisms(ctx) }

// Login begins an exchange with the gateway.
func (l logins) Login(ctx context.Context, mechanism string, c mail.Client) (managesieve.Exchange, error) {
	x, err := l.host.Login(ctx, mechanism, c)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// Enabled asks the gateway.
func (l logins) Enabled(ctx context.Context, account mail.Path) (bool, error) {
	a, err := l.host.Lookup(ctx, account)
	return err == nil && a.Info != nil && a.Info.Enabled, err
}

// managed is a Store as ManageSieve wants it.
type managed struct{ *Store }

var _ managesieve.Scripts = managed{}

// refusal has the response code for an error of the Store (RFC 5804 §1.3). What has none passes.
func refusal(err error) error {
	for _, r := range []struct {
		err  error
		code string
	}{
		{ErrNoScript, managesieve.CodeNonexistent}, {ErrExists, managesieve.CodeAlreadyExists}, {ErrActive, managesieve.CodeActive}, {ErrName, ""},
		{ErrTooMany, managesieve.CodeMaxScripts}, {ErrTooLarge, managesieve.CodeMaxSize}, {ErrNoSpace, managesieve.CodeQuota},
	} {
		if errors.Is(err, r.err) {
			return &managesieve.Refusal{Code: r.code, Text: err.Error()}
		}
	}
	return err
}

// List implements [managesieve.Scripts], as do the other methods.
func (m managed) List(ctx context.Context, account mail.Path) ([]managesieve.Script, error) {
	list, err := m.Store.List(ctx, account)
	out := make([]managesieve.Script, len(list))
	for i, s := range list {
		out[i] = managesieve.Script{Name: s.Name, Active: s.Active}
	}
	return out, err
}

func (m managed) Get(ctx context.Context, account mail.Path, name string) ([]byte, error) {
	_, text, err := m.Store.Get(ctx, account, name)
	return text, refusal(err)
}

func (m managed) HaveSpace(ctx context.Context, account mail.Path, name string, size int64) error {
	return refusal(m.Store.HaveSpace(ctx, account, name, size))
}

func (m managed) Put(ctx context.Context, account mail.Path, name string, text []byte) (warnings string, err error) {
	err = m.Store.Put(ctx, account, name, text)
	var fault *engine.Error
	if err == nil || errors.As(err, &fault) {
		return m.Check(ctx, account, text)
	}
	return "", refusal(err)
}

func (m managed) Check(_ context.Context, _ mail.Path, text []byte) (warnings string, err error) {
	if _, faults := engine.Check(text, m.Engine); len(faults) > 0 {
		all := make([]string, len(faults))
		for i, f := range faults {
			all[i] = f.Error()
		}
		return "", &managesieve.Refusal{Text: strings.Join(all, "\n")}
	}
	return warningsOf(text, m.Engine.Limits), nil
}

func (m managed) Activate(ctx context.Context, account mail.Path, name string) error {
	return refusal(m.Store.Activate(ctx, account, name))
}

func (m managed) Delete(ctx context.Context, account mail.Path, name string) error {
	return refusal(m.Store.Delete(ctx, account, name))
}

func (m managed) Rename(ctx context.Context, account mail.Path, name, to string) error {
	return refusal(m.Store.Rename(ctx, account, name, to))
}
