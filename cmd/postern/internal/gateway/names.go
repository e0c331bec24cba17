package gateway

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/postern-mail/postern/core/clientname"
	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/resolver"
	"github.com/postern-mail/postern/sdk/mail"
)

// currentNames are the names of clients as sessions see them: a reload, which may come with other
// name servers, makes others.
type currentNames struct {
	atomic.Pointer[clientname.Names]
}

// newNames is nil where names are not wanted.
func newNames(c *config.Config, r resolver.Resolver) *clientname.Names {
	if !c.DNS.ClientNames {
		return nil
	}
	return clientname.New(clientname.Options{Resolver: r})
}

// begin has the name of a client looked up while it introduces itself.
func (n *currentNames) begin(addr netip.Addr) { n.Load().Begin(addr) }

// fill waits for the name of a client that somebody is about to be told of.
func (n *currentNames) fill(ctx context.Context, c *mail.Client) {
	if c.PTR != "" {
		return
	}
	name, verified := n.Load().Name(ctx, c.Addr)
	if c.PTR = name; verified {
		c.Host = name
	}
}
