// Package smtpclient delivers mail over SMTP (RFC 5321) and LMTP (RFC 2033).
//
// One call of [Client.Attempt] or [Client.Deliver] is one attempt: it goes through the hops
// of a route, and through the addresses of each, until a peer has taken or refused the
// message, and says of every recipient what became of it. What is not clear is temporary;
// permanent is what a peer said of the recipient or the message, and what the DNS says
// cannot be. A peer's bytes are bounded, checked and made printable before anybody sees
// them, every wait has a limit, and a message with a bare CR, a bare LF or a NUL never
// leaves.
//
// Connections are kept for a short while and reused. Nothing is durable; the package
// knows neither queue nor configuration. A Client is safe for concurrent use.
package smtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// Client delivers mail. Close it when done.
type Client struct {
	o        Options
	hostname string // lower case
	rules    []rule
	own      []netip.AddrPort
	tickets  tls.ClientSessionCache
	pool     *pool
	hints    *hints
	buffers  *sync.Pool
}

// New checks the options and returns a client.
func New(o Options) (*Client, error) {
	if _, err := mail.ParseDomain(o.Hostname); err != nil {
		return nil, fmt.Errorf("hostname: %w", err)
	}
	if o.Resolver == nil {
		return nil, errors.New("no resolver")
	}
	o.setDefaults()
	c := &Client{
		o: o, hostname: strings.ToLower(o.Hostname), own: route.ExpandOwn(o.OwnAddresses),
		tickets: tls.NewLRUClientSessionCache(256), hints: newHints(), buffers: newBufferPool(),
		pool: &pool{limits: o.Pool, idle: make(map[target][]*session)},
	}
	for i, d := range o.Destinations {
		r, err := makeRule(d)
		if err != nil {
			return nil, fmt.Errorf("destination %d: %w", i+1, err)
		}
		c.rules = append(c.rules, r)
	}
	return c, nil
}

// Close closes the connections that are not in use; others close after their attempt.
func (c *Client) Close() error {
	c.pool.close()
	return nil
}

func (c *Client) credentials(name string) (Credentials, error) {
	if c.o.Credentials == nil {
		return Credentials{}, errors.New("none are configured")
	}
	return c.o.Credentials(name)
}

// Job is one message to deliver to some of its recipients over one route.
type Job struct {
	Route      route.Route
	Envelope   *mail.Envelope
	Recipients []int // indices into Envelope.Recipients
	Header     mail.Header
	Body       mail.Body
	// BeforeDot, if set, is asked before every final dot; after an error the message is
	// not completed. It is for leases that can be lost.
	BeforeDot func(ctx context.Context) error
}

// rcpt is the recipient that the i-th result is about.
func (j *Job) rcpt(i int) *mail.Recipient { return &j.Envelope.Recipients[j.Recipients[i]] }

// Result is what became of one recipient. Remote in its status names the peer that said
// so.
type Result struct {
	mail.Status
	// DSN: the peer took the message and the duty to report success (RFC 3461); without
	// it a success is "relayed" in a DSN.
	DSN bool
	// TLS: the message went through TLS.
	TLS bool
	// Duplicate: the peer may have taken the message though the status is temporary.
	Duplicate bool
}

// Attempt makes one attempt to deliver a job. It returns one result for each element of
// job.Recipients, in that order, none of them zero. When ctx ends, so does the attempt.
func (c *Client) Attempt(ctx context.Context, job *Job) []Result {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeouts.Attempt)
	defer cancel()
	a := &attempt{c: c, job: job, res: make([]Result, len(job.Recipients))}
	a.last = mail.Temporary(451, 3, 5, "route has no next hop")
	a.run(ctx)
	for i := range a.res {
		if a.res[i].IsZero() {
			a.res[i].Status = a.last
		}
	}
	return a.res
}
