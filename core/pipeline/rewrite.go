package pipeline

import (
	"context"
	"errors"
	"io"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Rewriter is a Filter that may put another body in the place of a message's.
type Rewriter interface {
	// Rewrite is Filter for a message whose body can be replaced. A new body has at most
	// max bytes and is handed to keep in wire form; the Body that comes back is what keep
	// returned, if the verdict has an edit for it.
	Rewrite(ctx context.Context, m *mail.Message, max int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Verdict, mail.Body, error)
}

// Bodies is where new bodies go. Who begins a run owns them: makes those durable that a
// version has in the end, and throws the others away.
type Bodies struct {
	Max  int64 // bytes of one
	Keep func(io.Reader) (mail.Body, error)
}

// Gateway is the reason of a failure that is our own: the disk is full, say. No choice that
// is made for the plugin applies, for with "accept" the message would go on as if there had
// been no edit.
const Gateway Reason = "gateway"

// ask asks the plugin about one version.
func (s *Step) ask(ctx context.Context, m *mail.Message, b *Bodies) (*sdk.Verdict, mail.Body, error) {
	if r, ok := s.Filter.(Rewriter); ok && b != nil {
		return r.Rewrite(ctx, m, b.Max, b.Keep)
	}
	v, err := s.Filter.Filter(ctx, m)
	return v, mail.Body{}, err
}

// unable puts a message off because the gateway failed.
func (s *Step) unable(v Version, err error, event *trace.Event) Version {
	event.Action, event.Reason = "failed: tempfail", err.Error()
	v.Disposition, v.Status = Defer, mail.Temporary(451, 3, 0, "Local error, try again later")
	if errors.Is(err, queue.ErrNoSpace) {
		v.Status = mail.Temporary(452, 3, 1, "Insufficient system storage, try again later")
	}
	v.Reason = "plugin " + s.Name + ": its edits could not be made: " + err.Error()
	return v
}
