package dkim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

// retiredDir is the folder, beside the keys, that those go to which nothing is signed with
// any more.
const retiredDir = "retired"

// next makes the next key of a slot, of the kind of its latest.
func (s *slot) next(dir string, now time.Time) (string, Record, error) {
	algorithm := "rsa"
	if s.keys[0].Algorithm == dkimsig.Ed25519 {
		algorithm = "ed25519"
	}
	day := s.base + now.UTC().Format("-20060102")
	for _, letter := range "\x00abcdefghijklmnopqrstuvwxyz" {
		selector := day
		if letter != 0 {
			selector += string(letter)
		}
		// No selector is ever used for two keys: caches of the DNS keep the first.
		if !free(dir, s.domain, selector) {
			continue
		}
		return dkimkey.Generate(dir, s.domain.name, selector, algorithm)
	}
	return "", Record{}, fmt.Errorf("%s has had enough keys today", s.domain.name)
}

func free(dir string, d *domain, selector string) bool {
	for _, where := range []string{dir, filepath.Join(dir, retiredDir)} {
		if _, err := os.Lstat(dkimkey.File(where, d.name, selector)); !errors.Is(err, os.ErrNotExist) {
			return false
		}
	}
	return d.history[selector] == nil
}

// keeper does what has to be done as time passes. One works at a time.
type keeper struct {
	s        checked
	resolver dkimsig.Resolver
	now      func() time.Time
	log      *slog.Logger
	said     map[string]time.Time // warnings, and when
}

// repeat is how often a warning is given while its reason lasts.
const repeat = 6 * time.Hour

// warn says something the first time and then now and then.
func (k *keeper) warn(message, name string, args ...any) {
	key := message + " " + name
	if last, ok := k.said[key]; ok && k.now().Sub(last) < repeat {
		return
	}
	k.said[key] = k.now()
	k.log.Warn(message, append([]any{"name", name}, args...)...)
}

// round reads the keys, looks what the DNS has, and does what is due. It returns the ring
// to sign with from now on.
func (k *keeper) round(ctx context.Context, old *ring) (*ring, error) {
	r, err := load(k.s, old)
	if err != nil {
		return nil, err
	}
	for name, d := range r.domains {
		d.history.remember(old, name)
	}
	look(ctx, k.resolver, r.slots)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, s := range r.slots {
		s.keepPublished(k, old)
	}
	var errs []error
	for _, d := range r.domains {
		errs = append(errs, k.keep(ctx, d))
	}
	return r, errors.Join(errs...)
}

// keepPublished signs on with the key that was read before, where the file has another now
// which the DNS does not show under the same selector.
func (s *slot) keepPublished(k *keeper, old *ring) {
	for _, g := range s.keys {
		before := old.find(g.Key)
		if before == nil || dkimkey.Same(before.Signer.Public(), g.Signer.Public()) {
			continue
		}
		k.warn("the file of a dkim key has another key now: selectors are for one key, make a new one with postern dkim rotate", g.Name(), "file", g.Path)
		if g.dns != dkimkey.Published && before.dns == dkimkey.Published {
			g.Key, g.dns = before.Key, dkimkey.Published // the file is read again in the next round
		}
	}
}

func (r *ring) find(k *dkimkey.Key) *generation {
	if r == nil || r.domains[k.Domain] == nil {
		return nil
	}
	for _, s := range r.domains[k.Domain].slots {
		for _, g := range s.keys {
			if g.Selector == k.Selector {
				return g
			}
		}
	}
	return nil
}

// keep brings a domain's history up to date, retires keys and makes new ones.
func (k *keeper) keep(ctx context.Context, d *domain) error {
	changed := false
	for _, s := range d.slots {
		changed = k.note(s) || changed
		retired, err := k.retire(s)
		if err != nil {
			return err
		}
		changed = retired || changed
		if err := k.renew(s); err != nil {
			return err
		}
	}
	changed = k.forget(ctx, d) || changed
	if changed {
		return d.history.write(k.s.dir, d.name)
	}
	return nil
}

