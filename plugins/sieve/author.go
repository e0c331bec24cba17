package sieve

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// from adds From: what the script says, or its owner. An address that is not the owner's is ignored, as
// RFC 5230 §4.3 suggests: the message goes out in the gateway's name, and is signed.
func (p *planning) from(m *composed, said string) error {
	name, from := p.display, p.given
	if said != "" {
		a, err := netmail.ParseAddress(said)
		if err != nil {
			return fmt.Errorf("':from' names no address: '%s'", oneLine(said, 100))
		}
		at := strings.LastIndexByte(a.Address, '@')
		path, err := mail.MakePath(a.Address[:at], a.Address[at+1:])
		if err != nil {
			return fmt.Errorf("':from' names no address: '%s'", oneLine(said, 100))
		}
		own, err := p.owns(path)
		if err != nil {
			return err
		}
		if own {
			name, from = a.Name, path
		} else {
			p.plan.Note("':from' is ignored, it is not the owner's: " + oneLine(said, 200))
		}
	}
	value := from.String()
	if name != "" {
		value = encodedPhrase(name) + " <" + value + ">"
	}
	m.add("From", value)
	return nil
}

// owns reports whether the owner may send as an address: as his own, also with a subaddress or at another name of
// the domain, and as what leads to him.
func (p *planning) owns(a mail.Path) (bool, error) {
	a = a.Fold()
	plain := a
	if user, _, found := strings.Cut(a.Local, p.settings.Delimiter); found && user != "" {
		plain.Local = user
	}
	if plain == p.owner || a == p.given.Fold() {
		return true, nil
	}
	known, err := p.host.Lookup(p.ctx, a)
	if errors.Is(err, sdk.ErrNoHost) {
		return false, nil
	} else if err != nil {
		return false, temporary{err}
	}
	return slices.ContainsFunc(known.Targets, func(t mail.Path) bool { return t.Fold() == p.owner }), nil
}
