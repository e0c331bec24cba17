package sdk_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/wire"
)

// What an author says reaches the gateway, but for what no gateway would take.
func TestFoldersRoundTrip(t *testing.T) {
	list := &sdk.FolderList{Separators: "._", Prefix: "INBOX/"}
	fill(t, reflect.ValueOf(&list.Folders).Elem(), new(int), "folders")
	for i := range list.Folders {
		list.Folders[i].Uses = []string{`\Junk`, `\X-Own`}
	}
	good := len(list.Folders)
	want := *list
	for _, odd := range []string{"", "a\nb", "a\x00", "\xff", "a\u0085", strings.Repeat("x", 1025)} {
		list.Folders = append(list.Folders, sdk.Folder{Name: odd})
	}
	list.Folders = append(list.Folders, sdk.Folder{Name: strings.Repeat("x", 1024), Uses: []string{"Junk", `\`, `\a b`, `\a\b`}})
	got, err := wire.Folders(sdk.EncodeFolders(list))
	if err != nil || len(got.Folders) != good+1 || got.Folders[good].Uses != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Folders = got.Folders[:good]
	same(t, *got, want)
	if back := wire.FolderList(got); len(back.Folders) != good || back.Prefix != "INBOX/" || wire.FolderList(nil) != nil {
		t.Errorf("%v", back)
	}
	if got, err := wire.Folders(sdk.EncodeFolders(nil)); err != nil || len(got.Folders) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// There are at most so many, with so much text.
func TestFoldersBounded(t *testing.T) {
	for _, tt := range []struct{ n, size, want int }{{sdk.MaxFolders, 10, sdk.MaxFolders}, {sdk.MaxFolders + 1, 10, sdk.MaxFolders}, {512, 1024, 512}, {513, 1024, 512}} {
		list := &sdk.FolderList{}
		for i := range tt.n {
			list.Folders = append(list.Folders, sdk.Folder{Name: fmt.Sprintf("%0*d", tt.size, i)})
		}
		if got, err := wire.Folders(sdk.EncodeFolders(list)); err != nil || len(got.Folders) != tt.want {
			t.Errorf("%d folders of %d: %v", tt.n, tt.size, err)
		}
		if _, err := wire.Folders(wire.FolderList(list)); (err == nil) != (tt.n == tt.want) {
			t.Errorf("%d folders of %d from a plugin that does not count: %v", tt.n, tt.size, err)
		}
	}
}

func TestFolderListFinds(t *testing.T) {
	list := &sdk.FolderList{Folders: []sdk.Folder{{Name: "Work"}, {Name: "Lists/Go", Uses: []string{`\Archive`}}, {Name: "Old", Uses: []string{`\ARCHIVE`, `\Junk`}}}, Separators: ".", Prefix: "INBOX/"}
	for name, want := range map[string]string{"Work": "Work", "INBOX.Work": "Work", "INBOX/Lists.Go": "Lists/Go", "Lists/Go": "Lists/Go", "work": "", "Lists": "", "": "", "INBOX/": "", "inbox.Work": ""} {
		if f, ok := list.Find(name); f.Name != want || ok != (want != "") {
			t.Errorf("%q: %v, %v", name, f, ok)
		}
	}
	for use, want := range map[string]string{`\archive`: "Lists/Go", `\Junk`: "Old", `\Sent`: "", "": ""} {
		if f, ok := list.Use(use); f.Name != want || ok != (want != "") {
			t.Errorf("%q: %v, %v", use, f, ok)
		}
	}
	var none *sdk.FolderList
	if _, ok := none.Find("Work"); ok {
		t.Error("there is something in no list")
	}
	if _, ok := none.Use(`\Junk`); ok {
		t.Error("there is something in no list")
	}
}
