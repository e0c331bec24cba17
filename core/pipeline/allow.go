package pipeline

import (
	"context"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// AllowedNote is the note by which a plugin learns, in one call, which recipients want mail
// of this sender whatever it looks like: their numbers, with commas. Only the gateway makes it.
const AllowedNote = "postern/allowed"

// allow adds the note to a message about which a plugin is asked. It stays out of what is
// kept of the run: another version has other recipients.
func (p *Pipeline) allow(ctx context.Context, m *mail.Message) {
	if p.Allowed == nil {
		return
	}
	allowed := p.Allowed(ctx, m)
	if len(allowed) == 0 {
		return
	}
	numbers := make([]string, len(allowed))
	for i, n := range allowed {
		numbers[i] = strconv.Itoa(n)
	}
	m.Notes = with(m.Notes, AllowedNote, strings.Join(numbers, ","))
}
