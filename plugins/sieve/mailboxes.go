package sieve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
)

// mailboxes is what the scripts of one plan can ask about the recipient's mailbox. The folders
// are asked for when a script wants to know, once. Where nobody tells, there are the inbox and the
// mailboxes of the settings. Where it is not known now, there is no plan, and the message waits:
// what a script does when a folder is missing may not be undone, and without the mailbox
// the message could not go anywhere yet.
type mailboxes struct {
	p     *planning
	asked bool
	list  *sdk.FolderList // nil: nobody tells
}

var _ engine.Mailboxes = (*mailboxes)(nil)

// ask gets the list. It takes at most half of the time for the plan: who is slow is not the plugin.
func (b *mailboxes) ask(ctx context.Context) error {
	if b.asked {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	list, err := b.p.host.Folders(ctx, b.p.m.Envelope.Recipients[0].Path)
	switch {
	case errors.Is(err, sdk.ErrNoHost) || errors.Is(err, sdk.ErrInvalid):
	case err != nil:
		// Not wrapped: that the mailbox was too slow does not mean that we are.
		return temporary{fmt.Errorf("%w: the mailbox does not say which folders it has: %v", engine.ErrTemporary, err)}
	}
	b.asked, b.list = true, list
	return nil
}

// Exists implements [engine.Mailboxes].
func (b *mailboxes) Exists(ctx context.Context, mailbox string) (bool, error) {
	if err := b.ask(ctx); err != nil {
		return false, err
	}
	return b.has(mailbox), nil
}

func (b *mailboxes) has(mailbox string) bool {
	if strings.EqualFold(mailbox, "INBOX") {
		return true
	}
	if b.list == nil {
		return slices.Contains(slices.Collect(maps.Values(b.p.special)), mailbox)
	}
	_, ok := b.list.Find(mailbox)
	return ok
}

// SpecialUse implements [engine.Mailboxes]: what the mailbox says comes before the settings.
func (b *mailboxes) SpecialUse(ctx context.Context, attribute string) (string, error) {
	if err := b.ask(ctx); err != nil {
		return "", err
	}
	if f, ok := b.list.Use(attribute); ok {
		return f.Name, nil
	}
	if name := b.p.special[strings.ToLower(attribute)]; name != "" && b.has(name) {
		return name, nil
	}
	return "", nil
}

// Metadata implements [engine.Mailboxes]: no mailbox tells annotations.
func (b *mailboxes) Metadata(context.Context, string, string) (string, bool, error) {
	return "", false, nil
}

// folder is where mail for a mailbox goes; one with a special use comes first, if there is one
// (RFC 8579 §5).
func (p *planning) folder(mailbox, use string) (string, error) {
	if use != "" {
		name, err := p.boxes.SpecialUse(p.ctx, use)
		if err != nil {
			return "", err
		}
		if name != "" {
			mailbox = name
		}
	}
	if strings.EqualFold(mailbox, "INBOX") {
		return "", nil
	}
	return mailbox, nil
}
