package gateway

import (
	"context"

	"github.com/postern-mail/postern/core/mailbox"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// newRooms asks the mailbox plugins at RCPT whether they have room.
func (g *Gateway) newRooms() *mailbox.Rooms {
	return mailbox.NewRooms(func(name string) (mailbox.Doorman, bool) {
		m, ok := g.host.Mailbox(name)
		return m, ok
	}, g.log, g.clock)
}

// room returns the question for the recipients that a configuration delivers to mailboxes.
func room(rooms *mailbox.Rooms, table *route.Table) func(context.Context, mail.Path, int64) mail.Status {
	return func(ctx context.Context, to mail.Path, size int64) mail.Status {
		r, err := table.Route(to)
		if err != nil || r.Transport != route.Mailbox {
			return mail.Status{}
		}
		return rooms.Ask(ctx, r.Hops[0].Address, to, size)
	}
}

var _ mailbox.Doorman = (*pluginhost.Mailbox)(nil)
