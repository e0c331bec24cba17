// Package spf evaluates the Sender Policy Framework (RFC 7208).
//
// Check is the function check_host() of RFC 7208 §4: a record is parsed whole before any of it
// is evaluated, so that a syntax error anywhere in it is a permerror, whoever the client is.
// Queries are bounded: 10 terms that ask the DNS, 2 of them in vain, 10 hosts of an MX term,
// 10 names of a client, and what the resolver and the context allow. The package
// keeps nothing between checks, and decides nothing about the message.
package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Result of a check (RFC 7208 §2.6).
type Result string

// The results.
const (
	None      Result = "none"
	Neutral   Result = "neutral"
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// Resolver asks the DNS. An error that is a *net.DNSError with IsNotFound says that there is
// no such name or record; one that wraps ErrTooMuch is a permerror; any other is temporary.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ErrTooMuch is what a resolver returns that will not ask any more for this check.
var ErrTooMuch = errors.New("too many look-ups")

// Query is what is checked.
type Query struct {
	IP   netip.Addr // of the client
	Helo string     // as the client said it
	// Local and Domain of the reverse-path; both empty for the null reverse-path, for which
	// the HELO identity is checked (RFC 7208 §2.4).
	Local, Domain string
	// Explain asks for the explanation of a fail, which costs a look-up.
	Explain bool
	// Receiver is the name of the host that checks, for explanations.
	Receiver string
	// Now is for explanations; zero: the current time.
	Now time.Time
}

// Outcome is the answer.
type Outcome struct {
	Result Result
	// Domain that was checked; "" where there was none.
	Domain string
	// Mechanism that decided, as it stands in the record; "" if none did.
	Mechanism string
	// Err says why there is no answer (temperror, permerror, none).
	Err error
	// Explanation is the domain's text for a fail, from a stranger; "" if it has none.
	Explanation string
}

// Limits of RFC 7208 §4.6.4, and on sizes.
const (
	maxTerms     = 10
	maxVoid      = 2
	maxMX        = 10
	maxNames     = 10
	maxRecord    = 16 << 10 // bytes of a record
	maxExpansion = 16 << 10 // bytes of an expanded macro-string
)

// Check evaluates the policy of q's domain.
func Check(ctx context.Context, r Resolver, q Query) Outcome {
	q.IP = q.IP.Unmap()
	domain := q.Domain
	if domain == "" && q.Local == "" {
		domain = q.Helo
	}
	domain = strings.TrimSuffix(domain, ".")
	e := &evaluation{ctx: ctx, r: r, q: q, sender: domain}
	if q.Local == "" {
		e.q.Local = "postmaster" // RFC 7208 §4.3
	}
	o := Outcome{Domain: domain}
	if !q.IP.IsValid() {
		o.Result, o.Err = None, errors.New("the client has no address")
		return o
	}
	if !multiLabel(domain) {
		o.Result, o.Err = None, errors.New("not a domain name")
		return o
	}
	o.Result, o.Mechanism, o.Err = e.check(domain)
	if o.Result == TempError {
		o.Err = noAnswer{o.Err}
	}
	if o.Result == Fail && e.exp != "" && q.Explain {
		o.Explanation = e.explain()
	}
	return o
}

// evaluation is one call of Check.
type evaluation struct {
	ctx    context.Context
	r      Resolver
	q      Query
	sender string // domain of <sender>

	terms, voids int
	names        []string // validated names of the client
	named        bool

	exp, expDomain string // explanation of the record that decided, and its <domain>
}

// check is check_host for one domain; it calls itself for include and redirect.
func (e *evaluation) check(domain string) (Result, string, error) {
	text, err := e.record(domain)
	if err != nil {
		return resultOf(err), "", err
	}
	rec, err := parse(text)
	if err != nil {
		return PermError, "", err
	}
	for _, t := range rec.terms {
		matched, err := e.matches(t, domain)
		if err != nil {
			return resultOf(err), t.text, err
		}
		if matched {
			e.exp, e.expDomain = rec.exp, domain
			return t.result, t.text, nil
		}
	}
	if rec.redirect == "" {
		return Neutral, "", nil
	}
	if err := e.count(); err != nil {
		return PermError, "redirect", err
	}
	target, err := e.target(rec.redirect, domain)
	if err != nil {
		return PermError, "redirect", err
	}
	result, mechanism, err := e.check(target)
	if result == None { // RFC 7208 §6.1
		return PermError, "redirect", fmt.Errorf("redirect to %.80q, which has no policy", target)
	}
	return result, mechanism, err
}

// Errors that decide the result.
var (
	errNone = errors.New("no policy")
	errPerm = errors.New("wrong policy")
)

// noAnswer is an error of the DNS. Its text goes into headers of messages, where the names of
// our servers have no place.
type noAnswer struct{ err error }

func (noAnswer) Error() string   { return "the DNS does not answer" }
func (n noAnswer) Unwrap() error { return n.err }

func permanent(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errPerm}, args...)...)
}

func resultOf(err error) Result {
	switch {
	case errors.Is(err, errNone):
		return None
	case errors.Is(err, errPerm) || errors.Is(err, ErrTooMuch):
		return PermError
	}
	return TempError
}

func notFound(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// record returns the one policy of a domain (RFC 7208 §4.4, §4.5).
func (e *evaluation) record(domain string) (string, error) {
	txts, err := e.r.LookupTXT(e.ctx, domain)
	if err != nil && !notFound(err) {
		return "", err
	}
	found, policy := 0, ""
	for _, t := range txts {
		if len(t) >= 6 && strings.EqualFold(t[:6], "v=spf1") && (len(t) == 6 || t[6] == ' ') {
			found++
			policy = t
		}
	}
	switch {
	case found == 0:
		return "", errNone
	case found > 1:
		return "", permanent("%d policies", found)
	case len(policy) > maxRecord:
		return "", permanent("the policy has %d bytes", len(policy))
	}
	return policy, nil
}

// count counts a term that asks the DNS.
func (e *evaluation) count() error {
	if e.terms++; e.terms > maxTerms {
		return permanent("more than %d terms ask the DNS", maxTerms)
	}
	return nil
}

// void counts an answer without records.
func (e *evaluation) void() error {
	if e.voids++; e.voids > maxVoid {
		return permanent("more than %d look-ups in vain", maxVoid)
	}
	return nil
}

// under reports whether name is domain or below it.
func under(name, domain string) bool {
	name, domain = strings.ToLower(name), strings.ToLower(strings.TrimSuffix(domain, "."))
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// wellFormed reports whether a name can be asked for: labels of 1 to 63 octets.
func wellFormed(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// multiLabel reports whether a policy can be looked for at name (RFC 7208 §4.3).
func multiLabel(name string) bool {
	return wellFormed(name) && strings.Contains(name, ".") && !strings.ContainsAny(name, "[]:/@ ")
}
