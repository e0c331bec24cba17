package sdk

import (
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// NoteAllowed is a note that the gateway makes for one call: the numbers of the recipients, with
// commas, that want the mail of this sender whatever it looks like. Read it with [Allowed].
const NoteAllowed = "postern/allowed"

// Allowed reports whether a recipient of the message, by number, has said that mail of its
// sender is not to be taken for spam; where the gateway checks who a sender is, it has checked
// that. A plugin that judges what is wanted does not hold the message for him. One that looks
// for what is dangerous takes no notice.
func Allowed(m *mail.Message, recipient int) bool {
	list := m.Notes[NoteAllowed]
	for list != "" {
		var number string
		number, list, _ = strings.Cut(list, ",")
		if n, err := strconv.Atoi(number); err == nil && n == recipient {
			return true
		}
	}
	return false
}

// NoteQuarantine is a note that the gateway makes for one call: the plugin before this one on whose
// word the message is going to be held in quarantine. It is still asked about, for a later plugin
// may refuse it. No plugin can set it.
const NoteQuarantine = "postern/quarantine"
