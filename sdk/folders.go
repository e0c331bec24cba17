package sdk

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Folders is implemented by a [Mailbox] that knows which folders there are.
type Folders interface {
	// Folders lists the folders of a recipient's mailbox: those that a [Delivery] without
	// Create reaches. A mailbox that is still to be made has none. An error means "not known
	// now". It is called concurrently, and a message waits for it.
	Folders(ctx context.Context, recipient mail.Path) (*FolderList, error)
}

// FolderList are the folders of a mailbox, without its inbox.
type FolderList struct {
	// Folders are at most [MaxFolders]; more, and what has no name that mail can be filed
	// under, is left out on the way to the gateway.
	Folders []Folder
	// Separators are characters, at most four, that mean "/" in a name that is asked for.
	Separators string
	// Prefix is what such a name may begin with and mean the same: "INBOX/".
	Prefix string
}

// Folder is one of a mailbox's folders.
type Folder struct {
	Name string   // as in [Delivery]: "/" between levels
	Uses []string // special-use attributes (RFC 6154), as "\Junk"
}

// Limits of a FolderList.
const (
	MaxFolders     = 4096
	maxFolderNames = 512 << 10 // bytes of all names
	maxFolderName  = 1024
	maxUses        = 16
	maxUse         = 64
)

// Find returns the folder that a name means; false if there is none. A nil list is empty.
func (l *FolderList) Find(name string) (Folder, bool) {
	if l == nil {
		return Folder{}, false
	}
	if l.Separators != "" {
		name = strings.Map(func(r rune) rune {
			if strings.ContainsRune(l.Separators, r) {
				return '/'
			}
			return r
		}, name)
	}
	if short, ok := strings.CutPrefix(name, l.Prefix); ok {
		name = short
	}
	i := slices.IndexFunc(l.Folders, func(f Folder) bool { return f.Name == name })
	if i < 0 || name == "" {
		return Folder{}, false
	}
	return l.Folders[i], true
}

// Use returns the first folder with a special-use attribute; false if there is none.
func (l *FolderList) Use(attribute string) (Folder, bool) {
	if l == nil {
		return Folder{}, false
	}
	for _, f := range l.Folders {
		for _, u := range f.Uses {
			if strings.EqualFold(u, attribute) {
				return f, true
			}
		}
	}
	return Folder{}, false
}

// Folders lists the folders of a recipient's mailbox; nil: what takes his mail does not tell.
// An error means that it is not known now: the mailbox may be down.
func (h *Host) Folders(ctx context.Context, recipient mail.Path) (*FolderList, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.MailboxFoldersResponse, error) {
		return h.api.Folders(ctx, &proto.FoldersRequest{Recipient: encodePath(recipient)})
	})
	if err != nil || r.List == nil {
		return nil, err
	}
	l := &FolderList{Separators: r.List.Separators, Prefix: r.List.Prefix, Folders: make([]Folder, 0, len(r.List.Folders))}
	for _, f := range r.List.Folders {
		l.Folders = append(l.Folders, Folder{Name: f.Name, Uses: f.Uses})
	}
	return l, nil
}

// encodeFolders leaves out what breaks the contract: one odd folder must not hide the others.
func encodeFolders(l *FolderList) *proto.FolderList {
	if l == nil {
		return &proto.FolderList{}
	}
	out := &proto.FolderList{Separators: line(l.Separators), Prefix: line(l.Prefix)}
	left := maxFolderNames
	for _, f := range l.Folders {
		if f.Name == "" || len(f.Name) > maxFolderName || len(f.Name) > left || !utf8.ValidString(f.Name) || line(f.Name) != f.Name {
			continue
		}
		if len(out.Folders) == MaxFolders {
			break
		}
		left -= len(f.Name)
		pf := &proto.Folder{Name: f.Name}
		for _, u := range f.Uses {
			if isUse(u) && len(pf.Uses) < maxUses {
				pf.Uses = append(pf.Uses, u)
			}
		}
		out.Folders = append(out.Folders, pf)
	}
	return out
}

// isUse reports whether s is a special-use attribute (RFC 6154 §6).
func isUse(s string) bool {
	if len(s) < 2 || len(s) > maxUse || s[0] != '\\' {
		return false
	}
	return !strings.ContainsFunc(s[1:], func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r) })
}
