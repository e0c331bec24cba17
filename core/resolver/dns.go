package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds on what an answer may make us do.
const (
	maxChain   = 8   // CNAMEs followed for one question (N-03)
	maxRecords = 512 // records of one answer that are looked at
	maxNames   = 5   // names of one address that are verified
	udpSize    = 1232
)

// Options of a DNS.
type Options struct {
	// Servers are asked in order, as "host:port" or an address alone (port 53). Empty:
	// those of ResolvConf.
	Servers []string
	// ResolvConf and Hosts are the system's files, reread when they change.
	// Default: /etc/resolv.conf and /etc/hosts. Hosts is honoured for addresses only.
	ResolvConf, Hosts string
	// Timeout is the wait for one server's answer. Default: 5 s.
	Timeout time.Duration
	// Attempts is how often the list of servers is gone through. Default: 2.
	Attempts int
	// CacheSize is the number of answers kept; below 0: none. Default: 10,000.
	CacheSize int
	// Now is the clock for lifetimes of answers. Default: time.Now.
	Now func() time.Time
	Log *slog.Logger // default: silent
}

// DNS is a Resolver that asks recursive name servers over UDP, and over TCP where an
// answer was truncated.
type DNS struct {
	opts    Options
	servers func() []string
	hosts   *hostsFile
	cache   *cache
	udp     dns.Client
	tcp     dns.Client
}

var _ Resolver = (*DNS)(nil)

// New checks the options and returns a resolver. It asks nothing yet.
func New(o Options) (*DNS, error) {
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.Hosts == "" {
		o.Hosts = "/etc/hosts"
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Attempts <= 0 {
		o.Attempts = 2
	}
	if o.CacheSize == 0 {
		o.CacheSize = 10000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &DNS{opts: o, hosts: &hostsFile{path: o.Hosts}, cache: newCache(o.CacheSize, o.Now)}
	d.udp = dns.Client{Net: "udp", Timeout: o.Timeout, UDPSize: udpSize}
	d.tcp = dns.Client{Net: "tcp", Timeout: o.Timeout}
	if len(o.Servers) == 0 {
		f := &resolvFile{path: o.ResolvConf}
		d.servers = f.servers
		return d, nil
	}
	list := make([]string, 0, len(o.Servers))
	for _, s := range o.Servers {
		server, err := serverAddress(s)
		if err != nil {
			return nil, err
		}
		list = append(list, server)
	}
	d.servers = func() []string { return list }
	return d, nil
}

func serverAddress(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return net.JoinHostPort(a.String(), "53"), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" {
		return "", fmt.Errorf("name server %q is not host:port", s)
	}
	return s, nil
}

// Answer is the records of one kind that a question led to.
type Answer struct {
	Records []dns.RR // of the type that was asked for; CNAMEs are followed and left out
	// Authentic is the AD bit: the name server says that it validated the answer (and all
	// of its chain) by DNSSEC. It is worth as much as the way to that server.
	Authentic bool
}

// Query asks for the records of one type (one of the dns.Type constants), following
// CNAMEs. Answers come from the cache while they live.
func (d *DNS) Query(ctx context.Context, name string, qtype uint16) (Answer, error) {
	typ := dns.TypeToString[qtype]
	if name != "." {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return Answer{}, &Error{name, typ, ErrNotFound, "not a domain name"}
	}
	key := cacheKey{name, qtype}
	if ans, err, ok := d.cache.get(key); ok {
		return ans, err
	}
	out := Answer{Authentic: true}
	ttl := uint32(1<<31 - 1)
	next := dns.Fqdn(name)
	for range maxChain {
		msg, err := d.ask(ctx, next, qtype)
		if err != nil {
			return Answer{}, &Error{name, typ, ErrTemporary, err.Error()}
		}
		out.Authentic = out.Authentic && msg.AuthenticatedData
		end, chain, err := follow(msg, next, qtype, &out, &ttl)
		switch {
		case err != nil:
			return Answer{}, &Error{name, typ, ErrTemporary, err.Error()}
		case len(out.Records) > 0:
			d.cache.put(key, out, nil, ttl)
			return out, nil
		case msg.Rcode == dns.RcodeNameError:
			err = &Error{name, typ, ErrNotFound, ""}
			d.cache.put(key, Answer{}, err, negativeTTL(msg))
			return Answer{}, err
		case chain == 0 || hasSOA(msg):
			err = &Error{name, typ, ErrNoData, ""}
			d.cache.put(key, Answer{}, err, negativeTTL(msg))
			return Answer{}, err
		}
		next = end // the server gave a part of the chain only
	}
	return Answer{}, &Error{name, typ, ErrTemporary, "chain of CNAMEs is too long"}
}

// follow walks the CNAMEs of an answer from name and collects the records at their end.
// It returns that end and how many CNAMEs led there.
func follow(msg *dns.Msg, name string, qtype uint16, out *Answer, ttl *uint32) (end string, chain int, err error) {
	records := msg.Answer[:min(len(msg.Answer), maxRecords)]
	for chain = 0; ; chain++ {
		if chain > maxChain {
			return "", 0, errors.New("chain of CNAMEs is too long")
		}
		target := ""
		for _, rr := range records {
			h := rr.Header()
			if !strings.EqualFold(h.Name, name) || h.Class != dns.ClassINET {
				continue
			}
			if h.Rrtype == qtype {
				out.Records = append(out.Records, rr)
				*ttl = min(*ttl, h.Ttl)
			} else if c, ok := rr.(*dns.CNAME); ok && target == "" {
				target = c.Target
				*ttl = min(*ttl, h.Ttl)
			}
		}
		if len(out.Records) > 0 || target == "" {
			return name, chain, nil
		}
		name = target
	}
}

func hasSOA(msg *dns.Msg) bool {
	return slices.ContainsFunc(msg.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
}

// negativeTTL is how long an absence may be remembered (RFC 2308 §5).
func negativeTTL(msg *dns.Msg) uint32 {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(soa.Minttl, soa.Hdr.Ttl)
		}
	}
	return 0
}

// ask puts one question to the servers in turn until one of them knows.
func (d *DNS) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.RecursionDesired = true
	m.AuthenticatedData = true // RFC 6840 §5.7: we want to see AD
	m.SetEdns0(udpSize, false)
	var last error
	for range d.opts.Attempts {
		for _, server := range d.servers() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			m.Id = dns.Id()
			reply, err := d.exchange(ctx, m, server)
			if err == nil {
				return reply, nil
			}
			last = err
			d.opts.Log.Debug("name server failed", "server", server, "name", name, "error", err)
		}
	}
	if last == nil {
		last = errors.New("no name servers")
	}
	return nil, last
}

func (d *DNS) exchange(ctx context.Context, m *dns.Msg, server string) (*dns.Msg, error) {
	reply, _, err := d.udp.ExchangeContext(ctx, m, server)
	if err == nil && reply.Truncated || errors.Is(err, dns.ErrBuf) {
		reply, _, err = d.tcp.ExchangeContext(ctx, m, server)
	}
	if err != nil {
		return nil, err
	}
	if !reply.Response || len(reply.Question) != 1 || reply.Truncated ||
		reply.Question[0].Qtype != m.Question[0].Qtype || !strings.EqualFold(reply.Question[0].Name, m.Question[0].Name) {
		return nil, fmt.Errorf("%s answered another question", server)
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("%s answered %s", server, dns.RcodeToString[reply.Rcode])
	}
	return reply, nil
}
