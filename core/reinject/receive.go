package reinject

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

// maxHeaders is what all header blocks that one wait gets may have, in bytes: they are in
// memory, and a filter may bring back a version for each recipient.
const maxHeaders = 16 << 20

// The refusals. What is refused for good will not be awaited later either: a filter that
// queues had better give up now than in five days.
var (
	errNoToken = mail.Permanent(550, 7, 1, "Only messages that a content filter brings back are taken here")
	errUnknown = mail.Permanent(550, 7, 1, "Nothing is awaited under this token: it came too late, or is wrong")
	errTwice   = mail.Permanent(550, 7, 1, "A recipient has come back already, or none of them is awaited")
	errLarge   = mail.Permanent(552, 3, 4, "Message is too large")
	errRoom    = mail.Temporary(452, 3, 1, "Insufficient system storage, try again later")
)

// Receive takes a message that comes back. r returns it with CRLF line ends only, and an
// error when the filter went away. After an error, which says why, nothing is kept.
func (d *Desk) Receive(_ context.Context, env *mail.Envelope, r io.Reader) error {
	d.mu.Lock()
	limits := d.limits
	d.mu.Unlock()
	header, rest, err := mail.ReadHeader(r, limits.Header)
	if errors.Is(err, mail.ErrHeaderTooLarge) {
		return errLarge
	}
	if err != nil {
		return err
	}
	tokens := header.Values(mail.ReinjectField)
	if len(tokens) != 1 {
		return errNoToken
	}
	w := d.find(tokens[0])
	if w == nil {
		return errUnknown
	}
	header.Remove(mail.ReinjectField, -1)
	p := part{message: &mail.Message{Header: header}, content: d.o.Spool.NewWriter()}
	p.message.Envelope.ReversePath = env.ReversePath
	seen := make(map[mail.Path]bool, len(env.Recipients))
	for _, to := range env.Recipients {
		if !seen[to.Path] {
			seen[to.Path] = true
			p.message.Envelope.Recipients = append(p.message.Envelope.Recipients, mail.Recipient{Path: to.Path})
		}
	}
	back, err := w.reserve(p.message)
	if err != nil {
		return err
	}
	if err = d.fill(&p, rest, r, limits.Body); err == nil {
		err = w.keep(p)
	}
	if err != nil {
		p.content.Abort()
		w.release(p.message, back)
		return err
	}
	d.o.Log.Debug("message came back", "client", env.Client.Addr, "from", env.ReversePath.String(), "recipients", len(back), "size", p.message.Size())
	return nil
}

func (d *Desk) find(token string) *Wait {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits[sha256.Sum256([]byte(token))]
}

// fill reads the body.
func (d *Desk) fill(p *part, rest []byte, r io.Reader, max int64) error {
	err := d.o.Spool.Space()
	if err == nil {
		_, err = p.content.Write(rest)
	}
	n := int64(len(rest))
	if err == nil && n <= max {
		var more int64
		more, err = copyBuffered(p.content, io.LimitReader(r, max-n+1))
		n += more
	}
	switch {
	case errors.Is(err, queue.ErrNoSpace):
		d.o.Log.Error("no space for what a filter brings back", "error", err)
		return errRoom
	case err != nil:
		return err
	case n > max:
		return errLarge
	}
	p.message.Body, err = p.content.Finish()
	return err
}

func copyBuffered(w *spool.Writer, r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 32<<10))
}

// reserve notes that the recipients of m come back, and returns those that are awaited;
// others were added by the filter.
func (w *Wait) reserve(m *mail.Message) ([]mail.Path, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil, errUnknown
	}
	if w.headers+len(m.Header.Block()) > maxHeaders {
		return nil, errRoom
	}
	var back []mail.Path
	for _, r := range m.Envelope.Recipients {
		n, awaited := w.left[r.Path.Fold()]
		switch {
		case !awaited:
			continue
		case n == 0:
			w.put(back)
			return nil, errTwice
		}
		w.left[r.Path.Fold()]--
		back = append(back, r.Path.Fold())
	}
	if len(back) == 0 {
		return nil, errTwice
	}
	w.headers += len(m.Header.Block())
	return back, nil
}

// release takes reserve back.
func (w *Wait) release(m *mail.Message, back []mail.Path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.headers -= len(m.Header.Block())
	w.put(back)
}

func (w *Wait) put(back []mail.Path) {
	for _, p := range back {
		w.left[p]++
	}
}

// keep has the one who waits get p, if it still does.
func (w *Wait) keep(p part) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return errUnknown
	}
	w.parts = append(w.parts, p)
	return nil
}
