package disktest

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/core/disk"
)

func put(t *testing.T, fs disk.FS, name, text string, sync bool) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
}

func read(fs disk.FS, name string) (string, error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	return string(b), err
}

// TestCrash: what was synced with its name is there, all else may be in any state.
func TestCrash(t *testing.T) {
	m := NewMem()
	m.MkdirAll("/d", 0o700)
	put(t, m, "/d/safe", "safe", true)
	put(t, m, "/d/gone", "gone", true)
	m.SyncDir("/d")
	put(t, m, "/d/noname", "text", true)
	put(t, m, "/d/safe2", "content", false)
	m.SyncDir("/d")
	put(t, m, "/d/late", "late", true)
	m.Remove("/d/gone")
	seen := make(map[string]bool)
	for seed := range uint64(100) {
		after := m.Crash(seed)
		if got, err := read(after, "/d/safe"); got != "safe" || err != nil {
			t.Fatalf("seed %d: %q %v", seed, got, err)
		}
		if got, err := read(after, "/d/noname"); got != "text" || err != nil {
			t.Fatalf("seed %d: %q %v", seed, got, err)
		}
		got, err := read(after, "/d/safe2")
		if err != nil {
			t.Fatalf("seed %d: a durable name is gone: %v", seed, err)
		}
		seen["content "+got] = true
		if _, err := read(after, "/d/late"); err != nil {
			seen["late name lost"] = true
		} else {
			seen["late name kept"] = true
		}
		if _, err := read(after, "/d/gone"); err == nil {
			seen["removal lost"] = true
		}
	}
	for _, want := range []string{"content ", "content content", "content \x00\x00\x00\x00\x00\x00\x00", "content con", "late name lost", "late name kept", "removal lost"} {
		if !seen[want] {
			t.Errorf("%q never happened: %v", want, seen)
		}
	}
	if got, err := read(m.Kill(), "/d/safe2"); got != "content" || err != nil {
		t.Errorf("after a kill: %q %v", got, err)
	}
}

func TestFaults(t *testing.T) {
	m := NewMem()
	f := NewFaults(m, At(2, syscall.EIO))
	file, err := f.OpenFile("/x", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := file.Write([]byte("abcd")); n != 0 || err != syscall.EIO {
		t.Error(n, err)
	}
	if n, err := file.Write([]byte("abcd")); n != 4 || err != nil || f.Ops() != 3 {
		t.Error(n, err, f.Ops())
	}
	f.SetFail(At(1, Short()))
	if n, err := file.Write([]byte("efgh")); n != 2 || !disk.IsFull(err) {
		t.Error(n, err)
	}
	f.SetFail(CutAt(1))
	if err := file.Sync(); !errors.Is(err, ErrCut) || !f.IsCut() {
		t.Error(err)
	}
	if _, err := f.OpenFile("/x", os.O_RDONLY, 0); !errors.Is(err, ErrCut) {
		t.Error(err)
	}
	if got, err := read(m, "/x"); got != "abcdef" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}
