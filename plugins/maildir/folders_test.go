package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// names are the folders in words.
func names(l *sdk.FolderList) string {
	var out []string
	for _, f := range l.Folders {
		out = append(out, strings.Join(append([]string{f.Name}, f.Uses...), " "))
	}
	return strings.Join(out, ", ")
}

// The list has what a delivery would reach, by the name under which it would, and nothing else.
func TestFolders(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	list := func() *sdk.FolderList {
		t.Helper()
		l, err := sdktest.Folders(t, p, ann)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := names(list()); got != `Trash \Trash, Junk \Junk` {
		t.Errorf("of a mailbox that is still to be made: %s", got)
	}
	for i, folder := range []string{"Work", "Lists/Go", "Übung & Co", "Junk"} {
		d := delivery(fmt.Sprint("f", i))
		d.Folder, d.Create = folder, true
		if err := p.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	root, err := p.tree.root(ann)
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{".bad&name/cur", ".a..b/cur", ".INBOX/cur", ".whole", ".&AC8-/cur", "no.dot/cur", ".control&AAo-/cur", "./..cur/cur"} {
		if err := os.MkdirAll(filepath.Join(root, odd), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(root, ".file"), nil, 0o600)
	if got := names(list()); got != `Übung & Co, Junk \Junk, Lists/Go, Work, Trash \Trash` {
		t.Errorf("folders: %s", got)
	}
	for name, there := range map[string]bool{"Work": true, "Lists/Go": true, "Lists.Go": true, "Lists": false, "work": false, "": false, "Übung & Co": true} {
		if _, ok := list().Find(name); ok != there {
			t.Errorf("%q: %v", name, ok)
		}
	}
}

func TestFoldersOfSpecialUse(t *testing.T) {
	p := New()
	config := sdk.Config{DataDir: t.TempDir(), Settings: []byte("trash = ['Deleted Items', 'Trash']\njunk = ['Spam.Old', 'Spam.New']\nfolder_names = 'utf-8'\n")}
	if err := p.Configure(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	root, _ := p.tree.root(ann)
	for _, dir := range []string{".Trash/cur", ".Ü&x/cur"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := p.Folders(t.Context(), ann)
	if err != nil || names(l) != `Trash \Trash, Ü&x, Deleted Items, Spam/Old \Junk, Spam/New` {
		t.Errorf("%s, %v", names(l), err)
	}
}

// crowded is a disk with a mailbox of n folders.
type crowded struct {
	osDisk
	n int
}

func (c crowded) Names(string) ([]string, error) {
	all := make([]string, c.n)
	for i := range all {
		all[i] = fmt.Sprintf(".f%05d", i)
	}
	return all, nil
}

func (crowded) ModTime(string) (time.Time, error) { return time.Time{}, nil }

// There are at most so many, those of the settings always.
func TestFoldersAreBounded(t *testing.T) {
	p := configured(t, t.TempDir())
	for n, want := range map[int]int{sdk.MaxFolders - 3: sdk.MaxFolders - 1, sdk.MaxFolders - 2: sdk.MaxFolders, sdk.MaxFolders - 1: sdk.MaxFolders, sdk.MaxFolders + 1: sdk.MaxFolders} {
		p.disk = crowded{n: n}
		l, err := p.Folders(t.Context(), ann)
		if err != nil || len(l.Folders) != want || l.Folders[0].Name != "f00000" {
			t.Errorf("of %d: %d folders, %v", n, len(l.Folders), err)
		}
		if _, ok := l.Use(`\junk`); !ok {
			t.Errorf("of %d: no junk", n)
		}
	}
}

// What is written in modified UTF-7 is read again, and nothing else is.
func FuzzUTF7(f *testing.F) {
	for _, s := range []string{"", "a&b", "Übung", "日本語", "&AC8-", "&", "&-", "a&b-", "&2D3eAA-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if text, ok := fromUTF7(s); ok && modifiedUTF7(text) == s {
			if again, ok := fromUTF7(modifiedUTF7(text)); !ok || again != text {
				t.Errorf("%q: %q", text, again)
			}
		}
		v := strings.ToValidUTF8(s, "")
		if strings.ContainsRune(v, '\uFFFD') {
			return
		}
		if text, ok := fromUTF7(modifiedUTF7(v)); !ok || text != v {
			t.Errorf("%q became %q, %v", v, text, ok)
		}
	})
}

// A script cannot make folders without end: beyond what can be listed, mail is kept in the inbox.
func TestFolderLimit(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	deliver := func(key, folder string) {
		t.Helper()
		d := delivery(key)
		d.Folder, d.Create = folder, true
		if err := p.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	deliver("a", "First")
	root, err := p.tree.root(delivery("x").Recipient)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sdk.MaxFolders - 2 {
		if err := os.Mkdir(filepath.Join(root, fmt.Sprintf(".%d", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	deliver("b", "Last")
	deliver("c", "One more")
	deliver("d", "First")
	for dir, want := range map[string]int{".First": 2, ".Last": 1, ".One more": 0, "": 1} {
		got, _ := filepath.Glob(filepath.Join(root, dir, "new", "*"))
		if len(got) != want {
			t.Errorf("%q has %d messages, want %d", dir, len(got), want)
		}
	}
}
