package dkim

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/sdk/mail"
)

// A ring has the keys of all domains at one time. It is not changed once it is in use.
type ring struct {
	slots   []*slot // in the order of the settings
	domains map[mail.Domain]*domain
}

// domain is what is known of a domain.
type domain struct {
	name    mail.Domain
	slots   []*slot
	history history
	asks    bool // the DNS counts; else nobody asks it for these keys
}

// A slot is one signature of a domain: the keys that made and will make it, one after
// the other, each under a selector of its own.
type slot struct {
	domain *domain
	base   string        // the selector of the first key; those of later ones begin with it
	keys   []*generation // the latest first
}

// generation is one key of a slot.
type generation struct {
	*dkimkey.Key
	dns dkimkey.Presence
}

// serials are what follows the base in the selectors of later keys: the day on which they
// were made.
var serials = regexp.MustCompile(`^-[0-9]{8}[a-z]?$`)

// isGeneration reports whether a selector is the base or was made from it.
func isGeneration(selector, base string) bool {
	rest, ok := strings.CutPrefix(selector, base)
	return ok && (rest == "" || serials.MatchString(rest))
}

// load reads the keys. Those of files that have not changed since are taken from old, which
// may be nil: reading one costs much.
func load(set checked, old *ring) (*ring, error) {
	files, err := os.ReadDir(set.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	r := &ring{domains: make(map[mail.Domain]*domain)}
	var faults []error
	for _, w := range set.wanted {
		d := &domain{name: w.domain, asks: set.interval > 0}
		r.domains[w.domain] = d
		if d.history, err = readHistory(set.dir, w.domain); err != nil {
			faults = append(faults, err)
			continue
		}
		for _, base := range w.selectors {
			s := &slot{domain: d, base: base}
			if err := s.load(set.dir, files, old); err != nil {
				faults = append(faults, err)
				continue
			}
			d.slots = append(d.slots, s)
			r.slots = append(r.slots, s)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return r, nil
}

func (s *slot) load(dir string, files []os.DirEntry, old *ring) error {
	for _, f := range files {
		rest, ok := strings.CutPrefix(f.Name(), s.domain.name.String()+".")
		selector, pem := strings.CutSuffix(rest, ".pem")
		if !ok || !pem || !isGeneration(selector, s.base) {
			continue
		}
		k := old.unchanged(s.domain.name, selector, f)
		if k == nil {
			var err error
			if k, err = dkimkey.Load(dir, s.domain.name, selector); err != nil {
				return err
			}
		}
		s.keys = append(s.keys, &generation{Key: k})
	}
	if len(s.keys) == 0 {
		_, err := dkimkey.Load(dir, s.domain.name, s.base) // says what is wrong, and what to do
		if err == nil {
			err = fmt.Errorf("there is no key for %s", s.domain.name)
		}
		return err
	}
	// The base comes first; the others sort by the day in their names.
	slices.SortFunc(s.keys, func(a, b *generation) int { return strings.Compare(b.Selector, a.Selector) })
	return nil
}

// unchanged is the key that was read from a file, if the file is as it was then.
func (r *ring) unchanged(d mail.Domain, selector string, f os.DirEntry) *dkimkey.Key {
	if r == nil || r.domains[d] == nil {
		return nil
	}
	for _, s := range r.domains[d].slots {
		for _, g := range s.keys {
			if g.Selector != selector {
				continue
			}
			if fi, err := f.Info(); err == nil && fi.ModTime().Equal(g.Written) {
				return g.Key
			}
		}
	}
	return nil
}

// active is the key to sign with: the latest that the DNS shows, else the first.
func (s *slot) active() *generation {
	for _, g := range s.keys {
		if s.shows(g) == dkimkey.Published {
			return g
		}
	}
	return s.keys[len(s.keys)-1]
}

// shows is what the DNS has of a key. Where it does not answer, what it had before counts;
// Unasked: nothing is known.
func (s *slot) shows(g *generation) dkimkey.Presence {
	if s.domain.asks && g.dns != dkimkey.Unasked && g.dns != dkimkey.Unknown {
		return g.dns
	}
	switch e := s.domain.history.of(g.Key); {
	case s.domain.asks && e.Gone != nil:
		return dkimkey.Missing
	case e.Published != nil:
		return dkimkey.Published
	}
	return dkimkey.Unasked
}

// signing are the slots that make a signature: not those whose key the DNS lacks. One of which
// nothing is known signs unless there is another, so that one that is added waits for the DNS.
func (d *domain) signing() []*slot {
	var shown, unknown []*slot
	for _, s := range d.slots {
		switch s.shows(s.active()) {
		case dkimkey.Published:
			shown = append(shown, s)
		case dkimkey.Unasked:
			unknown = append(unknown, s)
		}
	}
	if len(shown) > 0 {
		return shown
	}
	return unknown
}

// lacking says why nothing is signed.
func (d *domain) lacking() string {
	names := make([]string, len(d.slots))
	for i, s := range d.slots {
		names[i] = s.active().Name()
	}
	return "the DNS does not have our key under " + strings.Join(names, ", ")
}

// unknown are the slots of which nothing is known of the DNS.
func (r *ring) unknown() []*slot {
	return slices.DeleteFunc(slices.Clone(r.slots), func(s *slot) bool { return s.shows(s.active()) != dkimkey.Unasked })
}

// fresh is how long a key that the DNS lacks is one that the admin is about to publish.
const fresh = 24 * time.Hour

// awaits reports whether the DNS is about to show a key.
func (r *ring) awaits(now time.Time) bool {
	return slices.ContainsFunc(r.slots, func(s *slot) bool {
		latest := s.keys[0]
		return s.shows(latest) != dkimkey.Published && now.Sub(latest.Written) < fresh
	})
}

// waiting are the keys that are later than the active one: their records are not there yet.
func (s *slot) waiting() []*generation { return s.keys[:slices.Index(s.keys, s.active())] }

// superseded are the keys that are earlier than the active one.
func (s *slot) superseded() []*generation { return s.keys[slices.Index(s.keys, s.active())+1:] }

// age is how long the latest key has been in use, or there.
func (s *slot) age(now time.Time) time.Duration {
	if p := s.domain.history.of(s.keys[0].Key).Published; p != nil {
		return now.Sub(*p)
	}
	return now.Sub(s.keys[0].Written)
}

// signers are the keys to sign with for an author's domain: those of the domain itself, or of the
// nearest one above it: the signature is aligned with From in DMARC's relaxed mode either
// way (RFC 9989 §4.4). It returns nil if there is no such domain, and no keys where the DNS lacks them.
func (r *ring) signers(author mail.Domain) (*domain, []*dkimkey.Key) {
	for name := author.String(); name != ""; {
		d, err := mail.ParseDomain(name)
		if err == nil {
			if found := r.domains[d]; found != nil {
				var keys []*dkimkey.Key
				for _, s := range found.signing() {
					keys = append(keys, s.active().Key)
				}
				return found, keys
			}
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return nil, nil
}
