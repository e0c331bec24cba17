package spam

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// policy is what happens from which score on.
type policy struct {
	tag, quarantine, reject threshold
}

// rule is what decided a fate; "": nothing did.
type rule string

const (
	byAction rule = "action" // the engine asks for at least that much
	byScore  rule = "score"  // the score has reached the threshold
)

// reached says by which rule a threshold is. A score of our own adds to the engine's action:
// engines force actions whatever the score. It stands in for a verdict that is nothing but
// another score.
func (t threshold) reached(r *result, atLeast action) rule {
	switch {
	case t.off:
		return ""
	case r.action >= atLeast && !(t.own && r.scoreOnly):
		return byAction
	case t.own && r.score >= t.score:
		return byScore
	}
	return ""
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

// ruling is a fate and what decided it.
type ruling struct {
	fate fate
	by   rule
}

// decide applies a policy, the severest first. Wait says that a sender that the engine wants
// greylisted has not waited yet.
func (p policy) decide(r *result, wait bool) ruling {
	if by := p.reject.reached(r, rejecting); by != "" {
		return ruling{refused, by}
	}
	if r.action == discarding && !p.reject.off {
		return ruling{discarded, byAction}
	}
	if by := p.quarantine.reached(r, quarantining); by != "" {
		return ruling{held, by}
	}
	if r.action == softReject || wait {
		return ruling{deferred, byAction}
	}
	if by := p.tag.reached(r, addHeader); by != "" {
		return ruling{tagged, by}
	}
	return ruling{}
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
	ruling
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
		d, required := pol.decide(r, wait), pol.required(r)
		if (d.fate == held || d.fate == tagged) && sdk.Allowed(m, i) {
			d = ruling{}
		}
		for j := range all {
			if all[j].ruling == d && all[j].required == required {
				all[j].recipients = append(all[j].recipients, i)
				continue next
			}
		}
		all = append(all, group{d, required, []int{i}})
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
	if by := decided(all); by != "" {
		v.Note("decided", by)
	}
	edits(v, m.Header, r)
	for i, g := range all {
		o := outcome(g.ruling, r)
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

// decided names what decided, each rule once: recipients differ.
func decided(all []group) string {
	var rules []string
	for _, by := range []rule{byAction, byScore} {
		if slices.ContainsFunc(all, func(g group) bool { return g.by == by }) {
			rules = append(rules, string(by))
		}
	}
	return strings.Join(rules, " ")
}

// maxNote is the length of a note, in bytes.
const maxNote = 3 << 10

func clip(s string, n int) string { return s[:min(len(s), n)] }

// outcome is what a fate is called in the contract. The engine's text is the reply where it
// has one for what it asked for; [mail.Permanent] and [mail.Temporary] keep it to one line.
func outcome(d ruling, r *result) sdk.Outcome {
	text := func(usual string) string {
		if d.by != byAction || strings.TrimSpace(r.text) == "" {
			return usual
		}
		return r.text
	}
	reason := fmt.Sprintf("spam, score %s of %s", decimal(r.score), decimal(r.required))
	if d.by == byAction {
		reason += ", action " + r.action.String()
	}
	switch d.fate {
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
