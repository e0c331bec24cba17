package dkim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Settings of the plugin.
type Settings struct {
	// Domains that are signed for, with the domains below them. Required.
	Domains []string `toml:"domains"`
	// Selector of the keys. Default: "postern".
	Selector string `toml:"selector"`
	// KeyDir has the private keys, DOMAIN.SELECTOR.pem; relative to the gateway's data
	// directory. Default: "dkim".
	KeyDir string `toml:"key_dir"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings { return Settings{Selector: "postern", KeyDir: "dkim"} }

// Manifest declares the plugin.
func Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name:    "dkim",
		Version: "1.0",
		Needs:   sdk.NeedBody,
		May:     sdk.MayEditHeader,
		Origins: []mail.Origin{mail.Submitted, mail.Internal},
		Signs:   true,
	}
}

// Plugin signs messages. It implements [sdk.Filter].
type Plugin struct {
	keys   map[mail.Domain]*dkimkey.Key
	signer signer
	now    func() time.Time
}

var (
	_ sdk.Filter     = (*Plugin)(nil)
	_ sdk.Configurer = (*Plugin)(nil)
)

// New returns a plugin that has yet to be configured.
func New() *Plugin { return &Plugin{now: time.Now} }

// Configure reads the keys.
func (p *Plugin) Configure(_ context.Context, c sdk.Config) error {
	s := Defaults()
	if err := c.Decode(&s); err != nil {
		return err
	}
	if len(s.Domains) == 0 {
		return errors.New(`settings: domains is empty; name the domains to sign for, as in domains = ["example.org"]`)
	}
	if err := dkimkey.CheckSelector(s.Selector); err != nil {
		return fmt.Errorf("settings: selector: %w", err)
	}
	dir := s.KeyDir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(c.DataDir, dir)
	}
	p.keys = make(map[mail.Domain]*dkimkey.Key)
	var faults []string
	for _, name := range s.Domains {
		d, err := mail.ParseDomain(name)
		if err != nil {
			faults = append(faults, "settings: domains: "+err.Error())
			continue
		}
		k, err := dkimkey.Load(dir, d, s.Selector)
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		if k.Short() {
			slog.Warn("rsa key is short", "file", k.Path, "bits", k.Bits, "advised", dkimkey.AdviseBits)
		}
		p.keys[d] = k
	}
	if len(faults) > 0 { // in one line: the host shows no other
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

// Filter signs a message for its author's domain.
func (p *Plugin) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	author, err := authorDomain(m.Header)
	if err != nil {
		return unsigned(err.Error()), nil
	}
	k := p.keyFor(author)
	if k == nil {
		return unsigned("the author's domain " + author.String() + " is not one of ours"), nil
	}
	values, err := p.signer.sign(ctx, m, []*dkimkey.Key{k}, p.now())
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", k.Domain, err)
	}
	v := sdk.Continue()
	v.Edits = removeOwn(m.Header, k)
	return v.AddHeader(fieldName, values[0]).Note("signed", "d="+k.Domain.String()+" s="+k.Selector+" a="+k.Algorithm), nil
}

func unsigned(why string) *sdk.Verdict { return sdk.Continue().Note("unsigned", why) }

// keyFor returns the key of the domain or of the nearest one above it that has one: the
// signature is aligned with From in DMARC's relaxed mode either way (RFC 7489 §3.1.1).
func (p *Plugin) keyFor(author mail.Domain) *dkimkey.Key {
	var best *dkimkey.Key
	for d, k := range p.keys {
		if author.Under(d) && (best == nil || d.Under(best.Domain)) {
			best = k
		}
	}
	return best
}

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
// ours there is one, and it is valid for what leaves. Other people's are left alone.
func removeOwn(h mail.Header, k *dkimkey.Key) []sdk.Edit {
	var edits []sdk.Edit
	for i, v := range h.Values("DKIM-Signature") {
		if len(edits) == maxOwn {
			break
		}
		if d, err := mail.ParseDomain(tag(v, "d")); err == nil && d == k.Domain && strings.EqualFold(tag(v, "s"), k.Selector) {
			// Before those that were found already, so that their numbers stay right.
			edits = append([]sdk.Edit{{Kind: sdk.HeaderRemove, Name: "DKIM-Signature", Index: i}}, edits...)
		}
	}
	return edits
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
