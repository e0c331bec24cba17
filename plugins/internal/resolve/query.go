package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The library of the other methods looks into /etc/hosts first, where this host's own names are,
// and does not tell "no such name" from "no record of this type". What is here asks the DNS
// and nothing else.

// tryTime limits one try of a server, rounds how often each is tried.
const (
	tryTime = 3 * time.Second
	rounds  = 2
)

// query asks for records. An error is a *net.DNSError: IsNotFound for a name that does not
// exist, else temporary. A name without such records has none.
func (d *DNS) query(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	last := "server misbehaving"
	servers := d.namedServers()
	for range rounds {
		for _, server := range servers {
			r, err := ask(ctx, q, server)
			if ctx.Err() != nil {
				return nil, &net.DNSError{Err: ctx.Err().Error(), Name: name, IsTemporary: true, IsTimeout: true}
			}
			switch {
			case err != nil:
				last = err.Error()
			case r.Rcode == dns.RcodeNameError:
				return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
			case r.Rcode == dns.RcodeSuccess:
				return r.Answer, nil
			}
		}
	}
	return nil, &net.DNSError{Err: last, Name: name, IsTemporary: true}
}

// ask asks one server, over TCP where the answer does not fit.
func ask(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	client := dns.Client{Timeout: tryTime, UDPSize: 1232}
	r, _, err := client.ExchangeContext(ctx, q, server)
	if _, network := errors.AsType[net.Error](err); err == nil && r.Truncated || err != nil && !network { // or it was cut off
		client.Net = "tcp"
		r, _, err = client.ExchangeContext(ctx, q, server)
	}
	if err == nil && (len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, q.Question[0].Name) || r.Question[0].Qtype != q.Question[0].Qtype) {
		return nil, &net.DNSError{Err: "the answer is to another question", Server: server}
	}
	return r, err
}

// Exists reports whether a name exists: the servers do not say NXDOMAIN (RFC 8020). An error
// is a *net.DNSError and temporary.
func (d *DNS) Exists(ctx context.Context, name string) (bool, error) {
	_, err := d.query(ctx, name, dns.TypeA)
	if e, ok := err.(*net.DNSError); ok && e.IsNotFound {
		return false, nil
	}
	return err == nil, err
}

// LookupAddr implements Resolver.
func (d *DNS) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, &net.DNSError{Err: "not an address", Name: addr, IsNotFound: true}
	}
	records, err := d.query(ctx, name, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rr := range records {
		if ptr, ok := rr.(*dns.PTR); ok {
			out = append(out, ptr.Ptr)
		}
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
	}
	return out, nil
}

// LookupNetIP implements Resolver; network is "ip", "ip4" or "ip6".
func (d *DNS) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	var out []netip.Addr
	var failed error
	for _, family := range []struct {
		network string
		qtype   uint16
	}{{"ip4", dns.TypeA}, {"ip6", dns.TypeAAAA}} {
		if network != "ip" && network != family.network {
			continue
		}
		records, err := d.query(ctx, host, family.qtype)
		if e, ok := err.(*net.DNSError); ok && e.IsNotFound {
			break // of whatever type
		} else if err != nil {
			failed = err
		}
		for _, rr := range records {
			switch rr := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
					out = append(out, a)
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
					out = append(out, a)
				}
			}
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	if failed == nil {
		failed = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return nil, failed
}

// LookupIPAddr implements Resolver.
func (d *DNS) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	addrs, err := d.LookupNetIP(ctx, "ip", host)
	var out []net.IPAddr
	for _, a := range addrs {
		out = append(out, net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()})
	}
	return out, err
}

// namedServers are the servers to ask, the system's where none were named.
func (d *DNS) namedServers() []string {
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
