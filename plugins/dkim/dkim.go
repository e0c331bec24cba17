package dkim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	netmail "net/mail"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "dkim",
		Version: "1.1",
		Needs:   sdk.NeedBody,
		May:     sdk.MayEditHeader,
		Origins: []mail.Origin{mail.Submitted, mail.Internal},
		Signs:   true,
		Network: true, // it asks the DNS for its own keys
	}
}

// Plugin signs messages. It implements [sdk.Filter], and [sdk.Service] for what has to be
// done as time passes.
type Plugin struct {
	s        checked
	ring     atomic.Pointer[ring]
	signer   signer
	resolver dkimsig.Resolver
	now      func() time.Time
	log      *slog.Logger
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
	_ sdk.Service    = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// firstLook is how long Configure waits for the DNS.
const firstLook = 5 * time.Second

// Configure reads the keys. For those of which nothing is known yet it asks the DNS, for a
// limited time: the first message is not signed with a key that is not published.
func (p *Plugin) Configure(ctx context.Context, c sdk.Config) error {
	if p.log == nil { // else a test's
		p.log = slog.Default()
	}
	var err error
	if p.s, err = check(c); err != nil {
		return err
	}
	r, err := load(p.s, nil)
	if err != nil {
		return err
	}
	for _, s := range r.slots {
		for _, g := range s.keys {
			if g.Short() {
				p.log.Warn("rsa key is short", "file", g.Path, "bits", g.Bits, "advised", dkimkey.AdviseBits)
			}
		}
	}
	if p.resolver == nil { // else a test's
		p.resolver = resolve.New(c.DNSServers)
	}
	if p.s.interval > 0 {
		ctx, cancel := context.WithTimeout(ctx, firstLook)
		defer cancel()
		look(ctx, p.resolver, r.unknown())
	}
	p.ring.Store(r)
	return nil
}

// Listeners implements [sdk.Service]: there are none.
func (p *Plugin) Listeners(context.Context) ([]string, error) { return nil, nil }

// Serve looks every now and then which keys the DNS shows, and does what that makes due. A
// round that fails leaves everything as it is.
func (p *Plugin) Serve(ctx context.Context, _ []net.Listener) error {
	if p.s.interval == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	k := p.keeper()
	for timer := time.NewTimer(0); ; timer.Reset(p.pause()) {
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			p.round(ctx, k)
		}
	}
}

// soon is how often the DNS is asked while a new key waits for it.
const soon = time.Minute

func (p *Plugin) pause() time.Duration {
	if p.ring.Load().awaits(p.now()) {
		return min(soon, p.s.interval)
	}
	return p.s.interval
}

func (p *Plugin) keeper() *keeper {
	return &keeper{s: p.s, resolver: p.resolver, now: p.now, log: p.log, said: make(map[string]time.Time)}
}

func (p *Plugin) round(ctx context.Context, k *keeper) {
	r, err := k.round(ctx, p.ring.Load())
	if r != nil {
		p.ring.Store(r)
	}
	if err != nil && ctx.Err() == nil {
		p.log.Error("dkim keys cannot be kept in order", "error", err)
	}
}

// Filter signs a message for its author's domain.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	switch m.Envelope.Origin {
	case mail.Incoming, mail.Fetched, mail.Redirected:
		// Whatever the setting origins says: a signature would vouch for what anybody wrote.
		return unsigned("the message is not from one of our users"), nil
	}
	author, err := authorDomain(m.Header)
	if err != nil {
		return unsigned(err.Error()), nil
	}
	d, keys := p.ring.Load().signers(author)
	if d == nil {
		return unsigned("the author's domain " + author.String() + " is not one of ours"), nil
	}
	if len(keys) == 0 {
		return unsigned(d.lacking()), nil
	}
	values, err := p.signer.sign(ctx, m, keys, p.now())
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", d.name, err)
	}
	v := sdk.Continue()
	v.Edits = d.removeOwn(m.Header)
	notes := make([]string, len(keys))
	for i := len(keys) - 1; i >= 0; i-- { // the first is at the top
		v.AddHeader(fieldName, values[i])
		notes[i] = "d=" + d.name.String() + " s=" + keys[i].Selector + " a=" + keys[i].Algorithm
	}
	return v.Note("signed", strings.Join(notes, ", ")), nil
}

func unsigned(why string) *sdk.Verdict { return sdk.Continue().Note("unsigned", why) }

// maxFrom bounds the value of a From field that is parsed, in bytes: parsers take more than
// linear time.
const maxFrom = 64 << 10

// authorDomain is the domain of the first address in From. A message without exactly one
// From field is not signed: a signature would vouch for whichever one a reader shows.
func authorDomain(h mail.Header) (mail.Domain, error) {
	if n := h.Count("From"); n != 1 {
		return mail.Domain{}, fmt.Errorf("the message has %d From fields", n)
	}
	from := h.Get("From")
	if len(from) > maxFrom {
		return mail.Domain{}, errors.New("the From field is too long")
	}
	address := ""
	if list, err := (&netmail.AddressParser{}).ParseList(from); err == nil && len(list) > 0 {
		address = list[0].Address
	} else {
		address = looseAddress(from)
	}
	i := strings.LastIndexByte(address, '@')
	d, err := mail.ParseDomain(address[i+1:])
	if i < 0 || err != nil {
		return mail.Domain{}, errors.New("the From field has no address")
	}
	return d, nil
}

// looseAddress finds the address in a From field that is not quite well-formed: raw
// 8-bit names and unknown charsets are common.
func looseAddress(from string) string {
	if i := strings.LastIndexByte(from, '<'); i >= 0 {
		if j := strings.IndexByte(from[i:], '>'); j > 0 {
			return strings.TrimSpace(from[i+1 : i+j])
		}
		return ""
	}
	return strings.TrimSpace(from)
}

// maxOwn bounds how many signatures are removed: nobody has so many, and the edits of a
// verdict are limited.
const maxOwn = 100

// removeOwn removes signatures that we made when the message came through here before: of
// ours there is one for each slot, and it is valid for what leaves. Other people's are left
// alone, and those of other servers of the domain.
func (d *domain) removeOwn(h mail.Header) []sdk.Edit {
	var edits []sdk.Edit
	for i, v := range h.Values(fieldName) {
		if len(edits) == maxOwn {
			break
		}
		if name, err := mail.ParseDomain(tag(v, "d")); err == nil && name == d.name && d.has(strings.ToLower(tag(v, "s"))) {
			// Before those that were found already, so that their numbers stay right.
			edits = append([]sdk.Edit{{Kind: sdk.HeaderRemove, Name: fieldName, Index: i}}, edits...)
		}
	}
	return edits
}

// has reports whether a selector is one of ours, now or at another time.
func (d *domain) has(selector string) bool {
	for _, s := range d.slots {
		if isGeneration(selector, s.base) {
			return true
		}
	}
	return false
}

// tag returns a tag's value from a tag list (RFC 6376 §3.2).
func tag(list, name string) string {
	for t := range strings.SplitSeq(list, ";") {
		if k, v, ok := strings.Cut(t, "="); ok && strings.TrimSpace(k) == name {
			return strings.Join(strings.Fields(v), "")
		}
	}
	return ""
}
