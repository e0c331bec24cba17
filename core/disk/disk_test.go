package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestOS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var d OS
	if err := d.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "file")
	f, err := d.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("hello there"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Truncate(5), f.Sync(), d.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Size(); n != 5 || err != nil {
		t.Error(n, err)
	}
	if n, err := d.Size(name); n != 5 || err != nil {
		t.Error(n, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if err := d.Rename(name, name+"2"); err != nil {
		t.Fatal(err)
	}
	if names, err := d.ReadDir(dir); !slices.Equal(names, []string{"file2"}) || err != nil {
		t.Error(names, err)
	}
	if err := d.Remove(name + "2"); err != nil {
		t.Fatal(err)
	}
	if err := d.SyncDir(name); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if sp, err := d.Space(dir); err != nil || sp.Bytes == 0 || sp.FreeBytes > sp.Bytes {
		t.Error(sp, err)
	}
}

func TestNoSymlinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_CREATE | os.O_RDWR} {
		if f, err := (OS{}).OpenFile(link, flag, 0o600); err == nil {
			f.Close()
			t.Errorf("flag %#x follows a link", flag)
		}
	}
	if _, err := (OS{}).Size(link); err == nil {
		t.Error("the size of a link was told")
	}
}

// TestD21Lock: only one at a time, and the error says so.
func TestD21Lock(t *testing.T) {
	dir := t.TempDir()
	l, err := OS{}.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (OS{}).Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = OS{}.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestIsFull(t *testing.T) {
	for err, want := range map[error]bool{syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EFBIG: true, syscall.EIO: false, os.ErrNotExist: false} {
		if IsFull(fmt.Errorf("write: %w", &os.PathError{Op: "write", Err: err})) != want {
			t.Errorf("%v", err)
		}
	}
	if IsFull(nil) {
		t.Error("nil")
	}
}
