package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/core/resolver"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

const (
	maxHosts   = 10 // MX hosts whose addresses are looked up in one attempt
	perHost    = 3  // addresses of one MX host, where there are others
	mxPort     = 25
	unixPrefix = "unix:"
)

// endpoint is what can be dialled: an address and port, or the path of a socket.
type endpoint struct {
	addr netip.AddrPort
	path string
}

// target is one endpoint and everything that decides how to talk to it. It is comparable:
// connections of equal targets may be shared.
type target struct {
	endpoint
	host     string // name for TLS and for people; the address itself where there is none
	lmtp     bool
	implicit bool   // TLS from the first octet
	strict   bool   // TLS with a verified certificate, or no mail
	requires bool   // strict because of REQUIRETLS: what is missing is permanent
	login    string // name of the credentials
	rule     int    // index of the destination rule, -1: none
	rank     int    // MX preference; targets of one rank share the load
}

func (t *target) network() string {
	if t.path != "" {
		return "unix"
	}
	return "tcp"
}

func (t *target) address() string {
	if t.path != "" {
		return t.path
	}
	return t.addr.String()
}

// String names the target for people: "mx.example.org [192.0.2.1]:25".
func (t *target) String() string {
	if t.path != "" {
		return t.path
	}
	if t.host == t.addr.Addr().String() {
		return t.addr.String()
	}
	return fmt.Sprintf("%s [%s]:%d", t.host, t.addr.Addr(), t.addr.Port())
}

// targets finds where a hop leads. The error is a mail.Status.
func (c *Client) targets(ctx context.Context, hop route.Hop, requireTLS bool) ([]target, error) {
	var list []target
	var err error
	switch {
	case hop.Scheme == route.SchemeMX:
		list, err = c.mxTargets(ctx, hop.Address)
	case hop.Scheme == route.SchemeLMTP && strings.HasPrefix(hop.Address, unixPrefix):
		path := strings.TrimPrefix(hop.Address, unixPrefix)
		return []target{{endpoint: endpoint{path: path}, host: path, lmtp: true, rule: -1}}, nil
	case hop.Scheme == route.SchemeSMTP || hop.Scheme == route.SchemeLMTP:
		list, err = c.hostTargets(ctx, hop.Address)
	default:
		err = mail.Temporary(451, 3, 5, "This route is not for SMTP")
	}
	for i := range list {
		t := &list[i]
		t.lmtp = hop.Scheme == route.SchemeLMTP
		t.implicit, t.login, t.requires = hop.ImplicitTLS, hop.Credentials, requireTLS
		t.strict = requireTLS || t.login != "" || t.rule >= 0 && c.rules[t.rule].TLS == Required
	}
	return list, err
}

// hostTargets finds the addresses of a next hop that the configuration names, "host:port".
// What is wrong with it is never a reason to bounce.
func (c *Client) hostTargets(ctx context.Context, hostport string) ([]target, error) {
	host, portText, err := net.SplitHostPort(hostport)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err != nil || perr != nil {
		return nil, mail.Temporary(451, 3, 5, "Next hop is not host:port")
	}
	addrs, err := c.lookup(ctx, host)
	if err != nil {
		return nil, mail.Temporary(451, 4, 3, "next hop "+host+" cannot be resolved: "+c.dnsCause(host, err))
	}
	ruleIndex := c.rule(host, "")
	var list []target
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.Unmap(), uint16(port))
		if !route.IsOwn(c.own, ap) && len(list) < c.o.MaxAddresses {
			list = append(list, target{endpoint: endpoint{addr: ap}, host: host, rule: ruleIndex})
		}
	}
	if len(list) == 0 {
		return nil, mail.Temporary(451, 4, 6, "next hop "+host+" is this gateway itself: mail would loop")
	}
	return list, nil
}

func (c *Client) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return c.o.Resolver.LookupAddrs(ctx, host)
}

// dnsCause is a failure of the DNS in few words; which server said what is for the log.
func (c *Client) dnsCause(name string, err error) string {
	c.o.Log.Info("dns failure", "name", name, "error", err)
	for _, kind := range []error{resolver.ErrNotFound, resolver.ErrNoData} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return resolver.ErrTemporary.Error()
}

