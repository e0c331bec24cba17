package dmarc

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Resolver asks the DNS. An error that is a *net.DNSError with IsNotFound says that there is
// no such record; every other error, that it could not be found out.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	// Exists reports whether a name exists, with records of whatever type or without
	// (RFC 8020).
	Exists(ctx context.Context, name string) (bool, error)
}

// maxQueries of a walk (RFC 9989 §4.10).
const maxQueries = 8

// Evaluator evaluates one message. It remembers what it asked; it is not for concurrent use.
type Evaluator struct {
	r     Resolver
	asked map[string]answer
}

type answer struct {
	rec *Record
	err error
}

// New returns an Evaluator.
func New(r Resolver) *Evaluator { return &Evaluator{r: r, asked: make(map[string]answer)} }

// noAnswer is an error of the DNS. Its text goes into headers of messages, where the names of
// our servers have no place.
type noAnswer struct{ err error }

func (noAnswer) Error() string   { return "the DNS does not answer" }
func (n noAnswer) Unwrap() error { return n.err }

// lookup returns the one record at a domain; nil if there is none.
func (e *Evaluator) lookup(ctx context.Context, domain string) (*Record, error) {
	if a, ok := e.asked[domain]; ok {
		return a.rec, a.err
	}
	var a answer
	txts, err := e.r.LookupTXT(ctx, "_dmarc."+domain)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		err = nil
	}
	if err != nil {
		a.err = noAnswer{err}
	}
	n := 0
	for _, t := range txts {
		if rec, ok := Parse(t); ok {
			n++
			a.rec = rec
		}
	}
	if n > 1 || err != nil {
		a.rec = nil
	}
	e.asked[domain] = a
	return a.rec, a.err
}

// step is a name of a walk that has a record.
type step struct {
	domain string
	rec    *Record
}

// names are those that a walk from a domain asks for, the longest first.
func names(domain string) []string {
	out := []string{domain}
	labels := strings.Count(domain, ".") + 1
	rest := domain
	for {
		_, parent, found := strings.Cut(rest, ".")
		if !found {
			return out
		}
		labels--
		if rest = parent; labels < maxQueries {
			out = append(out, rest)
		}
	}
}

// walk returns the records found from a domain upwards.
func (e *Evaluator) walk(ctx context.Context, domain string) ([]step, error) {
	var steps []step
	for _, name := range names(domain) {
		rec, err := e.lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			continue
		}
		steps = append(steps, step{name, rec})
		if rec.PSD != 'u' {
			break
		}
	}
	return steps, nil
}

// organizational selects the organizational domain from the records of a walk (RFC 9989
// §4.10.2).
func organizational(domain string, steps []step) string {
	for _, s := range steps {
		if s.rec.PSD == 'n' {
			return s.domain
		}
		if s.rec.PSD == 'y' && s.domain != domain {
			return below(domain, s.domain)
		}
	}
	if len(steps) > 0 {
		return steps[len(steps)-1].domain
	}
	return domain
}

// below is the name one label longer than parent on the way to domain.
func below(domain, parent string) string {
	rest := strings.TrimSuffix(domain, "."+parent)
	return rest[strings.LastIndexByte(rest, '.')+1:] + "." + parent
}

// Organizational returns the organizational domain of a domain.
func (e *Evaluator) Organizational(ctx context.Context, domain mail.Domain) (mail.Domain, error) {
	steps, err := e.walk(ctx, domain.String())
	if err != nil {
		return mail.Domain{}, err
	}
	return mail.ParseDomain(organizational(domain.String(), steps))
}

// Aligned reports whether two domains are aligned: the same, or, unless strict, with the same
// organizational domain.
func (e *Evaluator) Aligned(ctx context.Context, author, other mail.Domain, strict bool) (bool, error) {
	if author.IsZero() || other.IsZero() {
		return false, nil
	}
	if author == other {
		return true, nil
	}
	if _, literal := author.Literal(); literal || strict {
		return false, nil
	}
	org, err := e.Organizational(ctx, author)
	if err != nil || !other.Under(org) {
		return false, err
	}
	otherOrg, err := e.Organizational(ctx, other)
	return otherOrg == org, err
}
