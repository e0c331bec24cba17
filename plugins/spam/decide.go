package spam

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// policy is what happens from which score on.
type policy struct {
	tag, quarantine, reject threshold
}

// reached says whether a threshold is: by the score, or because the engine asks for at
// least that much.
func (t threshold) reached(r *result, atLeast action) bool {
	switch {
	case t.off:
		return false
	case t.own:
		return r.score >= t.score
	}
	return r.action >= atLeast
}

// fate is what becomes of a message for a recipient.
type fate uint8

const (
	pass fate = iota
	tagged
	deferred
	held
	discarded
	refused
)

// decide applies a policy. Wait says that a sender that the engine wants greylisted has not
// waited yet.
func (p policy) decide(r *result, wait bool) fate {
	switch {
	case p.reject.reached(r, rejecting):
		return refused
	case r.action == discarding && !p.reject.off:
		return discarded
	case p.quarantine.reached(r, quarantining):
		return held
	case r.action == softReject, wait:
		return deferred
	case p.tag.reached(r, addHeader):
		return tagged
	}
	return pass
}

// required is the score that mail is compared with in X-Spam-Status.
func (p policy) required(r *result) float64 {
	if p.tag.own {
		return p.tag.score
	}
	return r.required
}

// group is the recipients with the same fate, by index in the envelope.
type group struct {
	fate       fate
	required   float64
	recipients []int
}

// groups sorts the recipients, in their order. Who has said that he wants the sender's mail
// gets what would be held or marked as it is.
func (p *Plugin) groups(m *mail.Message, r *result, wait bool) []group {
	var all []group
next:
	for i, rcpt := range m.Envelope.Recipients {
		pol, ok := p.domains[rcpt.Path.Domain]
		if !ok {
			pol = p.policy
		}
		f, required := pol.decide(r, wait), pol.required(r)
		if (f == held || f == tagged) && sdk.Allowed(m, i) {
			f = pass
		}
		for j := range all {
			if all[j].fate == f && all[j].required == required {
				all[j].recipients = append(all[j].recipients, i)
				continue next
			}
		}
		all = append(all, group{f, required, []int{i}})
	}
	return all
}

// verdict makes an engine's result a verdict.
func (p *Plugin) verdict(ctx context.Context, m *mail.Message, r *result) *sdk.Verdict {
	v := sdk.Continue()
	v.Score("score", r.score).Score("required", r.required).Score("percent", r.percent())
	v.Note("action", r.action.String()).Note("symbols", clip(strings.Join(r.symbols, " "), maxNote))
	wait := false
	if r.action == greylisting {
		var note string
		wait, note = p.greylist.wait(ctx, &m.Envelope)
		v.Note("greylist", note)
	}
	all := p.groups(m, r, wait)
	edits(v, m.Header, r)
	for i, g := range all {
		o := outcome(g.fate, r)
		if i == 0 {
			v.Outcome = o
		} else {
			for _, n := range g.recipients {
				v.For(n, o)
			}
		}
		only := g.recipients
		if len(all) == 1 {
			only = nil
		}
		spam := g.fate == tagged || g.fate == held
		if p.headers && (spam || g.fate == pass) {
			tell(v, r, spam, g.required, only)
		}
		if spam {
			flag(v, m.Header, r, only)
		}
	}
	return v
}

// maxNote is the length of a note, in bytes.
const maxNote = 3 << 10

func clip(s string, n int) string { return s[:min(len(s), n)] }

// outcome is what a fate is called in the contract. The engine's text is a reply where it
// has one; [mail.Permanent] and [mail.Temporary] keep it to one line.
func outcome(f fate, r *result) sdk.Outcome {
	text := func(usual string) string {
		if strings.TrimSpace(r.text) == "" {
			return usual
		}
		return r.text
	}
	reason := fmt.Sprintf("spam, score %s of %s", decimal(r.score), decimal(r.required))
	switch f {
	case refused:
		return sdk.Outcome{Action: sdk.ActionReject, Status: mail.Permanent(554, 7, 1, text("Message is spam"))}
	case discarded:
		return sdk.Outcome{Action: sdk.ActionDiscard, Reason: reason}
	case held:
		return sdk.Outcome{Action: sdk.ActionQuarantine, Reason: reason}
	case deferred:
		return sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(451, 7, 1, text("Try again later"))}
	}
	return sdk.Outcome{}
}
