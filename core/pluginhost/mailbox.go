package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

// Mailbox is a mailbox plugin, whatever process it has at the moment.
type Mailbox struct{ slot *slot }

var errNotMailbox = errors.New("it is no mailbox")

// Mailbox returns the mailbox of that name; false if no plugin of that name is configured, or it
// is no mailbox.
func (h *Host) Mailbox(name string) (*Mailbox, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Mailbox {
		return nil, false
	}
	return &Mailbox{sl}, true
}

// Manifest is what the plugin declares.
func (b *Mailbox) Manifest() sdk.Manifest { return b.slot.description().Manifest }

// Deliver has the plugin store one message for one recipient. It may ask twice: the key sees
// to it that the message is stored once. An error is the plugin's
// [mail.Status] (not a success), a [*Failure], or that of ctx when the caller gave up.
func (b *Mailbox) Deliver(ctx context.Context, d *sdk.Delivery) error {
	var answer error
	again := *d
	err := b.slot.judged(ctx, d.Message.Envelope.Client, func(ctx context.Context, p *process) error {
		if !p.desc.Mailbox {
			return fail(b.slot.name, Error, errNotMailbox)
		}
		req, err := wire.DeliverRequest(&again)
		if err != nil {
			return fail(b.slot.name, Error, err)
		}
		again.Fresh = false // if there is a second time
		resp, err := p.mailbox.Deliver(ctx, req)
		if err != nil {
			return err
		}
		var ok bool
		if answer, ok = wire.Delivered(resp); !ok {
			return garbage(b.slot.name, fmt.Errorf("its answer breaks the contract: %w", answer))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answer
}

// Room asks whether a message of that size (0: not known) for the recipient would be taken
// now. An error is the plugin's [mail.Status] why not, a [*Failure], or that of ctx; nil:
// it would, or the plugin cannot tell.
func (b *Mailbox) Room(ctx context.Context, recipient mail.Path, size int64) error {
	if !b.slot.description().Room {
		return nil
	}
	var answer error
	err := b.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Room {
			return nil
		}
		resp, err := p.mailbox.Room(ctx, wire.RoomRequest(recipient, size))
		if err != nil {
			return err
		}
		var ok bool
		if answer, ok = wire.Roomy(resp); !ok {
			return garbage(b.slot.name, fmt.Errorf("its answer breaks the contract: %w", answer))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answer
}

// Folders lists the folders of a recipient's mailbox; nil: the plugin does not tell. An error is
// a [*Failure], or that of ctx.
func (b *Mailbox) Folders(ctx context.Context, recipient mail.Path) (*sdk.FolderList, error) {
	if !b.slot.description().Folders {
		return nil, nil
	}
	var list *sdk.FolderList
	err := b.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Folders {
			return nil
		}
		resp, err := p.mailbox.Folders(ctx, wire.FoldersRequest(recipient))
		if err != nil {
			return err
		}
		if list, err = wire.Folders(resp.GetList()); err != nil {
			return garbage(b.slot.name, fmt.Errorf("its answer breaks the contract: %w", err))
		}
		return nil
	})
	return list, err
}
