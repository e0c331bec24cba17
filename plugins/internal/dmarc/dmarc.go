package dmarc

import (
	"context"
	"fmt"

	"github.com/postern-mail/postern/sdk/mail"
)

// Value of a result (RFC 9989 §9.2).
type Value string

// The values.
const (
	NoRecord  Value = "none"
	Pass      Value = "pass"
	Fail      Value = "fail"
	TempError Value = "temperror"
	PermError Value = "permerror"
)

// Identifier is a domain that SPF or DKIM authenticated, or would have if the DNS had
// answered.
type Identifier struct {
	Domain mail.Domain
	DKIM   bool // else SPF
	// Pending says that the DNS did not answer: it may have passed.
	Pending bool
}

// Result is what DMARC says of an author.
type Result struct {
	Value  Value
	Author mail.Domain
	// Record that applies, and the domain that it is of; nil and zero where there is none.
	Record *Record
	Domain mail.Domain
	// Published is the policy that the record has for this author, Policy what remains of
	// it where the domain is testing.
	Published, Policy Policy
	// SPF and DKIM say which of them are aligned and passed.
	SPF, DKIM bool
	// Err says why there is no answer.
	Err error
}

// Evaluate evaluates a message in the name of an author.
func (e *Evaluator) Evaluate(ctx context.Context, author mail.Domain, ids []Identifier) Result {
	res := Result{Value: NoRecord, Author: author, Published: None, Policy: None}
	if err := e.discover(ctx, &res); err != nil {
		res.Value, res.Err = TempError, fmt.Errorf("looking for the policy of %s: %w", author, err)
		return res
	}
	if res.Record == nil {
		return res
	}
	if res.Record.Unusable {
		res.Record, res.Domain = nil, mail.Domain{}
		return res
	}
	var pending error
	for _, id := range ids {
		strict := res.Record.StrictSPF
		if id.DKIM {
			strict = res.Record.StrictDKIM
		}
		aligned, err := e.Aligned(ctx, author, id.Domain, strict)
		switch {
		case err != nil:
			pending = fmt.Errorf("looking for the organizational domains of %s and %s: %w", author, id.Domain, err)
		case aligned && id.Pending:
			pending = fmt.Errorf("%s could not be authenticated", id.Domain)
		case aligned && id.DKIM:
			res.DKIM = true
		case aligned:
			res.SPF = true
		}
	}
	switch {
	case res.SPF || res.DKIM:
		res.Value = Pass
	case pending != nil: // RFC 9989 §5.3.6: neither passed nor failed
		res.Value, res.Err = TempError, pending
	default:
		res.Value = Fail
	}
	return res
}

// discover finds the record that applies (RFC 9989 §4.10.1).
func (e *Evaluator) discover(ctx context.Context, res *Result) error {
	author := res.Author.String()
	if _, literal := res.Author.Literal(); literal {
		return nil
	}
	rec, err := e.lookup(ctx, author)
	if err != nil {
		return err
	}
	if rec != nil {
		res.Record, res.Domain = rec, res.Author
		res.policy(rec.P)
		return nil
	}
	steps, err := e.walk(ctx, author)
	if err != nil || len(steps) == 0 {
		return err
	}
	// The organizational domain's record, else the one of the public suffix above it, which
	// is the last that the walk came to.
	found := steps[len(steps)-1]
	org := organizational(author, steps)
	for _, s := range steps {
		if s.domain == org {
			found = s
		}
	}
	if res.Domain, err = mail.ParseDomain(found.domain); err != nil {
		return err
	}
	res.Record = found.rec
	p := found.rec.P
	if found.rec.SP != "" {
		p = found.rec.SP
	}
	if np := found.rec.NP; np != "" && np != p {
		exists, err := e.r.Exists(ctx, author)
		if err != nil {
			return noAnswer{err}
		}
		if !exists {
			p = np
		}
	}
	res.policy(p)
	return nil
}

func (r *Result) policy(p Policy) {
	r.Published, r.Policy = p, p
	if r.Record.Testing {
		r.Policy = p.below()
	}
}
