package mailauth

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/postern-mail/postern/plugins/internal/dkimverify"
)

// counting counts what is asked.
type counting struct {
	Resolver
	n atomic.Int64
}

func (c *counting) LookupTXT(ctx context.Context, name string) ([]string, error) {
	c.n.Add(1)
	return c.Resolver.LookupTXT(ctx, name)
}

func (c *counting) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	c.n.Add(1)
	return c.Resolver.LookupMX(ctx, name)
}

func (c *counting) LookupAddr(ctx context.Context, name string) ([]string, error) {
	c.n.Add(1)
	return c.Resolver.LookupAddr(ctx, name)
}

func (c *counting) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	c.n.Add(1)
	return c.Resolver.LookupNetIP(ctx, network, name)
}

func (c *counting) Exists(ctx context.Context, name string) (bool, error) {
	c.n.Add(1)
	return c.Resolver.Exists(ctx, name)
}

func mxHost(name string) net.MX { return net.MX{Host: name, Pref: 10} }

func newVerifier(p *Plugin, n int) (*dkimverify.Verifier, error) {
	return dkimverify.New(dkimverify.Options{Resolver: p.resolver, MaxSignatures: n, LookupTime: p.timeout, Now: p.now})
}

// silent is a DNS that says nothing until the time for that is up.
type silent struct{}

func (silent) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return nil, noAnswer(ctx, name)
}

func (silent) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return nil, noAnswer(ctx, name)
}

func (silent) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return nil, noAnswer(ctx, addr)
}

func (silent) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return nil, noAnswer(ctx, host)
}

func (silent) Exists(ctx context.Context, name string) (bool, error) {
	return false, noAnswer(ctx, name)
}

func noAnswer(ctx context.Context, name string) error {
	<-ctx.Done()
	return &net.DNSError{Err: "no answer", Name: name, IsTimeout: true}
}
