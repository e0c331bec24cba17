package mailauth

import (
	"fmt"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// decision is what becomes of a message.
type decision struct {
	action sdk.Action
	author mail.Domain // whose policy it is
	// why is the reason for something else than the policy says; "" where it is followed.
	why string
	// override is the type of that reason in aggregate reports (RFC 9990); "" for none.
	override string
	text     string // why it is refused or held
}

// worst is the author's result that asks for most: with several authors the strictest of the
// policies that fail (RFC 9989 §11.5).
func (f *facts) worst() dmarc.Result {
	if f.unclear != nil {
		return dmarc.Result{Value: dmarc.PermError, Policy: dmarc.None, Err: f.unclear}
	}
	if len(f.dmarc) == 0 {
		return dmarc.Result{Value: dmarc.NoRecord, Policy: dmarc.None}
	}
	worst := f.dmarc[0]
	for _, r := range f.dmarc[1:] {
		if rank(r) > rank(worst) {
			worst = r
		}
	}
	return worst
}

func rank(r dmarc.Result) int {
	switch {
	case r.Value == dmarc.Fail && r.Policy == dmarc.Reject:
		return 5
	case r.Value == dmarc.Fail && r.Policy == dmarc.Quarantine:
		return 4
	case r.Value == dmarc.TempError:
		return 3
	case r.Value == dmarc.Fail:
		return 2
	case r.Value == dmarc.NoRecord:
		return 1
	}
	return 0
}

// decide applies the policy, or says why not.
func (p *Plugin) decide(m *mail.Message, f *facts) decision {
	worst := f.worst()
	d := decision{author: worst.Author}
	switch {
	case f.unclear != nil:
		if p.policy.enforce && m.Envelope.Origin != mail.Fetched {
			d.action, d.text = sdk.ActionQuarantine, "DMARC cannot be evaluated: "+f.unclear.Error()
		}
		return d
	case worst.Value == dmarc.TempError && p.policy.tempfail && m.Envelope.Origin != mail.Fetched:
		d.action, d.text = sdk.ActionTempfail, "The DMARC policy of "+worst.Author.String()+" cannot be found out now, try again later"
		return d
	case worst.Value != dmarc.Fail:
		return d
	case worst.Published != worst.Policy:
		d.override = "policy_test_mode"
	}
	if worst.Policy == dmarc.None {
		return d
	}
	if d.why, d.override = p.exempt(m, f, worst.Author); d.why != "" {
		return d
	}
	d.text = fmt.Sprintf("Held by the DMARC policy of %s: neither SPF nor DKIM vouch for it", worst.Author)
	d.action = sdk.ActionQuarantine
	if worst.Policy == dmarc.Reject {
		if p.policy.quarantineRejects {
			d.override = "local_policy"
		} else {
			d.action, d.text = sdk.ActionReject, "Refused"+strings.TrimPrefix(d.text, "Held")
		}
	} else if worst.Published == dmarc.Reject {
		d.override = "policy_test_mode"
	}
	return d
}

// exempt says why a policy is not applied, and the type of that reason.
func (p *Plugin) exempt(m *mail.Message, f *facts, author mail.Domain) (why, override string) {
	if !p.policy.enforce {
		return "not enforced", "local_policy"
	}
	if m.Envelope.Origin == mail.Fetched { // it was accepted elsewhere
		return "fetched", "local_policy"
	}
	for _, d := range p.policy.domains {
		if author.Under(d) {
			return "override for " + d.String(), "local_policy"
		}
	}
	if sealer, ok := p.vouchedFor(f, author); ok {
		return "arc=pass, sealed by " + sealer.String(), "local_policy" // RFC 8617 §7.2.2
	}
	addr := f.client.Addr.Unmap()
	for _, n := range p.policy.networks {
		if n.Contains(addr) {
			return "override for " + n.String(), "local_policy"
		}
	}
	return "", ""
}

func (d decision) verdict() *sdk.Verdict {
	switch d.action {
	case sdk.ActionReject:
		return sdk.Reject(mail.Permanent(550, 7, 1, d.text))
	case sdk.ActionTempfail:
		return sdk.Tempfail(mail.Temporary(451, 7, 1, d.text))
	case sdk.ActionQuarantine:
		return sdk.Quarantine(d.text)
	}
	return sdk.Continue()
}
