package imapappend

import (
	"context"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Folders asks the server for the folders of a mailbox, and for their special uses where it
// knows them (RFC 6154).
func (p *Plugin) Folders(ctx context.Context, recipient mail.Path) (*sdk.FolderList, error) {
	s, user, err := p.server(recipient)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	c, _, err := p.pool.get(ctx, s, user)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Address, err)
	}
	list, useless, err := c.folders(ctx)
	p.pool.put(c, useless)
	if err != nil {
		return nil, fmt.Errorf("%s: folders of %s: %w", s.Address, user, err)
	}
	return list, nil
}

// folders lists what can be filed into. useless: there is more to be read on the connection than
// anybody wants, or it is broken.
func (c *conn) folders(ctx context.Context) (_ *sdk.FolderList, useless bool, err error) {
	defer context.AfterFunc(ctx, func() { c.net.Close() })()
	if c.delim == 0 {
		if err := c.learn(); err != nil {
			return nil, true, err
		}
	}
	var options *imap.ListOptions
	if caps := c.Caps(); caps.Has(imap.CapSpecialUse) && (caps.Has(imap.CapListExtended) || caps.Has(imap.CapIMAP4rev2)) {
		options = &imap.ListOptions{ReturnSpecialUse: true}
	}
	list := &sdk.FolderList{}
	if p := strings.ReplaceAll(c.prefix, string(c.delim), "/"); strings.HasSuffix(p, "/") {
		list.Prefix = p
	}
	if c.delim != '/' && c.delim < 0x7f {
		list.Separators = string(c.delim)
	}
	cmd := c.List("", "*", options)
	for data := cmd.Next(); data != nil; data = cmd.Next() {
		if f, ok := c.folder(data); ok && !useless {
			list.Folders = append(list.Folders, f)
		}
		if len(list.Folders) == sdk.MaxFolders && !useless {
			useless = true
			c.net.Close() // the rest is not waited for
		}
	}
	if err := cmd.Close(); err != nil && !useless {
		return nil, broken(err), err
	}
	return list, useless, nil
}

// folder is one of the list, by the name under which mail is filed into it; false if none is.
func (c *conn) folder(data *imap.ListData) (sdk.Folder, bool) {
	var f sdk.Folder
	for _, a := range data.Attrs {
		switch {
		case strings.EqualFold(string(a), string(imap.MailboxAttrNoSelect)), strings.EqualFold(string(a), string(imap.MailboxAttrNonExistent)):
			return f, false
		case isUse(a):
			f.Uses = append(f.Uses, string(a))
		}
	}
	f.Name = strings.ReplaceAll(strings.TrimPrefix(data.Mailbox, c.prefix), string(c.delim), "/")
	if strings.EqualFold(f.Name, "INBOX") || f.Name == "" || checkFolder(f.Name) != nil {
		return f, false
	}
	back, err := c.mailbox(f.Name)
	return f, err == nil && back == data.Mailbox
}

// isUse reports whether an attribute says what a folder is for (RFC 6154 §2, RFC 8457 §4).
func isUse(a imap.MailboxAttr) bool {
	switch strings.ToLower(string(a)) {
	case `\all`, `\archive`, `\drafts`, `\flagged`, `\junk`, `\sent`, `\trash`, `\important`:
		return true
	}
	return false
}
