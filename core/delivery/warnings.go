package delivery

import (
	"slices"
	"time"

	"github.com/postern-mail/postern/core/dsn"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/queue"
)

// Delay warnings to one sender: that a next hop is down is told him a few times, and not for each
// of the thousand messages of his that wait for it (L-13).
const (
	warnings       = 10
	warningsWithin = time.Hour
	warnedSenders  = 1 << 14 // whose warnings are counted
)

// rationed leaves the delay warning out of the notices about an entry whose sender has had enough
// of them. What becomes of the message in the end is reported all the same.
func (d *Delivery) rationed(e *queue.Entry, notices []intake.Notice) []intake.Notice {
	from := e.Envelope.ReversePath
	warning := func(n intake.Notice) bool { return n.Action == dsn.Delayed }
	wanted := func(n intake.Notice) bool {
		return warning(n) && dsn.Wanted(from, e.Envelope.Recipients[n.Recipient].Notify, n.Action)
	}
	if !slices.ContainsFunc(notices, wanted) || d.warned.Take(from.Fold(), warnings, warningsWithin, d.Clock()) {
		return notices
	}
	d.Log.Info("no delay warning, for the sender has had enough of them", "id", e.ID.String(), "from", from.String())
	return slices.DeleteFunc(notices, warning)
}
