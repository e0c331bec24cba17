// Package policy decides who may connect, who may send, and to whom.
//
// It promises: mail for other domains is taken only from clients in relay networks and from
// clients that logged in; what a client says about itself (HELO, reverse-path) never gives
// a right. Every decision is made on typed values, and its answer is a [mail.Status]: the
// zero Status means "go on", anything else is the reply. A directory that fails is a 451,
// never a 550. It refuses to know sessions, how recipients are stored, and what happens to a message later.
//
// A Policy is immutable apart from its counters; a reload makes a new one with [New] that
// takes over the counters of the old. Counters are in memory, bounded, and begin again
// after a restart. A Policy is safe for concurrent use.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
)

// Directory knows the recipients of our domains. An error that is a permanent [mail.Status] is an
// answer about the address; any other error means that the directory failed.
type Directory interface {
	// Local reports whether a domain is ours, and its name if it is an alias.
	Local(ctx context.Context, name mail.Domain) (mail.Domain, bool, error)
	// Resolve returns what an address of ours stands for.
	Resolve(ctx context.Context, p mail.Path) ([]mail.Path, error)
}

// Behind knows the recipients of domains whose mailboxes are on a server behind us.
type Behind interface {
	// Recipient says whether mail for p, at the domain's own name, is taken from a client: the zero
	// Status if it is.
	Recipient(ctx context.Context, c *mail.Client, p mail.Path) mail.Status
}

// Options of a Policy.
type Options struct {
	Hostname  mail.Domain // mail for postmaster there is always taken
	Directory Directory
	// Callahead are the names of those of our domains where Behind is asked about an address
	// that the directory does not have.
	Callahead []mail.Domain
	Behind    Behind // required with Callahead
	// Rewrite returns the address that mail for a recipient goes to instead; nil: it is not
	// rewritten. An error means that the directory failed.
	Rewrite func(ctx context.Context, rcpt mail.Path) (mail.Path, error)
	// MaySend says whether the sender of an envelope may send to a recipient of ours, which may
	// be a group; nil: everybody may. Errors are as of Directory.
	MaySend func(ctx context.Context, e *mail.Envelope, rcpt mail.Path) error
	// AnyRecipient are the names of those of our domains where every address is taken,
	// because another server knows which exist.
	AnyRecipient []mail.Domain
	Relay        []netip.Prefix // who may relay without logging in
	// Room says whether a mailbox of ours would take a message of that size (0: not known);
	// the zero Status means yes, or that it is not known. nil: nobody can tell.
	Room func(ctx context.Context, to mail.Path, size int64) mail.Status

	Clients    []ClientRule  // in each list the first match decides
	Senders    []AddressRule //
	Recipients []AddressRule //

	Limits   Limits
	Networks []NetworkLimits // of several that contain a client, the smallest network counts

	// Returned says whether an address is one under which mail was sent on (SRS), and why it is not
	// good if it is not. nil: there are none.
	Returned func(rcpt mail.Path) (ours bool, s mail.Status)

	// SenderLogin binds a client that logged in to its account: the reverse-path, and what is in
	// From at domains of ours, is the address itself, with or without +tag, or one that leads to it.
	SenderLogin bool

	Log   *slog.Logger
	Clock func() time.Time // default: time.Now
	// Previous is the policy that this one replaces: its counters go on. It may be nil.
	Previous *Policy
}

// ClientRule allows or refuses clients by address. To allow gives no right to relay.
type ClientRule struct {
	Networks []netip.Prefix
	Reject   bool
	Text     string // of the refusal; empty: a standard one
}

// Limits are for each client: an IPv4 address or an IPv6 /64. Zero is no limit, except where said.
type Limits struct {
	MessageSize       int64 // bytes
	Recipients        int   // of a message; 0: 1000
	Connections       int   // simultaneous sessions
	MessagesPerMinute int
	RecipientsPerHour int
}

// NetworkLimits are the limits of the clients in some networks.
type NetworkLimits struct {
	Networks []netip.Prefix
	Limits   Limits
}

// Policy is a set of rules with its counters.
type Policy struct {
	Options
	any        map[mail.Domain]bool
	behind     map[mail.Domain]bool
	senders    []addressRule
	recipients []addressRule
	counters   *counters
}

