package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/postern-mail/postern/core/config"
)

// socketKeys name the listeners of c. Port 0 may be listened on more than once.
func socketKeys(c *config.Config) []string {
	keys := make([]string, len(c.Listeners))
	for i, l := range c.Listeners {
		keys[i] = l.Address
		for slices.Contains(keys[:i], keys[i]) {
			keys[i] += " again"
		}
	}
	return keys
}

// openSockets opens what c listens on and is not open yet.
func (g *Gateway) openSockets(c *config.Config) (map[string]*socket, error) {
	opened := make(map[string]*socket)
	for i, key := range socketKeys(c) {
		if g.sockets[key] != nil {
			continue
		}
		network, address := c.Listeners[i].Network()
		s, err := openSocket(network, address, g.log)
		if err != nil {
			closeSockets(opened)
			if network == "tcp" && errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("%w: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE", err)
			} else if network == "tcp" && errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%w: another program has this port; ss -ltnp shows which", err)
			}
			return nil, fmt.Errorf("cannot listen on %s: %w", c.Listeners[i].Address, err)
		}
		opened[key] = s
	}
	return opened, nil
}

func closeSockets(sockets map[string]*socket) {
	for _, s := range sockets {
		s.Close()
	}
}

// ownAddresses is what we listen on, so that no mail is sent there.
func (g *Gateway) ownAddresses(c *config.Config, opened map[string]*socket) []netip.AddrPort {
	var own []netip.AddrPort
	for _, key := range socketKeys(c) {
		s := g.sockets[key]
		if s == nil {
			s = opened[key]
		}
		if a, ok := s.Addr().(*net.TCPAddr); ok {
			own = append(own, a.AddrPort())
		}
	}
	return own
}
