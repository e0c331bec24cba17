package mailauth

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/postern-mail/postern/plugins/internal/spf"
)

// Resolver is what the plugin asks the DNS through.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	Exists(ctx context.Context, name string) (bool, error)
}

// Look-ups of one message, by method. DKIM has one for each signature besides.
const (
	spfLookups   = 50
	arcLookups   = 50
	dmarcLookups = 60
)

// limited is a resolver that refuses to ask more often than it may.
type limited struct {
	Resolver
	left atomic.Int64
}

func limit(r Resolver, n int64) *limited {
	l := &limited{Resolver: r}
	l.left.Store(n)
	return l
}

func (l *limited) take() error {
	if l.left.Add(-1) < 0 {
		return spf.ErrTooMuch
	}
	return nil
}

func (l *limited) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	return l.Resolver.LookupTXT(ctx, name)
}

func (l *limited) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	return l.Resolver.LookupMX(ctx, name)
}

func (l *limited) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	return l.Resolver.LookupAddr(ctx, addr)
}

func (l *limited) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	return l.Resolver.LookupNetIP(ctx, network, host)
}

func (l *limited) Exists(ctx context.Context, name string) (bool, error) {
	if err := l.take(); err != nil {
		return false, err
	}
	return l.Resolver.Exists(ctx, name)
}
