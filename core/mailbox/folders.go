package mailbox

import (
	"context"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// foldersTime is how long a plan waits for a list of folders. It is less than a plan may take
// by default: who is slow here is the mailbox, not the planner.
const foldersTime = 10 * time.Second

// Lister is a mailbox plugin that may know its folders.
type Lister interface {
	// Folders returns nil where it cannot tell.
	Folders(ctx context.Context, recipient mail.Path) (*sdk.FolderList, error)
}

// Folders asks the mailbox plugins which folders there are, on behalf of other plugins. Nothing
// is remembered: mail may be filed by the answer. It is safe for concurrent use.
type Folders struct {
	// Mailbox is the plugin, by its name in the configuration, that stores a recipient's mail;
	// false: none does.
	Mailbox func(recipient mail.Path) (name string, ok bool)
	Backend func(name string) (Lister, bool)
}

// Folders lists the folders of a recipient's mailbox for the plugin asker; nil: what takes his
// mail does not tell. A mailbox that asks for its own folders would go round in circles, and is
// refused with a permanent [mail.Status]. Any other error means "not known now".
func (f *Folders) Folders(ctx context.Context, asker string, recipient mail.Path) (*sdk.FolderList, error) {
	name, ok := f.Mailbox(recipient)
	if !ok {
		return nil, nil
	}
	if name == asker {
		return nil, mail.Permanent(550, 3, 5, "a mailbox cannot ask the gateway for its own folders")
	}
	backend, ok := f.Backend(name)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, foldersTime)
	defer cancel()
	return backend.Folders(ctx, recipient)
}
