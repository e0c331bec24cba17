package sdk

import (
	"github.com/postern-mail/postern/sdk/mail"
)

// Action is what a verdict asks for.
type Action uint8

// The actions. The numbers are part of the protocol; do not reorder.
const (
	ActionContinue   Action = iota // no objection
	ActionReject                   // refuse for good
	ActionTempfail                 // refuse for now
	ActionDiscard                  // accept and throw away, on record
	ActionQuarantine               // accept and hold
	ActionUnscanned                // the plugin could not look; its failure policy decides
)

// String is the name used in logs, traces and the configuration.
func (a Action) String() string {
	names := [...]string{"continue", "reject", "tempfail", "discard", "quarantine", "unscanned"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// Outcome is an action with the status (reject, tempfail) or the reason (discard,
// quarantine, unscanned) that goes with it.
type Outcome struct {
	Action Action
	Status mail.Status
	Reason string
}

// Verdict is a filter's answer: an outcome for all recipients, other outcomes for some of
// them, and edits. Build it with [Continue] and its siblings and add to it.
type Verdict struct {
	Outcome
	// PerRecipient overrides Outcome for single recipients, by index in the envelope.
	PerRecipient map[int]Outcome
	Edits        []Edit
	Scores       map[string]float64 // for later plugins and the trace, by name of the test
	Notes        map[string]string  // for later plugins and the trace
}

// Edit is one change. Edits are applied in order, each to the result of the one before.
type Edit struct {
	Kind EditKind
	// Name and Value of a header field. Value may be folded. Of a Copy with a content of its
	// own, Value is the whole header.
	Name, Value string
	// Index: for HeaderInsert the position among all fields (from 0; below 0: at the
	// end), for HeaderChange and HeaderRemove which of the fields called Name (from 0;
	// below 0 for HeaderRemove: all).
	Index int
	// Path is the address of RecipientAdd, RecipientRemove, Copy and ReversePath.
	Path mail.Path
	// ReversePath of a Copy: where its bounces go.
	ReversePath mail.Path
	// BodyDraft is the draft that replaces the body, or is that of a Copy with a content of its
	// own, by the name the host gave it; see ReplaceBody and CopyOwn.
	BodyDraft string
	// Recipients limits the edit to these recipients, by index in the envelope; nil: all.
	Recipients []int
}

// EditKind says what an Edit does.
type EditKind uint8

// The kinds of edits. The numbers are part of the protocol; do not reorder.
const (
	HeaderInsert    EditKind = iota + 1
	HeaderChange             // an empty Value removes, as in the milter protocol
	HeaderRemove             //
	RecipientAdd             // one more recipient of the message itself
	RecipientRemove          //
	Copy                     // a version of its own for Path, outside the reply and the DSNs
	ReversePath              // replace the reverse-path
	BodyReplace              // put another body in its place
)

// Continue has no objection.
func Continue() *Verdict { return &Verdict{} }

// Reject refuses for good; status must be permanent.
func Reject(status mail.Status) *Verdict {
	return &Verdict{Outcome: Outcome{Action: ActionReject, Status: status}}
}

// Tempfail refuses for now; status must be temporary.
func Tempfail(status mail.Status) *Verdict {
	return &Verdict{Outcome: Outcome{Action: ActionTempfail, Status: status}}
}

// Discard accepts the message and throws it away; the reason goes on record.
func Discard(reason string) *Verdict {
	return &Verdict{Outcome: Outcome{Action: ActionDiscard, Reason: reason}}
}

// Quarantine accepts the message and holds it.
func Quarantine(reason string) *Verdict {
	return &Verdict{Outcome: Outcome{Action: ActionQuarantine, Reason: reason}}
}

// Unscanned says that the plugin could not look at the message, and why: "too large",
// "encrypted". The plugin's on_failure decides what happens.
func Unscanned(reason string) *Verdict {
	return &Verdict{Outcome: Outcome{Action: ActionUnscanned, Reason: reason}}
}

// For sets another outcome for one recipient.
func (v *Verdict) For(recipient int, o Outcome) *Verdict {
	if v.PerRecipient == nil {
		v.PerRecipient = make(map[int]Outcome)
	}
	v.PerRecipient[recipient] = o
	return v
}

// AddHeader adds a field at the top of the header.
func (v *Verdict) AddHeader(name, value string) *Verdict {
	v.Edits = append(v.Edits, Edit{Kind: HeaderInsert, Name: name, Value: value})
	return v
}

// AddCopy sends a copy to path; bounces of the copy go to reverse.
func (v *Verdict) AddCopy(path, reverse mail.Path) *Verdict {
	v.Edits = append(v.Edits, Edit{Kind: Copy, Path: path, ReversePath: reverse})
	return v
}

// Score records the score of a named test.
func (v *Verdict) Score(name string, score float64) *Verdict {
	if v.Scores == nil {
		v.Scores = make(map[string]float64)
	}
	v.Scores[name] = score
	return v
}

// Note records a fact for later plugins and the trace.
func (v *Verdict) Note(name, text string) *Verdict {
	if v.Notes == nil {
		v.Notes = make(map[string]string)
	}
	v.Notes[name] = text
	return v
}
