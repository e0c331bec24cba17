package resolve

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// tryTime limits one try of a server.
const tryTime = 3 * time.Second

// Exists reports whether a name exists: the servers do not say NXDOMAIN (RFC 8020). The
// library of the other methods does not tell that from "no record of this type". An error is a
// *net.DNSError and temporary.
func (d *DNS) Exists(ctx context.Context, name string) (bool, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	q.SetEdns0(1232, false)
	var last error
	for _, server := range d.systemServers() {
		tryCtx, cancel := context.WithTimeout(ctx, tryTime)
		client := dns.Client{Timeout: tryTime}
		r, _, err := client.ExchangeContext(tryCtx, q, server)
		cancel()
		switch {
		case err != nil:
			last = err
		case r.Rcode == dns.RcodeNameError:
			return false, nil
		case r.Rcode == dns.RcodeSuccess: // truncated or not
			return true, nil
		}
	}
	text := "server misbehaving"
	if last != nil {
		text = last.Error()
	}
	return false, &net.DNSError{Err: text, Name: name, IsTemporary: true}
}

// systemServers are the servers to ask, the system's where none were named.
func (d *DNS) systemServers() []string {
	if len(d.servers) > 0 {
		return d.servers
	}
	return d.system()
}

// readSystem reads the system's servers once.
func readSystem() func() []string {
	return sync.OnceValue(func() []string {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil || len(conf.Servers) == 0 {
			return []string{"127.0.0.1:53"} // as the library does
		}
		var out []string
		for _, s := range conf.Servers {
			out = append(out, net.JoinHostPort(s, conf.Port))
		}
		return out
	})
}
