// Package route decides where a recipient's mail goes: recipient -> [Route].
//
// First match wins: what the domain's entry says, then the smarthost, then the MX of the
// recipient's domain. A [Table] is built from the configuration once, refuses what would
// loop back into our own listeners, and never changes; after a change of the
// configuration build another one. It asks no DNS and opens no connection. It is safe for
// concurrent use.
package route

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Transport is what carries out a route.
type Transport uint8

// The transports.
const (
	SMTP    Transport = iota + 1 // core/smtpclient: over the network, with SMTP or LMTP
	Mailbox                      // core/mailbox: into a mailbox plugin
)

// Route is where mail goes: its hops are tried in order.
type Route struct {
	// Key names the destination for the queue: the same next hops, the same key.
	Key       string
	Transport Transport
	Hops      []Hop // at least one; must not be changed
}

// Options of a Table.
type Options struct {
	// Domains are our own domains with their next hops ("deliver"), tried in order; see
	// [ParseHop]. All hops of a domain use the same transport.
	Domains map[mail.Domain][]string
	// Smarthost takes what is for other domains; empty: the MX of the domain does. An
	// element is "host", "host:port", or a hop with scheme smtp or smtps.
	Smarthost []string
	// Credentials is the name by which the smarthost's log-in is known to the transport;
	// empty: none.
	Credentials string
	// AllowLiterals lets mail go to address literals, as in user@[192.0.2.1].
	AllowLiterals bool
	// Hostname is our own name, Own what our listeners are bound to. An unspecified
	// address stands for every address of this host.
	Hostname mail.Domain
	Own      []netip.AddrPort
}

// Table is a list of rules.
type Table struct {
	domains   map[mail.Domain]Route
	smarthost Route
	literals  bool
}

// New builds a table. The error names the entry that is wrong and why.
func New(o Options) (*Table, error) {
	t := &Table{domains: make(map[mail.Domain]Route, len(o.Domains)), literals: o.AllowLiterals}
	guard := guard{host: o.Hostname.String(), own: ExpandOwn(o.Own)}
	for d, deliver := range o.Domains {
		hops := make([]Hop, 0, len(deliver))
		for _, s := range deliver {
			h, err := ParseHop(s)
			if err == nil {
				err = guard.check(h)
			}
			if err != nil {
				return nil, fmt.Errorf("domain %s: deliver %q: %w", d, s, err)
			}
			hops = append(hops, h)
		}
		r, err := makeRoute(hops)
		if err != nil {
			return nil, fmt.Errorf("domain %s: deliver: %w", d, err)
		}
		t.domains[d] = r
	}
	for _, s := range o.Smarthost {
		h, err := ParseSmarthost(s)
		if err == nil {
			err = guard.check(h)
		}
		if err != nil {
			return nil, fmt.Errorf("smarthost %q: %w", s, err)
		}
		h.Credentials = o.Credentials
		t.smarthost.Hops = append(t.smarthost.Hops, h)
	}
	t.smarthost.Key, t.smarthost.Transport = "smarthost", SMTP
	return t, nil
}

// makeRoute is the route over hops, with a key made of them.
func makeRoute(hops []Hop) (Route, error) {
	if len(hops) == 0 {
		return Route{}, fmt.Errorf("is empty: name a next hop or a mailbox plugin")
	}
	r := Route{Transport: SMTP, Hops: hops}
	keys := make([]string, len(hops))
	for i, h := range hops {
		keys[i] = h.String()
		if h.Scheme == SchemeMailbox {
			r.Transport = Mailbox
			if len(hops) > 1 {
				return Route{}, fmt.Errorf("mailbox plugin %q cannot share a list with other next hops: a mailbox that fails is tried again", h.Address)
			}
		}
	}
	r.Key = strings.Join(keys, ",")
	return r, nil
}

// Route returns the route of a recipient. The error is a mail.Status.
func (t *Table) Route(rcpt mail.Path) (Route, error) {
	d := rcpt.Domain
	if d.IsZero() {
		return Route{}, mail.Permanent(553, 1, 3, "Recipient has no domain")
	}
	if r, ok := t.domains[d]; ok {
		return r, nil
	}
	if _, literal := d.Literal(); literal && !t.literals {
		return Route{}, mail.Permanent(550, 1, 2, "Mail to address literals is not allowed here")
	}
	if len(t.smarthost.Hops) > 0 {
		return t.smarthost, nil
	}
	h := Hop{Scheme: SchemeMX, Address: d.String()}
	return Route{Key: h.String(), Transport: SMTP, Hops: []Hop{h}}, nil
}
