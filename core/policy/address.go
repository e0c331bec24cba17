package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// AddressRule allows or refuses addresses. A pattern is "user@example.com", "example.com", or
// "*.example.com" (every name below it). To allow gives no right to relay.
type AddressRule struct {
	Match  []string
	Reject bool
	Text   string // of the refusal; empty: a standard one
}

// addressRule is an AddressRule with its patterns parsed.
type addressRule struct {
	AddressRule
	addresses map[mail.Path]bool
	domains   map[mail.Domain]bool
	below     []mail.Domain
}

func compile(rules []AddressRule) ([]addressRule, error) {
	out := make([]addressRule, len(rules))
	for i, r := range rules {
		c := addressRule{AddressRule: r, addresses: make(map[mail.Path]bool), domains: make(map[mail.Domain]bool)}
		for _, m := range r.Match {
			if err := c.add(m); err != nil {
				return nil, fmt.Errorf("%q: %w", m, err)
			}
		}
		out[i] = c
	}
	return out, nil
}

func (r *addressRule) add(pattern string) error {
	if strings.Contains(pattern, "@") {
		p, err := mail.ParsePath(pattern)
		r.addresses[p.Fold()] = true
		return err
	}
	name, below := strings.CutPrefix(pattern, "*.")
	d, err := mail.ParseDomain(name)
	if below {
		r.below = append(r.below, d)
	} else {
		r.domains[d] = true
	}
	return err
}

// match returns the first rule for an address; none matches the null reverse-path, which
// has to be taken (RFC 5321 §6.1).
func match(rules []addressRule, p mail.Path) *addressRule {
	if p.IsZero() {
		return nil
	}
	for i := range rules {
		r := &rules[i]
		if r.addresses[p.Fold()] || r.domains[p.Domain] {
			return r
		}
		for _, d := range r.below {
			if p.Domain != d && p.Domain.Under(d) {
				return r
			}
		}
	}
	return nil
}

// contains reports whether one of the networks has the address; a mapped IPv4 address is
// the IPv4 address.
func contains(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