// mxTargets finds where mail for a domain goes (RFC 5321 §5.1): at most MaxAddresses, best
// first.
func (c *Client) mxTargets(ctx context.Context, domain string) ([]target, error) {
	if d, err := mail.ParseDomain(domain); err == nil {
		if a, ok := d.Literal(); ok {
			f := finder{c: c, domain: a.String()}
			f.add(resolver.MX{Host: a.String()}, []netip.Addr{a}, c.o.MaxAddresses)
			return f.result()
		}
	}
	mxs, err := c.o.Resolver.LookupMX(ctx, domain)
	switch {
	case errors.Is(err, resolver.ErrNoData):
		mxs = []resolver.MX{{Host: domain}} // the implicit MX
	case errors.Is(err, resolver.ErrNotFound):
		return nil, mail.Permanent(550, 1, 2, "Domain "+domain+" does not exist")
	case err != nil:
		return nil, mail.Temporary(451, 4, 3, "DNS gave no answer for "+domain+": "+c.dnsCause(domain, err))
	}
	mxs = slices.DeleteFunc(slices.Clone(mxs), func(mx resolver.MX) bool { return mx.Host == "." || mx.Host == "" })
	if len(mxs) == 0 {
		return nil, mail.Permanent(556, 1, 10, "Domain "+domain+" does not accept mail (null MX)") // RFC 7505 §4.2
	}
	// Equal preferences share the load: shuffle, then sort stably.
	rand.Shuffle(len(mxs), func(i, j int) { mxs[i], mxs[j] = mxs[j], mxs[i] })
	slices.SortStableFunc(mxs, func(a, b resolver.MX) int { return int(a.Preference) - int(b.Preference) })
	f := finder{c: c, domain: domain}
	f.cut(&mxs, func(host string) bool { return host == c.hostname })
	for i := 0; i < len(mxs) && i < maxHosts && len(f.list) < c.o.MaxAddresses; i++ {
		addrs, err := c.o.Resolver.LookupAddrs(ctx, mxs[i].Host)
		if err != nil {
			f.failed(mxs[i].Host, err)
			continue
		}
		limit := c.o.MaxAddresses
		if len(mxs) > 1 {
			limit = min(limit, perHost)
		}
		if f.add(mxs[i], addrs, limit) {
			host := mxs[i].Host
			f.cut(&mxs, func(h string) bool { return h == host })
			f.drop(mxs)
		}
	}
	return f.result()
}

// finder collects the addresses of a domain's MX hosts and why others were left out.
type finder struct {
	c         *Client
	domain    string
	list      []target
	self      bool
	private   string
	temporary error
	missing   string
}

// cut removes the host that is ourselves and all that are not better than it: to send
// there would loop (RFC 5321 §5.1).
func (f *finder) cut(mxs *[]resolver.MX, own func(string) bool) {
	i := slices.IndexFunc(*mxs, func(mx resolver.MX) bool { return own(strings.ToLower(mx.Host)) })
	if i < 0 {
		return
	}
	f.self = true
	worst := (*mxs)[i].Preference
	*mxs = slices.DeleteFunc(*mxs, func(mx resolver.MX) bool { return mx.Preference >= worst })
}

// drop removes targets whose hosts are not among mxs any more.
func (f *finder) drop(mxs []resolver.MX) {
	f.list = slices.DeleteFunc(f.list, func(t target) bool {
		return !slices.ContainsFunc(mxs, func(mx resolver.MX) bool { return mx.Host == t.host })
	})
}

func (f *finder) failed(host string, err error) {
	if errors.Is(err, resolver.ErrNotFound) || errors.Is(err, resolver.ErrNoData) {
		f.missing = host
		return
	}
	f.temporary = err
}

// add takes over the addresses of a host that may be dialled. It reports whether one is
// our own.
func (f *finder) add(mx resolver.MX, addrs []netip.Addr, limit int) (self bool) {
	host := strings.ToLower(mx.Host)
	ruleIndex := f.c.rule(host, f.domain)
	allowed := ruleIndex >= 0 && f.c.rules[ruleIndex].AllowPrivate
	n := 0
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.Unmap().WithZone(""), mxPort)
		switch {
		case route.IsOwn(f.c.own, ap):
			f.self = true
			return true
		case !allowed && !public(ap.Addr()):
			f.private = ap.Addr().String()
		case n < limit && len(f.list) < f.c.o.MaxAddresses:
			f.list = append(f.list, target{endpoint: endpoint{addr: ap}, host: host, rule: ruleIndex, rank: int(mx.Preference)})
			n++
		}
	}
	return false
}

func (f *finder) result() ([]target, error) {
	switch {
	case len(f.list) > 0:
		return f.list, nil
	case f.self:
		return nil, mail.Permanent(554, 4, 6, "Mail for "+f.domain+" loops back to this gateway")
	case f.temporary != nil:
		return nil, mail.Temporary(451, 4, 3, "DNS gave no address for the mail servers of "+f.domain+": "+f.c.dnsCause(f.domain, f.temporary))
	case f.private != "":
		return nil, mail.Permanent(550, 4, 4, "Mail server of "+f.domain+" has the address "+f.private+", which is not of the public internet")
	}
	return nil, mail.Permanent(550, 4, 4, "Mail server of "+f.domain+" cannot be found: "+f.missing+" has no address")
}

// rule returns the index of the first rule for a next hop, -1 if there is none.
func (c *Client) rule(host, domain string) int {
	for i := range c.rules {
		if c.rules[i].matches(domain) || c.rules[i].matches(host) {
			return i
		}
	}
	return -1
}
