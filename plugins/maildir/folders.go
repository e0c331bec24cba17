package maildir

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Folders lists the folders of a mailbox, and those for trash and junk, which are made when they
// are needed. It looks at names of directories, never at messages.
func (p *Plugin) Folders(_ context.Context, recipient mail.Path) (*sdk.FolderList, error) {
	root, err := p.tree.root(recipient)
	if err != nil {
		return nil, err
	}
	names, err := p.disk.Names(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	slices.Sort(names)
	list := &sdk.FolderList{Separators: "."}
	most := sdk.MaxFolders - len(p.settings.Trash) - len(p.settings.Junk)
	for _, name := range names {
		folder, ok := p.settings.folderOf(name)
		if !ok || len(list.Folders) >= most {
			continue
		}
		if _, err := p.disk.ModTime(filepath.Join(root, name, "cur")); err == nil {
			list.Folders = append(list.Folders, sdk.Folder{Name: folder})
		}
	}
	use(list, `\Trash`, p.settings.Trash)
	use(list, `\Junk`, p.settings.Junk)
	return list, nil
}

// use marks the folders of that special use, and adds those that will be made. Of these the first
// one is meant if none is there.
func use(list *sdk.FolderList, attribute string, names []string) {
	there := false
	for _, name := range names {
		for i, f := range list.Folders {
			if f.Name == strings.ReplaceAll(name, ".", "/") {
				list.Folders[i].Uses, there = append(f.Uses, attribute), true
			}
		}
	}
	for i, name := range names {
		if _, ok := list.Find(name); ok {
			continue
		}
		f := sdk.Folder{Name: strings.ReplaceAll(name, ".", "/")}
		if i == 0 && !there {
			f.Uses = []string{attribute}
		}
		list.Folders = append(list.Folders, f)
	}
}

// folderOf is the folder whose directory has that name; false if mail for no folder goes there.
func (s *Settings) folderOf(dir string) (string, bool) {
	name, dotted := strings.CutPrefix(dir, ".")
	if !dotted || name == "" || strings.EqualFold(name, "INBOX") {
		return "", false
	}
	levels := strings.Split(name, ".")
	for i, level := range levels {
		if s.FolderNames == "utf-8" {
			continue
		}
		var ok bool
		if levels[i], ok = fromUTF7(level); !ok {
			return "", false
		}
	}
	name = strings.Join(levels, "/")
	back, err := s.folder(name)
	return name, err == nil && back == dir
}

// fromUTF7 reads what [modifiedUTF7] writes.
func fromUTF7(s string) (string, bool) {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(s, "&")
		b.WriteString(plain)
		if !found {
			return b.String(), true
		}
		run, after, ended := strings.Cut(rest, "-")
		if !ended {
			return "", false
		}
		s = after
		if run == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := utf7().DecodeString(run)
		if err != nil || len(raw)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		text := string(utf16.Decode(units))
		if strings.ContainsRune(text, utf8.RuneError) {
			return "", false
		}
		b.WriteString(text)
	}
}

// utf7 is the base64 of RFC 3501 §5.1.3.
func utf7() *base64.Encoding {
	return base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)
}
