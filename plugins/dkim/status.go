package dkim

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/plugins/internal/resolve"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Keyring is for commands: it looks at the keys that the plugin has under these settings,
// and makes new ones. What happens to keys is the plugin's to record.
type Keyring struct {
	s        checked
	resolver dkimsig.Resolver
	now      func() time.Time
}

// Open checks the settings.
func Open(c sdk.Config) (*Keyring, error) {
	s, err := check(c)
	if err != nil {
		return nil, err
	}
	return &Keyring{s, resolve.New(c.DNSServers), time.Now}, nil
}

// KeyStatus is what is known of a key.
type KeyStatus struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Bits      int    `json:"bits,omitempty"` // of an RSA key
	File      string `json:"file"`
	// State is "signing", "waiting" (for its record), "overlap" (not used any more; its record has to
	// stay) or "retired" (its record can go).
	State string `json:"state"`
	// Unsigned: the key waits, and until the DNS has it mail of the domain leaves unsigned.
	Unsigned bool `json:"unsigned,omitempty"`
	// DNS is "published", "missing", "different" (another key is there) or "unknown" (no
	// answer); empty if nobody asked.
	DNS     string    `json:"dns,omitempty"`
	Created time.Time `json:"created"`
	// Until is when the overlap ends; zero if it has not begun.
	Until time.Time `json:"until,omitzero"`
	// Record publishes the key.
	Record Record `json:"record"`
}

// Fault reports whether mail is unsigned, or signed with a key that nobody can find, because the
// DNS does not have the key.
func (k KeyStatus) Fault() bool {
	return (k.State == "signing" || k.Unsigned) && (k.DNS == dkimkey.Missing.String() || k.DNS == dkimkey.Different.String())
}

// Status tells of the keys of some domains, or of all. Online asks the DNS.
func (k *Keyring) Status(ctx context.Context, only []mail.Domain, online bool) ([]KeyStatus, error) {
	r, err := load(k.s, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range only {
		if _, err := r.domainOf(name); err != nil {
			return nil, err
		}
	}
	slots := slices.DeleteFunc(r.slots, func(s *slot) bool { return len(only) > 0 && !slices.Contains(only, s.domain.name) })
	if online {
		look(ctx, k.resolver, slots)
	}
	var out []KeyStatus
	for _, s := range slots {
		for i, g := range s.keys {
			st, err := k.status(s, g, i-slices.Index(s.keys, s.active()))
			if err != nil {
				return nil, err
			}
			out = append(out, st)
		}
		out = append(out, k.retired(s)...)
	}
	return out, nil
}

// status tells of a key that is before, at or after the active one.
func (k *Keyring) status(s *slot, g *generation, order int) (KeyStatus, error) {
	record, err := g.Record()
	if err != nil {
		return KeyStatus{}, err
	}
	st := KeyStatus{Domain: g.Domain.String(), Selector: g.Selector, Algorithm: g.Algorithm, Bits: g.Bits, File: g.Path, DNS: g.dns.String(), Created: g.Written, Record: record, State: "signing"}
	switch {
	case order < 0, order == 0 && !slices.Contains(s.domain.signing(), s):
		st.State, st.Unsigned = "waiting", len(s.domain.signing()) == 0
	case order > 0:
		st.State = "overlap"
		if at := s.domain.history.of(g.Key).Superseded; at != nil {
			st.Until = at.Add(k.s.overlap)
		}
	}
	return st, nil
}

// retired are the keys of a slot whose records were not seen to be gone yet.
func (k *Keyring) retired(s *slot) []KeyStatus {
	var out []KeyStatus
	for selector, e := range s.domain.history {
		if e.Retired == nil || !isGeneration(selector, s.base) {
			continue
		}
		st := KeyStatus{Domain: s.domain.name.String(), Selector: selector, State: "retired", File: dkimkey.File(filepath.Join(k.s.dir, retiredDir), s.domain.name, selector)}
		if key, err := dkimkey.Load(filepath.Join(k.s.dir, retiredDir), s.domain.name, selector); err == nil {
			st.Algorithm, st.Bits, st.Created = key.Algorithm, key.Bits, key.Written
			st.Record, _ = key.Record()
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b KeyStatus) int { return strings.Compare(b.Selector, a.Selector) })
	return out
}

// Rotate makes the next key for each signature of a domain, or for that whose selectors begin with
// base. Where the latest key still waits for its record none is made. It returns the keys
// whose records have to be published now.
func (k *Keyring) Rotate(ctx context.Context, name mail.Domain, base string) ([]KeyStatus, error) {
	r, err := load(k.s, nil)
	if err != nil {
		return nil, err
	}
	d, err := r.domainOf(name)
	if err != nil {
		return nil, err
	}
	look(ctx, k.resolver, d.slots)
	var made []string
	for _, s := range d.slots {
		if base != "" && s.base != base {
			continue
		}
		latest := s.keys[0]
		if len(s.waiting()) > 0 {
			made = append(made, latest.Selector)
			continue
		}
		path, _, err := s.next(k.s.dir, k.now())
		if err != nil {
			return nil, err
		}
		selector := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), name.String()+"."), ".pem")
		made = append(made, selector)
	}
	if len(made) == 0 {
		return nil, fmt.Errorf("the settings of the plugin dkim have no selector %s for %s", base, name)
	}
	all, err := k.Status(ctx, []mail.Domain{name}, true)
	return slices.DeleteFunc(all, func(s KeyStatus) bool { return !slices.Contains(made, s.Selector) }), err
}
