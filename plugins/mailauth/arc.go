package mailauth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/arcchain"
	"github.com/postern-mail/postern/plugins/internal/authres"
	"github.com/postern-mail/postern/sdk/mail"
)

// checkARC validates the chain. Where it takes longer than it may, its state is unknown.
func (p *Plugin) checkARC(ctx context.Context, m *mail.Message) (*arcchain.Chain, error) {
	if !m.Header.Has("ARC-Seal") && !m.Header.Has("ARC-Message-Signature") && !m.Header.Has(authres.ARCFieldName) {
		return &arcchain.Chain{State: arcchain.None}, nil
	}
	v, err := arcchain.New(arcchain.Options{Resolver: limit(p.resolver, arcLookups), LookupTime: p.timeout})
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, p.timeout+time.Second) // keys are looked up one after the other
	defer cancel()
	c, err := v.Validate(limited, m)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return &arcchain.Chain{State: arcchain.Fail, Unknown: true, Reason: "the DNS does not answer in time"}, nil
	}
	return c, err
}

func (f *facts) arcResult() authres.Result {
	r := authres.Result{Method: "arc", Value: string(f.arc.State), Reason: f.arc.Reason}
	if n := len(f.arc.Sets); n > 0 {
		r.Comment = fmt.Sprintf("i=%d, sealed by %s", f.arc.Instances, f.arc.Last().Domain)
	}
	if f.arc.State == arcchain.Pass {
		r.Add("header", "oldest-pass", fmt.Sprint(f.arc.OldestPass))
	}
	if f.client.Addr.IsValid() {
		r.Add("smtp", "remote-ip", f.client.Addr.Unmap().String())
	}
	return r
}

// arcValue is the note: the chain's state, and temperror where it is not known.
func (f *facts) arcValue() string {
	if f.arc.Unknown {
		return "temperror"
	}
	return string(f.arc.State)
}

// vouchedFor says which trusted sealer saw DMARC pass for the author, before the message was
// changed. Of the sealers at the end of a chain that holds all those that are trusted are
// believed in turn; the first of them says what it received (RFC 8617 §7.2).
func (p *Plugin) vouchedFor(f *facts, author mail.Domain) (mail.Domain, bool) {
	if f.arc.State != arcchain.Pass {
		return mail.Domain{}, false
	}
	var first *arcchain.Set
	for i := len(f.arc.Sets) - 1; i >= 0 && slices.Contains(p.policy.sealers, f.arc.Sets[i].Domain); i-- {
		first = &f.arc.Sets[i]
	}
	if first == nil {
		return mail.Domain{}, false
	}
	h, err := authres.ParseARC(first.Results)
	if err != nil {
		return mail.Domain{}, false
	}
	passed := false
	for _, r := range h.Results {
		if r.Method != "dmarc" {
			continue
		}
		from, err := mail.ParseDomain(strings.TrimSpace(r.Get("header", "from")))
		if r.Value != "pass" || err != nil || from != author {
			continue
		}
		passed = true
	}
	return first.Domain, passed
}
