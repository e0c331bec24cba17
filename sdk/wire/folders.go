package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Limits of a list of folders.
const (
	maxFolderNames = 512 << 10 // bytes of all names
	maxFolderName  = 1024
	maxUses        = 16
	maxUse         = 64
	maxSeparators  = 4 // bytes: they are ASCII
)

// FoldersRequest is the call that asks for the folders of a mailbox.
func FoldersRequest(recipient mail.Path) *proto.FoldersRequest {
	return &proto.FoldersRequest{Recipient: path(recipient)}
}

// Folders reads a mailbox's list of folders. An error says what it did wrong.
func Folders(l *proto.FolderList) (*sdk.FolderList, error) {
	all := l.GetFolders()
	if len(all) > sdk.MaxFolders {
		return nil, fmt.Errorf("%d folders are too many", len(all))
	}
	out := &sdk.FolderList{Separators: l.GetSeparators(), Prefix: l.GetPrefix(), Folders: make([]sdk.Folder, 0, len(all))}
	if len(out.Separators) > maxSeparators || strings.ContainsFunc(out.Separators, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("the separators are not at most four characters of ASCII")
	}
	if !isLine(out.Prefix, maxFolderName) || out.Prefix != "" && !strings.HasSuffix(out.Prefix, "/") {
		return nil, errors.New(`the prefix is no text with "/" at its end`)
	}
	total := 0
	for _, f := range all {
		name := f.GetName()
		if name == "" || !isLine(name, maxFolderName) {
			return nil, fmt.Errorf("%q is no name of a folder", clip(name))
		}
		if total += len(name); total > maxFolderNames {
			return nil, errors.New("the names of folders are too long in all")
		}
		if len(f.Uses) > maxUses {
			return nil, fmt.Errorf("folder %q has too many attributes", clip(name))
		}
		for _, u := range f.Uses {
			if len(u) < 2 || len(u) > maxUse || u[0] != '\\' || strings.ContainsFunc(u[1:], func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
				return nil, fmt.Errorf("%q is no special-use attribute", clip(u))
			}
		}
		out.Folders = append(out.Folders, sdk.Folder{Name: name, Uses: f.Uses})
	}
	return out, nil
}

// FolderList puts a list of folders on the wire; nil: none is known.
func FolderList(l *sdk.FolderList) *proto.FolderList {
	if l == nil {
		return nil
	}
	out := &proto.FolderList{Separators: l.Separators, Prefix: l.Prefix, Folders: make([]*proto.Folder, len(l.Folders))}
	for i, f := range l.Folders {
		out.Folders[i] = &proto.Folder{Name: f.Name, Uses: f.Uses}
	}
	return out
}
