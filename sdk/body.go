package sdk

import (
	"context"
	"io"

	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
)

// Body is a body that a filter writes in the place of the message's own, for
// [Verdict.ReplaceBody] and [Verdict.CopyOwn]. What is written goes through a buffer into a file that the gateway
// made; memory does not depend on the size. It belongs to the call, which closes it; an
// error in writing fails the call even if nobody looked at it. It is for one goroutine.
//
// A body is in wire form: lines end in CRLF, and there is no bare CR, no bare LF and no NUL.
// Header fields that describe the old one (Content-Type, Content-Transfer-Encoding, ...)
// are the filter's to change.
type Body struct {
	d   *draft.Draft
	cut int64 // where the next section begins
}

var _ io.Writer = (*Body)(nil)

// NewBody begins a new body in a call of Filter; ctx is the call's. The manifest has to
// declare MayReplaceBody. A call can make one.
func NewBody(ctx context.Context) (*Body, error) {
	d := draft.From(ctx)
	if err := d.Open(); err != nil {
		return nil, err
	}
	return &Body{d: d}, nil
}

// Write appends to the body.
func (b *Body) Write(p []byte) (int, error) { return b.d.Write(p) }

// ReplaceBody puts b in the place of the message's body. It may still be written to until
// the call returns.
func (v *Verdict) ReplaceBody(b *Body) *Verdict {
	return v.edit(Edit{Kind: BodyReplace, BodyDraft: b.d.Path})
}

// CopyOwn sends header and b to path, in the place of a copy of the message: a report about
// it, say. It waits in the queue of journal reports. Like a copy it goes when the message is
// refused, shows in no reply and in no DSN about the message, and its bounces go to reverse. The
// header ends with an empty line. Both MayCopy and MayReplaceBody have to be declared; b cannot be
// used for ReplaceBody as well.
func (v *Verdict) CopyOwn(path, reverse mail.Path, header mail.Header, b *Body) *Verdict {
	return v.edit(Edit{Kind: Copy, Path: path, ReversePath: reverse, Value: string(header.Block()), BodyDraft: b.d.Path})
}
