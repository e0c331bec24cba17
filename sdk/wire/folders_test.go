package wire

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// A list in another language says what the SDK never would.
func TestFoldersRefused(t *testing.T) {
	one := func(name string, uses ...string) *proto.FolderList {
		return &proto.FolderList{Folders: []*proto.Folder{{Name: name, Uses: uses}}}
	}
	for what, tt := range map[string]struct {
		list *proto.FolderList
		ok   bool
	}{
		"nothing":              {nil, true},
		"a folder":             {one("a/b", `\Junk`), true},
		"16 uses":              {one("a", strings.Split(strings.Repeat(`\x `, 15)+`\x`, " ")...), true},
		"17 uses":              {one("a", strings.Split(strings.Repeat(`\x `, 16)+`\x`, " ")...), false},
		"no name":              {one(""), false},
		"a nil folder":         {&proto.FolderList{Folders: []*proto.Folder{nil}}, false},
		"a line end":           {one("a\r\nb"), false},
		"1024 bytes":           {one(strings.Repeat("x", 1024)), true},
		"1025 bytes":           {one(strings.Repeat("x", 1025)), false},
		"a use without slash":  {one("a", "Junk"), false},
		"a use with two":       {one("a", `\a\b`), false},
		"a use with a control": {one("a", "\\a\x1b"), false},
		"a use of 65":          {one("a", `\`+strings.Repeat("x", 64)), false},
		"four separators":      {&proto.FolderList{Separators: "._-+"}, true},
		"five separators":      {&proto.FolderList{Separators: "._-+="}, false},
		"a separating space":   {&proto.FolderList{Separators: " "}, false},
		"a prefix":             {&proto.FolderList{Prefix: "INBOX/"}, true},
		"half a prefix":        {&proto.FolderList{Prefix: "INBOX"}, false},
		"a control prefix":     {&proto.FolderList{Prefix: "a\x00/"}, false},
	} {
		if _, err := Folders(tt.list); (err == nil) != tt.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r := FoldersRequest(mail.MustPath("a@example.org")); r.Recipient.GetLocal() != "a" {
		t.Errorf("%v", r)
	}
}

// Only a mailbox has folders.
func TestDescribeFolders(t *testing.T) {
	for name, want := range map[string]bool{proto.InterfaceMailbox: true, proto.InterfacePlanner: false} {
		d, err := Describe(&proto.Manifest{Name: "x", Version: "1", Interfaces: []string{name}, Folders: true})
		if err != nil || d.Folders != want {
			t.Errorf("%s: %v, %v", name, d.Folders, err)
		}
	}
}
