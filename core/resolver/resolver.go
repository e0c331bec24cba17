// Package resolver asks the DNS on behalf of everything else in Postern.
//
// It promises answers that tell "there is no such name" and "the name has no such
// records" from "ask again later": only the first two may ever make mail bounce
// (RFC 5321 §5.1). Every wait has a deadline, every chain, answer and cache a bound. Names
// in answers are lower case and without a trailing dot; the root, as in a null MX, is ".".
//
// It knows nothing of mail policy: which addresses may be dialled is the caller's matter.
// Nothing is durable. A [DNS] is safe for concurrent use.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// MX is one mail exchanger of a domain (RFC 5321 §5.1).
type MX struct {
	Host       string // "." in a null MX (RFC 7505)
	Preference uint16
}

// Resolver answers questions. Every error wraps exactly one of ErrNotFound, ErrNoData and
// ErrTemporary. An answer without an error has at least one element.
type Resolver interface {
	// LookupMX returns the exchangers of a domain, in no particular order. A domain
	// without MX records is ErrNoData, also where it has addresses.
	LookupMX(ctx context.Context, domain string) ([]MX, error)
	// LookupAddrs returns the addresses of a host, those of IPv4 first. The text of an
	// address is that address.
	LookupAddrs(ctx context.Context, host string) ([]netip.Addr, error)
	// LookupPTR returns the name of an address, a host name, see [IsHostName], and whether it is
	// verified: leads back to the address. Of several names it is the first that does, else the
	// first: anybody's word. ErrTemporary also says that none is verified and one may yet be.
	LookupPTR(ctx context.Context, addr netip.Addr) (name string, verified bool, err error)
}

// The kinds of failure.
var (
	// ErrNotFound says that the name does not exist (NXDOMAIN).
	ErrNotFound = errors.New("no such name")
	// ErrNoData says that the name exists and has no records of the kind.
	ErrNoData = errors.New("no such records")
	// ErrTemporary says that nothing is known: timeout, SERVFAIL, REFUSED, an answer that
	// makes no sense. Never a reason to bounce.
	ErrTemporary = errors.New("temporary failure")
)

// Error is what a [DNS] returns: what was asked and which kind of failure it was.
type Error struct {
	Name   string
	Type   string // "MX", "A", ...
	Kind   error  // ErrNotFound, ErrNoData or ErrTemporary
	Detail string // for people; may be empty
}

// Error says what was asked and what went wrong.
func (e *Error) Error() string {
	s := fmt.Sprintf("DNS %s %s: %v", e.Type, e.Name, e.Kind)
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Bogus is an address that stands for no host (it is not valid in an answer).
func bogus(a netip.Addr) bool { return !a.IsValid() || a.Zone() != "" }
