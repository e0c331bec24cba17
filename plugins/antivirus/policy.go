package antivirus

import (
	"fmt"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// finding is what a scan came to.
type finding uint8

const (
	clean finding = iota
	infected
	encrypted
	tooLarge
	broken
	timedOut // the engine gave up
)

// key is the name in the settings, and in notes.
func (f finding) key() string {
	return [...]string{"clean", "infected", "encrypted", "too_large", "broken", "timeout"}[f]
}

// classify sorts the names that clamd gives. Its own heuristics are not viruses: they say
// why it could not look.
func classify(name string) finding {
	switch {
	case strings.HasPrefix(name, "Heuristics.Limits.Exceeded.MaxScanTime"):
		return timedOut
	case strings.HasPrefix(name, "Heuristics.Limits.Exceeded"):
		return tooLarge
	case strings.HasPrefix(name, "Heuristics.Encrypted."):
		return encrypted
	case strings.HasPrefix(name, "Heuristics.Broken."):
		return broken
	}
	return infected
}

// policy is what becomes of a message.
type policy uint8

const (
	reject policy = iota
	quarantine
	discard
	tag
	accept
	unscan
)

func policyNames() []string {
	return []string{reject: "reject", quarantine: "quarantine", discard: "discard", tag: "tag", accept: "accept", unscan: "unscanned"}
}

func parsePolicy(s string) (policy, error) {
	for p, name := range policyNames() {
		if s == name {
			return policy(p), nil
		}
	}
	return reject, fmt.Errorf("%q is none of %s", s, strings.Join(policyNames(), ", "))
}

// answer is what clamd said.
type answer struct {
	finding finding
	name    string // of the signature; not with clean
}

// status is the value of X-Virus-Status.
func (a answer) status() string {
	switch a.finding {
	case clean:
		return "Clean"
	case infected:
		return "Infected (" + a.name + ")"
	}
	return "Not scanned (" + a.reason() + ")"
}

// reason says in words what was found.
func (a answer) reason() string {
	switch a.finding {
	case infected:
		return "virus " + a.name
	case encrypted:
		return "encrypted, " + a.name
	case tooLarge:
		return "too large, " + a.name
	}
	return "broken, " + a.name
}

// verdict is what the policy for the finding asks for.
func (p *Plugin) verdict(a answer) *sdk.Verdict {
	if a.finding == clean {
		return sdk.Continue().Note("result", a.finding.key())
	}
	v := sdk.Continue()
	switch p.policies[a.finding] {
	case reject:
		v = sdk.Reject(a.refusal())
	case quarantine:
		v = sdk.Quarantine(a.reason())
	case discard:
		v = sdk.Discard(a.reason())
	case unscan:
		v = sdk.Unscanned(a.reason())
	}
	return v.Note("result", a.finding.key()).Note("signature", a.name)
}

// refusal is the reply to the client.
func (a answer) refusal() mail.Status {
	switch a.finding {
	case infected:
		return mail.Permanent(554, 7, 1, "Virus found: "+a.name)
	case encrypted:
		return mail.Permanent(554, 7, 1, "Encrypted content cannot be scanned: "+a.name)
	case tooLarge:
		return mail.Permanent(552, 3, 4, "Message is too large to be scanned: "+a.name)
	}
	return mail.Permanent(554, 6, 0, "Content is damaged and cannot be scanned: "+a.name)
}