// New checks the options and returns a Policy.
func New(o Options) (*Policy, error) {
	if o.Directory == nil {
		return nil, errors.New("policy: Directory is missing")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if len(o.Callahead) > 0 && o.Behind == nil {
		return nil, errors.New("policy: Behind is missing")
	}
	p := &Policy{Options: o, any: make(map[mail.Domain]bool), behind: make(map[mail.Domain]bool)}
	for _, d := range o.AnyRecipient {
		p.any[d] = true
	}
	for _, d := range o.Callahead {
		p.behind[d] = true
	}
	var err error
	if p.senders, err = compile(o.Senders); err != nil {
		return nil, fmt.Errorf("policy: senders: %w", err)
	}
	if p.recipients, err = compile(o.Recipients); err != nil {
		return nil, fmt.Errorf("policy: recipients: %w", err)
	}
	if o.Previous != nil {
		p.counters = o.Previous.counters
	} else {
		p.counters = newCounters()
	}
	p.Previous = nil // it must not be kept alive
	return p, nil
}

// Connect is asked when a client has connected. It sets the class of a client from a relay network.
func (p *Policy) Connect(_ context.Context, c *mail.Client) mail.Status {
	c.Addr = c.Addr.Unmap()
	for _, r := range p.Clients {
		if !contains(r.Networks, c.Addr) {
			continue
		}
		if r.Reject {
			return refusal(r.Text, "Access denied")
		}
		break
	}
	if contains(p.Relay, c.Addr) {
		c.Class = mail.Relay
	}
	return mail.Status{}
}

// refusal is the answer of an access list.
func refusal(text, standard string) mail.Status {
	if text == "" {
		text = standard
	}
	return mail.Permanent(554, 7, 1, text)
}

// Mail is asked at MAIL. size is what the client declared, in bytes; 0 if it did not.
func (p *Policy) Mail(ctx context.Context, c *mail.Client, reverse mail.Path, size int64) mail.Status {
	limits := p.ClientLimits(c.Addr)
	if limits.MessageSize > 0 && size > limits.MessageSize {
		// RFC 1870 §6.1 (3)
		return mail.Permanent(552, 3, 4, fmt.Sprintf("Message size exceeds the limit of %d bytes", limits.MessageSize))
	}
	if !reverse.IsZero() && reverse.Domain.IsZero() {
		return mail.Permanent(553, 1, 7, "Sender address needs a domain")
	}
	if r := match(p.senders, reverse); r != nil && r.Reject {
		return refusal(r.Text, "Sender address rejected")
	}
	if s := p.bound(ctx, c, reverse); !s.IsZero() {
		return s
	}
	if !within(p.counters.messages, state.ClientKey(c.Addr), limits.MessagesPerMinute, time.Minute, p.Clock()) {
		return mail.Temporary(450, 7, 1, "Too many messages, try again later")
	}
	return mail.Status{}
}

// bound refuses a reverse-path that does not belong to the account that logged in.
func (p *Policy) bound(ctx context.Context, c *mail.Client, reverse mail.Path) mail.Status {
	if c.User == "" || !p.SenderLogin || reverse.IsZero() {
		return mail.Status{} // the null reverse-path is for receipts and vacation notices of mail programs
	}
	if own, s := p.owns(ctx, c, reverse); own || !s.IsZero() {
		return s
	}
	return mail.Permanent(553, 7, 1, "Sender address is not yours; log in as its owner")
}

// failed answers for a directory that gave no answer.
func (p *Policy) failed(what string, err error) mail.Status {
	p.Log.Error("directory failed", "question", what, "error", err)
	return mail.Temporary(451, 3, 0, "Cannot check the address now, try again later")
}

// Recipient is asked at RCPT; e has the client, the reverse-path and the recipients
// accepted so far.
func (p *Policy) Recipient(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status {
	limits := p.ClientLimits(e.Client.Addr)
	if len(e.Recipients) >= limits.Recipients {
		// RFC 5321 §4.5.3.1.10
		return mail.Temporary(452, 5, 3, "Too many recipients")
	}
	if rcpt.IsZero() || rcpt.Local == "" || rcpt.Domain.IsZero() {
		return mail.Permanent(553, 1, 3, "Recipient address needs a local part and a domain")
	}
	r, err := p.ruleFor(ctx, rcpt)
	switch {
	case err != nil:
		return p.failed("domain", err)
	case r != nil && r.Reject:
		return refusal(r.Text, "Recipient address rejected")
	}
	if s := p.rewritten(ctx, e, rcpt); !s.IsZero() {
		return s
	}
	if !within(p.counters.recipients, state.ClientKey(e.Client.Addr), limits.RecipientsPerHour, time.Hour, p.Clock()) {
		return mail.Temporary(450, 7, 1, "Too many recipients, try again later")
	}
	return mail.Status{}
}

// ruleFor returns the rule for a recipient: that for the address as given, else that for the
// same mailbox at the domain's own name. A rule about a mailbox is not got round by an alias
// of its domain.
func (p *Policy) ruleFor(ctx context.Context, rcpt mail.Path) (*addressRule, error) {
	r := match(p.recipients, rcpt)
	if r != nil || len(p.recipients) == 0 {
		return r, nil
	}
	name, ours, err := p.Directory.Local(ctx, rcpt.Domain)
	if err != nil || !ours {
		return nil, err
	}
	return match(p.recipients, mail.Path{Local: rcpt.Local, Domain: name}), nil
}

// deliverable says whether the client may send to rcpt.
func (p *Policy) deliverable(ctx context.Context, e *mail.Envelope, rcpt mail.Path) mail.Status {
	if ours, s := p.returned(e, rcpt); ours {
		return s
	}
	postmaster := rcpt.Fold().Local == "postmaster"
	if postmaster && rcpt.Domain == p.Hostname {
		return mail.Status{}
	}
	name, ours, err := p.Directory.Local(ctx, rcpt.Domain)
	switch {
	case err != nil:
		return p.failed("domain", err)
	case !ours:
		if mayRelay(&e.Client) {
			return mail.Status{}
		}
		return mail.Permanent(550, 7, 1, "Relaying denied")
	case postmaster:
		return mail.Status{} // RFC 5321 §4.5.1
	}
	if s := p.permitted(ctx, e, rcpt); !s.IsZero() {
		return s
	}
	if p.any[name] {
		return routed(&e.Client, rcpt)
	}
	targets, s := p.listed(ctx, rcpt)
	switch {
	case p.behind[name] && s.Permanent() && s.Enhanced == [3]int{5, 1, 1}: // the directory has no such alias
		if s := routed(&e.Client, rcpt); !s.IsZero() {
			return s
		}
		return p.Behind.Recipient(ctx, &e.Client, mail.Path{Local: rcpt.Local, Domain: name})
	case !s.IsZero():
		return s
	}
	return p.room(ctx, e, targets)
}

// listed returns what the directory has for an address; without a status there is something.
func (p *Policy) listed(ctx context.Context, rcpt mail.Path) ([]mail.Path, mail.Status) {
	targets, err := p.Directory.Resolve(ctx, rcpt)
	if err != nil {
		if s := mail.StatusOf(err); s.Permanent() {
			return nil, s
		}
		return nil, p.failed("recipient", err)
	}
	if len(targets) == 0 {
		return nil, mail.Permanent(550, 1, 1, "No such user here")
	}
	return targets, mail.Status{}
}

// room refuses, for now, a recipient whose mailbox is full: the sender's server keeps the
// message, and nobody gets a bounce. Of several targets the others are not to suffer.
func (p *Policy) room(ctx context.Context, e *mail.Envelope, targets []mail.Path) mail.Status {
	if p.Room == nil || len(targets) != 1 {
		return mail.Status{}
	}
	return p.Room(ctx, targets[0], e.Size)
}

// routed refuses a local part in which the server behind us could see a route to another
// domain ("user%elsewhere", "elsewhere!user", "user@elsewhere"): it may trust us more than
// the client that we have it from.
func routed(c *mail.Client, rcpt mail.Path) mail.Status {
	if strings.ContainsAny(rcpt.Local, "%!@") && !mayRelay(c) {
		return mail.Permanent(550, 7, 1, "Relaying denied")
	}
	return mail.Status{}
}

// mayRelay is the only place that says who may send to other domains.
func mayRelay(c *mail.Client) bool {
	return c.User != "" || c.Class == mail.Relay || c.Class == mail.Authenticated
}
