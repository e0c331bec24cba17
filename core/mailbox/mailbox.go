// Package mailbox is the transport that hands messages to mailbox plugins: final delivery. It
// also asks them whether they have room ([Rooms]) and which folders there are ([Folders]).
//
// It alone adds Return-Path and Delivered-To (RFC 5321 §4.4), and removes a Return-Path
// that came with the message. It is safe for concurrent use.
package mailbox

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Backend is a mailbox plugin.
type Backend interface {
	Deliver(ctx context.Context, d *sdk.Delivery) error
}

// Transport finds the backend by its name in the configuration.
type Transport struct {
	Backend func(name string) (Backend, bool)
	Log     *slog.Logger
}

// Deliver hands e to the mailbox of its recipient with that number, to be kept as said (fresh:
// for the first time), and returns when it is durable there. Any error that is no permanent status is temporary; it is
// returned beside the status for who knows more of it.
func (t *Transport) Deliver(ctx context.Context, name string, e *queue.Entry, recipient int, keep queue.Keep, fresh bool) (mail.Status, error) {
	backend, ok := t.Backend(name)
	if !ok {
		return mail.Temporary(451, 3, 5, fmt.Sprintf("Mailbox plugin %s is not configured", name)), nil
	}
	err := backend.Deliver(ctx, &sdk.Delivery{
		Key:       fmt.Sprintf("%s-%d", e.ID, recipient),
		Recipient: e.Envelope.Recipients[recipient].Path,
		Folder:    keep.Folder,
		Flags:     keep.Flags,
		Create:    keep.Create,
		Fresh:     fresh,
		Message:   final(e, recipient),
	})
	if err != nil {
		t.Log.Warn("mailbox delivery failed", "id", e.ID.String(), "plugin", name, "to", e.Envelope.Recipients[recipient].Path.String(), "error", err)
		return mail.StatusOf(err), err
	}
	return mail.OK(250, 0, 0, "Delivered to mailbox"), nil
}

// final is the message as it is stored.
func final(e *queue.Entry, recipient int) *mail.Message {
	h := e.Header
	h.Remove("Return-Path", -1)
	r := e.Envelope.Recipients[recipient]
	h.Prepend("Delivered-To", r.Path.String())
	h.Prepend("Return-Path", "<"+e.Envelope.ReversePath.String()+">")
	env := e.Envelope
	env.Recipients = []mail.Recipient{r}
	return &mail.Message{Envelope: env, Header: h, Body: e.Body, Scores: e.Run.Scores, Notes: e.Run.Notes}
}
