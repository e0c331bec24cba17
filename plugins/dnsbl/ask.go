package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"github.com/postern-mail/postern/plugins/internal/resolve"
)

// records are what the DNS has under a name: addresses, or texts.
type records struct {
	addrs []netip.Addr
	texts []string
	until time.Time // when it has to be asked again
}

// asker asks the DNS and remembers the answers. Two who ask the same thing at the same time
// ask once.
type asker struct {
	servers []string
	timeout time.Duration // for one question
	now     func() time.Time
	slots   chan struct{}
	flight  singleflight.Group

	mu       sync.Mutex
	new, old map[string]records // old is thrown away when new is full
}

// Limits.
const (
	maxQuestions = 200              // under way at the same time
	maxKept      = 20_000           // answers in each of two maps
	leastTTL     = 10 * time.Second // so that a message costs one question for a name
	mostTTL      = time.Hour        // so that who is taken off a list is soon
	tryTime      = time.Second      // for one try of a server
	rounds       = 3                // in which all servers are tried
	maxRecords   = 50               // of one answer
)

func newAsker(servers []string, timeout time.Duration, now func() time.Time) *asker {
	if len(servers) == 0 {
		servers = resolve.System()
	}
	return &asker{servers: servers, timeout: timeout, now: now, slots: make(chan struct{}, maxQuestions), new: make(map[string]records)}
}

// ask returns the records of a name, none if there is no such name. An error means that the
// DNS did not say.
func (d *asker) ask(ctx context.Context, name string, qtype uint16) (records, error) {
	key := dns.TypeToString[qtype] + " " + name
	if r, ok := d.remembered(key); ok {
		return r, nil
	}
	result := d.flight.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout) // of all who wait for it
		defer cancel()
		select {
		case d.slots <- struct{}{}:
			defer func() { <-d.slots }()
		case <-ctx.Done():
			return records{}, errors.New("too many questions at the same time")
		}
		r, err := d.exchange(ctx, name, qtype)
		if err == nil {
			d.remember(key, r)
		}
		return r, err
	})
	select {
	case r := <-result:
		return r.Val.(records), r.Err
	case <-ctx.Done():
		return records{}, ctx.Err()
	}
}

func (d *asker) remembered(key string) (records, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.new[key]
	if !ok {
		r, ok = d.old[key]
	}
	return r, ok && d.now().Before(r.until)
}

func (d *asker) remember(key string, r records) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.new) >= maxKept {
		d.old, d.new = d.new, make(map[string]records)
	}
	d.new[key] = r
}

// exchange asks the servers in turn until one answers or time is up.
func (d *asker) exchange(ctx context.Context, name string, qtype uint16) (records, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	last := errors.New("no server")
	for range rounds {
		for _, server := range d.servers {
			r, err := resolve.Ask(ctx, q, server, tryTime)
			if ctx.Err() != nil {
				return records{}, fmt.Errorf("no answer in time (%w)", ctx.Err())
			}
			switch {
			case err != nil:
				last = err
			case r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError:
				return d.read(r), nil
			default:
				last = fmt.Errorf("the server says %s", dns.RcodeToString[r.Rcode])
			}
		}
	}
	return records{}, last
}

// read takes what is of use from an answer. What is not there is remembered as long as its
// zone says (RFC 2308 §5).
func (d *asker) read(m *dns.Msg) records {
	var r records
	ttl := mostTTL
	for _, rr := range m.Answer {
		ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		switch rr := rr.(type) {
		case *dns.A:
			if a, ok := netip.AddrFromSlice(rr.A.To4()); ok && len(r.addrs) < maxRecords {
				r.addrs = append(r.addrs, a)
			}
		case *dns.TXT:
			if len(r.texts) < maxRecords {
				r.texts = append(r.texts, resolve.Text(rr))
			}
		}
	}
	if len(m.Answer) == 0 {
		ttl = time.Minute
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(mostTTL, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second)
			}
		}
	}
	r.until = d.now().Add(max(ttl, leastTTL))
	return r
}
