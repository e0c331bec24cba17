package pipeline

import (
	"context"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// allow adds [sdk.NoteAllowed] to a message about which a plugin is asked. It stays out of
// what is kept of the run: another version has other recipients.
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
	m.Notes = with(m.Notes, sdk.NoteAllowed, strings.Join(numbers, ","))
}
