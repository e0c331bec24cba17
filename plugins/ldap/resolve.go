package ldap

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/plugins/internal/failover"
	"github.com/postern-mail/postern/sdk/mail"
)

// Bounds of an answer.
const (
	maxEntries = 20   // for one address
	maxTargets = 1000 // of a group, with those in it
	maxDepth   = 5    // groups in groups
	searchTime = 30   // seconds, for the server; ctx ends sooner
)

// errTooMuch is an answer that cannot be given whole.
var errTooMuch = errors.New("a group has too many members, or there are too many groups in each other")

// search returns the entries for an address.
func (p *Plugin) search(ctx context.Context, s *server, f filter, address mail.Path) ([]*goldap.Entry, error) {
	r := goldap.NewSearchRequest(p.s.Base, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, maxEntries, searchTime, false, f.about(address), p.s.attributes(), nil)
	r.EnforceSizeLimit = true
	found, err := s.search(ctx, r)
	if goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded) || errors.Is(err, goldap.ErrSizeLimitExceeded) {
		return nil, failover.Stop(errors.New("filter finds too many entries for an address"))
	}
	if err != nil {
		return nil, err
	}
	return found.Entries, nil // RFC 4511 §4.5.3: references to other servers are not followed
}

// resolve asks for the address, and where there is none for it without its tag.
func (p *Plugin) resolve(ctx context.Context, s *server, address mail.Path) ([]mail.Path, error) {
	entries, err := p.search(ctx, s, p.filter, address)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 && p.s.Delimiter != "" {
		plain, _, tagged := strings.Cut(address.Local, p.s.Delimiter)
		if !tagged || plain == "" {
			return nil, nil
		}
		address.Local = plain
		if entries, err = p.search(ctx, s, p.filter, address); err != nil {
			return nil, err
		}
	}
	e := &expansion{p: p, s: s, address: address, seen: make(map[string]bool)}
	for _, entry := range entries {
		if err := e.entry(ctx, entry, 0); err != nil {
			return nil, err
		}
	}
	return e.targets, nil
}

// expansion collects the addresses that entries stand for.
type expansion struct {
	p       *Plugin
	s       *server
	address mail.Path
	seen    map[string]bool // names of entries
	targets []mail.Path
}

// entry adds what an entry stands for: the members of a group, where mail is sent on to, or else
// its own address.
func (e *expansion) entry(ctx context.Context, entry *goldap.Entry, depth int) error {
	name := strings.ToLower(entry.DN)
	if e.seen[name] {
		return nil
	}
	if e.seen[name] = true; len(e.seen) > maxTargets || depth > maxDepth {
		return failover.Stop(errTooMuch)
	}
	if partial(entry) {
		return failover.Stop(errTooMuch) // the server gives members in parts, as Active Directory does of many
	}
	group := e.p.isGroup(entry)
	for _, attr := range e.p.s.MemberAddresses {
		for _, v := range entry.GetEqualFoldAttributeValues(attr) {
			group = true
			if err := e.add(entry, v); err != nil {
				return err
			}
		}
	}
	for _, attr := range e.p.s.Members {
		for _, dn := range entry.GetEqualFoldAttributeValues(attr) {
			group = true
			if err := e.member(ctx, dn, depth); err != nil {
				return err
			}
		}
	}
	forwards := false
	for _, attr := range e.p.s.Forward {
		for _, v := range entry.GetEqualFoldAttributeValues(attr) {
			forwards = true
			if err := e.add(entry, v); err != nil {
				return err
			}
		}
	}
	if own := e.p.own(entry, e.address); !group && !forwards && !own.IsZero() {
		return e.target(own)
	}
	return nil
}

// member adds what a member of a group stands for. One that is not there is left out.
func (e *expansion) member(ctx context.Context, dn string, depth int) error {
	if e.seen[strings.ToLower(dn)] {
		return nil
	}
	r := goldap.NewSearchRequest(dn, goldap.ScopeBaseObject, goldap.NeverDerefAliases, 1, searchTime, false, "(objectClass=*)", e.p.s.attributes(), nil)
	r.EnforceSizeLimit = true
	found, err := e.s.search(ctx, r)
	if goldap.IsErrorAnyOf(err, goldap.LDAPResultNoSuchObject, goldap.LDAPResultInvalidDNSyntax) {
		slog.Warn("member of a group is not there", "member", clip(dn))
		return nil
	} else if err != nil {
		return err
	}
	for _, entry := range found.Entries {
		if err := e.entry(ctx, entry, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// add adds an address as an attribute has it.
func (e *expansion) add(entry *goldap.Entry, value string) error {
	t, err := mail.ParsePath(strings.TrimSpace(value))
	if err != nil || t.IsZero() || t.Domain.IsZero() {
		slog.Warn("value is no address", "entry", clip(entry.DN), "value", clip(value))
		return nil
	}
	return e.target(t)
}

// clip bounds what people have written into a directory for the log.
func clip(s string) string { return s[:min(len(s), 200)] }

func (e *expansion) target(t mail.Path) error {
	if slices.ContainsFunc(e.targets, func(o mail.Path) bool { return o.Fold() == t.Fold() }) {
		return nil
	}
	if e.targets = append(e.targets, t); len(e.targets) > maxTargets {
		return failover.Stop(errTooMuch)
	}
	return nil
}

// own is an entry's own address, the zero Path if it has none: of several one in the domain that
// was asked for, the first in the order of the alphabet, for a server may give them in any.
func (p *Plugin) own(entry *goldap.Entry, address mail.Path) mail.Path {
	var best mail.Path
	for _, v := range entry.GetEqualFoldAttributeValues(p.s.Address) {
		a, err := mail.ParsePath(strings.TrimSpace(v))
		if err != nil || a.IsZero() || a.Domain.IsZero() {
			continue
		}
		a = a.Fold()
		here, bestHere := a.Domain == address.Domain, best.Domain == address.Domain
		if best.IsZero() || here && !bestHere || here == bestHere && a.String() < best.String() {
			best = a
		}
	}
	return best
}

func (p *Plugin) isGroup(entry *goldap.Entry) bool {
	return slices.ContainsFunc(entry.GetEqualFoldAttributeValues("objectClass"), func(class string) bool {
		return slices.ContainsFunc(p.s.Groups, func(g string) bool { return strings.EqualFold(g, class) })
	})
}

// partial reports whether an entry has only some values of an attribute.
func partial(entry *goldap.Entry) bool {
	return slices.ContainsFunc(entry.Attributes, func(a *goldap.EntryAttribute) bool {
		return strings.Contains(strings.ToLower(a.Name), ";range=")
	})
}
