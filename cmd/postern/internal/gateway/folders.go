package gateway

import (
	"context"

	"github.com/postern-mail/postern/core/mailbox"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Folders lists those of a recipient's mailbox, as the plugin that stores his mail knows them.
func (s *services) Folders(ctx context.Context, plugin string, recipient mail.Path) (*sdk.FolderList, error) {
	table := s.routes.Load()
	if table == nil {
		return nil, errNotYet
	}
	asking := mailbox.Folders{
		Mailbox: func(to mail.Path) (string, bool) {
			r, err := table.Route(to)
			if err != nil || r.Transport != route.Mailbox {
				return "", false
			}
			return r.Hops[0].Address, true
		},
		Backend: func(name string) (mailbox.Lister, bool) {
			m, ok := s.g.host.Mailbox(name)
			return m, ok
		},
	}
	return asking.Folders(ctx, plugin, recipient)
}

var _ mailbox.Lister = (*pluginhost.Mailbox)(nil)
