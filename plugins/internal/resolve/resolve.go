// Package resolve asks the DNS for plugins.
//
// A Resolver asks the servers that the gateway names ([sdk.Config].DNSServers), or the
// system's. Names are always complete: no search list is ever tried. Errors are
// *net.DNSError, not wrapped, because libraries tell "no such name" from "ask again later"
// by that type. It is safe for concurrent use and keeps nothing.
package resolve

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// Resolver is the part of a resolver that plugins use. [net.Resolver] has the same methods.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// dialTime limits the connection to a server; the answer has the caller's deadline.
const dialTime = 5 * time.Second

// DNS is a Resolver that asks name servers.
type DNS struct {
	r       net.Resolver
	servers []string // none: the system's
	system  func() []string
}

// New returns a resolver that asks servers ("host:port") in turn, or the system's if there
// are none.
func New(servers []string) *DNS {
	d := &DNS{r: net.Resolver{PreferGo: true}, servers: servers, system: readSystem()}
	if len(servers) > 0 {
		var turn atomic.Uint64
		dialer := net.Dialer{Timeout: dialTime}
		d.r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			// The library dials once for each try: the next one goes to the next server.
			n := turn.Add(1) - 1
			return dialer.DialContext(ctx, network, servers[n%uint64(len(servers))])
		}
	}
	return d
}

// complete makes a name that no search list is applied to.
func complete(name string) string {
	if strings.HasSuffix(name, ".") {
		return name
	}
	return name + "."
}

// LookupTXT implements Resolver.
func (d *DNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return d.r.LookupTXT(ctx, complete(name))
}

// LookupMX implements Resolver.
func (d *DNS) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return d.r.LookupMX(ctx, complete(name))
}