// note records what the DNS shows, and warns of what it does not.
func (k *keeper) note(s *slot) (changed bool) {
	now := k.now()
	h := s.domain.history
	for _, g := range s.keys {
		e := h[g.Selector]
		if e == nil || e.Fingerprint != fingerprint(g.Key) {
			if e != nil && e.Retired == nil {
				k.warn("the file of a dkim key has another key than it had: selectors are for one key, make a new one with postern dkim rotate", g.Name(), "file", g.Path)
			}
			e = &event{Fingerprint: fingerprint(g.Key)}
			h[g.Selector], changed = e, true
		}
		switch g.dns {
		case dkimkey.Published:
			if e.Published == nil {
				e.Published, changed = &now, true
				k.log.Info("the dns shows a dkim key", "name", g.Name())
			}
			if e.Gone != nil {
				e.Gone, changed = nil, true
				k.log.Info("the dns shows a dkim key that it lacked", "name", g.Name())
			}
		case dkimkey.Missing, dkimkey.Different:
			if e.Gone == nil {
				e.Gone, changed = &now, true
			}
		}
	}
	active := s.active()
	if e := h[active.Selector]; e.Superseded != nil { // it is back
		e.Superseded, changed = nil, true
	}
	for _, g := range s.superseded() {
		if e := h[g.Selector]; e.Superseded == nil && active.dns == dkimkey.Published {
			e.Superseded, changed = &now, true
			k.log.Info("signing with a new dkim key", "name", active.Name(), "instead_of", g.Name(), "overlap", k.s.overlap.String())
		}
	}
	for _, g := range append(s.waiting(), active) {
		if g == active && len(s.domain.signing()) == 0 {
			k.warn("mail is not signed until the dns has the dkim key: publish what postern dkim status prints", g.Name(), "dns", g.dns.String())
			continue
		}
		switch g.dns {
		case dkimkey.Missing:
			k.warn("the dns does not have a dkim key: publish what postern dkim status prints", g.Name())
		case dkimkey.Different:
			k.warn("the dns has another dkim key than the file: publish what postern dkim status prints", g.Name(), "file", g.Path)
		}
	}
	return changed
}

// retire moves keys away whose overlap is over. Mail that they signed may be looked at
// until then, by servers that come to it late.
func (k *keeper) retire(s *slot) (changed bool, err error) {
	for _, g := range s.superseded() {
		e := s.domain.history[g.Selector]
		if e.Superseded == nil || k.now().Sub(*e.Superseded) < k.s.overlap || s.active().dns != dkimkey.Published {
			continue
		}
		if err := move(k.s.dir, g.Key); err != nil {
			return changed, fmt.Errorf("retiring %s: %w", g.Path, err)
		}
		now := k.now()
		e.Retired, changed = &now, true
		k.log.Warn("a dkim key is retired: its record can be removed from the dns", "name", g.Name(), "file", filepath.Join(k.s.dir, retiredDir, filepath.Base(g.Path)))
		s.keys = remove(s.keys, g)
	}
	return changed, nil
}

func remove(all []*generation, g *generation) []*generation {
	var out []*generation
	for _, o := range all {
		if o != g {
			out = append(out, o)
		}
	}
	return out
}

func move(dir string, k *dkimkey.Key) error {
	to := filepath.Join(dir, retiredDir)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	if err := os.Rename(k.Path, filepath.Join(to, filepath.Base(k.Path))); err != nil {
		return err
	}
	return errors.Join(dkimkey.SyncDir(to), dkimkey.SyncDir(dir))
}

// renew makes the next key of a slot whose latest is old enough.
func (k *keeper) renew(s *slot) error {
	if k.s.rotateAfter == 0 || len(s.waiting()) > 0 || s.active().dns != dkimkey.Published || s.age(k.now()) < k.s.rotateAfter {
		return nil
	}
	path, record, err := s.next(k.s.dir, k.now())
	if err != nil {
		return fmt.Errorf("making the next key of %s: %w", s.domain.name, err)
	}
	k.log.Warn("a new dkim key is there: publish its record, then it is used", "file", path, "record", record.Zone())
	return nil
}

// forget drops retired keys whose records are gone, and reminds of the others.
func (k *keeper) forget(ctx context.Context, d *domain) (changed bool) {
	for selector, e := range d.history {
		if e.Retired == nil {
			continue
		}
		name := selector + "._domainkey." + d.name.String()
		if _, err := dkimkey.Ask(ctx, k.resolver, name); errors.Is(err, dkimsig.ErrNoKey) || errors.Is(err, dkimsig.ErrRevoked) {
			k.log.Info("the record of a retired dkim key is gone", "name", name)
			delete(d.history, selector)
			changed = true
		} else if !errors.Is(err, dkimsig.ErrDNS) {
			k.warn("the dns still has a dkim key that is retired: its record can be removed", name)
		}
	}
	return changed
}

// domainOf parses the name of a domain that has keys in the ring.
func (r *ring) domainOf(name mail.Domain) (*domain, error) {
	if d := r.domains[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%s is not in the settings of the plugin dkim", name)
}
