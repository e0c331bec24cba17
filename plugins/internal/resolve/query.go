package resolve

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// tryTime limits one try of a server, rounds how often each is tried.
const (
	tryTime = 3 * time.Second
	rounds  = 2
)

// query asks for records. An error is a *net.DNSError: IsNotFound for a name that does not
// exist, else temporary. A name without such records has none. What is returned must not be
// changed.
func (d *DNS) query(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	fqdn := dns.Fqdn(name)
	if _, ok := dns.IsDomainName(fqdn); !ok || len(fqdn) > 254 {
		return nil, notFound(name)
	}
	key := question{strings.ToLower(fqdn), qtype}
	if records, absent, ok := d.cache.get(key); ok {
		if absent {
			return nil, notFound(name)
		}
		return records, nil
	}
	r, err := d.exchange(ctx, new(dns.Msg).SetQuestion(fqdn, qtype))
	if err != nil {
		err.Name = name
		return nil, err
	}
	d.cache.put(key, r)
	if r.Rcode == dns.RcodeNameError {
		return nil, notFound(name)
	}
	return r.Answer, nil
}

// exchange asks the servers, the one first that answered last, until one says something.
func (d *DNS) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, *net.DNSError) {
	q.SetEdns0(1232, false)
	last := "server misbehaving"
	servers := d.servers()
	first := int(d.first.Load())
	for i := range rounds * len(servers) {
		n := (first + i) % len(servers)
		r, err := Ask(ctx, q, servers[n], tryTime)
		if ctx.Err() != nil {
			return nil, &net.DNSError{Err: ctx.Err().Error(), IsTemporary: true, IsTimeout: true}
		}
		switch {
		case err != nil:
			last = err.Error()
		case r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError:
			if i > 0 {
				d.first.Store(uint32(n))
			}
			return r, nil
		}
	}
	return nil, &net.DNSError{Err: last, IsTemporary: true}
}

// Ask asks one server, once, over TCP where the answer does not fit. What answers another
// question is an error.
func Ask(ctx context.Context, q *dns.Msg, server string, within time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	client := dns.Client{Timeout: within, UDPSize: 1232}
	r, _, err := client.ExchangeContext(ctx, q, server)
	if _, network := errors.AsType[net.Error](err); err == nil && r.Truncated || err != nil && !network { // or it was cut off
		client.Net = "tcp"
		r, _, err = client.ExchangeContext(ctx, q, server)
	}
	if err == nil && (len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, q.Question[0].Name) || r.Question[0].Qtype != q.Question[0].Qtype) {
		return nil, errors.New("the answer is to another question")
	}
	return r, err
}

// Text is what a record says, in its bytes: the library spells those that are not printable, and
// quotes, as zone files do (RFC 1035 §5.1).
func Text(rr *dns.TXT) string {
	s := strings.Join(rr.Txt, "")
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if i+3 < len(s) {
				if n, err := strconv.ParseUint(s[i+1:i+4], 10, 8); err == nil {
					out, i = append(out, byte(n)), i+3
					continue
				}
			}
			i++
		}
		out = append(out, s[i])
	}
	return string(out)
}
