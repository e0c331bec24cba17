package sdk

import (
	"encoding/json"

	"github.com/postern-mail/postern/sdk/mail"
)

// NoteEnvelope is a note of the gateway for filters that may send copies: where the version that
// they are asked about is not the whole message, or is not simply going on, it says what the
// others are. It is [EnvelopeCopy], [EnvelopeAsked], or an array of [Fate] in JSON. Only the gateway makes it,
// and it is not kept.
const NoteEnvelope = "postern/envelope"

// Values of [NoteEnvelope].
const (
	EnvelopeCopy  = "copy"  // the version is a copy that a plugin before made
	EnvelopeAsked = "asked" // the plugin has answered about another version of the message
)

// Fate is what becomes of a recipient of the message, as far as is known when a plugin is asked.
type Fate struct {
	To    string `json:"to"`
	Given string `json:"given"` // the address that the client gave
	ORCPT string `json:"orcpt,omitempty"`
	// Becomes is "" for those that go on; else "quarantine", "discard", "reject", "defer",
	// "park" or "convict"; or "unlisted", of those for whom there was no room.
	Becomes string `json:"becomes,omitempty"`
	Why     string `json:"why,omitempty"`
}

// WholeEnvelope returns what becomes of every recipient of the message that m is a version of,
// as far as the gateway says so in [NoteEnvelope]. Where that says nothing m is the whole of it.
func WholeEnvelope(m *mail.Message) []Fate {
	var fates []Fate
	if json.Unmarshal([]byte(m.Notes[NoteEnvelope]), &fates) == nil && len(fates) > 0 {
		return fates
	}
	fates = make([]Fate, len(m.Envelope.Recipients))
	for i, r := range m.Envelope.Recipients {
		fates[i] = Fate{To: r.Path.String(), Given: r.Given().String(), ORCPT: r.ORCPT}
	}
	return fates
}
