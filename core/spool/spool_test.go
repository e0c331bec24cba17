package spool

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/disk/disktest"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

func open(t testing.TB, o Options) *Spool {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func store(s *Spool, chunks ...[]byte) (*Writer, mail.Body, error) {
	w := s.NewWriter()
	for _, c := range chunks {
		if _, err := w.Write(c); err != nil {
			return w, mail.Body{}, err
		}
	}
	b, err := w.Finish()
	if err == nil {
		err = w.Sync()
	}
	return w, b, err
}

func content(t testing.TB, b mail.Body) []byte {
	t.Helper()
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestThreshold(t *testing.T) {
	for _, threshold := range []int{-1, 100, bufferSize, 2 * bufferSize} {
		s := open(t, Options{Dir: t.TempDir(), Threshold: threshold})
		for _, n := range []int{0, 1, threshold - 1, threshold, threshold + 1, 3*bufferSize + 7} {
			if n < 0 {
				continue
			}
			text := make([]byte, n)
			for i := range text {
				text[i] = byte(rand.Uint32())
			}
			for _, step := range []int{n + 1, 1000, 77} {
				var chunks [][]byte
				for rest := text; len(rest) > 0; rest = rest[min(step, len(rest)):] {
					chunks = append(chunks, rest[:min(step, len(rest))])
				}
				w, b, err := store(s, chunks...)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(content(t, b), text) || b.Size != int64(n) || w.Size() != int64(n) {
					t.Fatalf("threshold %d, %d bytes in steps of %d: altered", threshold, n, step)
				}
				if inline := b.Path == ""; inline != (n <= threshold || n == 0) {
					t.Fatalf("threshold %d, %d bytes: inline %t", threshold, n, inline)
				}
				if b.Path != "" {
					if err := s.Verify(b); err != nil || !b.Summed {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// TestInlineIsOwned: the pooled buffers of later messages do not show in earlier ones.
func TestInlineIsOwned(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	var bodies []mail.Body
	for i := range 50 {
		_, b, err := store(s, bytes.Repeat([]byte{byte(i)}, 1000))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, b)
	}
	for i, b := range bodies {
		if !bytes.Equal(content(t, b), bytes.Repeat([]byte{byte(i)}, 1000)) {
			t.Fatalf("body %d is altered", i)
		}
	}
}

func TestPermissions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	s := open(t, Options{Dir: dir, Threshold: -1})
	_, b, err := store(s, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{dir: 0o710, b.Path: 0o640} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

// TestMemory: what a message needs does not depend on its size.
func TestMemory(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	chunk := make([]byte, 32<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := s.NewWriter()
	for range 1000 {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	w.Abort()
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated for 32 MB", n)
	}
}

// TestD03SyncOrder: the file is synced before its directory, and nothing is synced twice.
func TestD03SyncOrder(t *testing.T) {
	var ops []string
	m := disktest.NewMem()
	f := disktest.NewFaults(m, nil)
	s := open(t, Options{Dir: "/spool", Threshold: 10, FS: f})
	f.SetFail(func(op disktest.Op) error { ops = append(ops, op.Kind); return nil })
	if _, _, err := store(s, []byte("0123456789")); err != nil || len(ops) != 0 {
		t.Fatal(ops, err)
	}
	if _, _, err := store(s, []byte("0123456789a")); err != nil || strings.Join(ops, " ") != "open write sync close syncdir" {
		t.Fatal(ops, err)
	}
}

// TestD05Faults fails every operation in every way: the error is told, says whether space
// is short, and after Abort nothing is left.
func TestD05Faults(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, disktest.Short()} {
		for n := 1; ; n++ {
			m := disktest.NewMem()
			f := disktest.NewFaults(m, nil)
			s := open(t, Options{Dir: "/spool", Threshold: 10, FS: f})
			f.SetFail(disktest.At(n, fault))
			w, _, err := store(s, make([]byte, 3*bufferSize))
			if f.Ops() < n {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil {
				t.Fatalf("%v at %d: no error", fault, n)
			}
			if errors.Is(err, queue.ErrNoSpace) != disk.IsFull(fault) {
				t.Errorf("%v at %d: %v", fault, n, err)
			}
			if _, err := w.Write([]byte("x")); err == nil {
				t.Errorf("%v at %d: goes on", fault, n)
			}
			w.Abort()
			if names, _ := s.Names(); len(names) != 0 {
				t.Errorf("%v at %d: %q is left", fault, n, names)
			}
		}
	}
}

// TestD02PowerCut: what Sync made durable is there, whole.
func TestD02PowerCut(t *testing.T) {
	for seed := range uint64(30) {
		m := disktest.NewMem()
		s := open(t, Options{Dir: "/spool", Threshold: 10, FS: m})
		_, b, err := store(s, bytes.Repeat([]byte("abc"), 1000))
		if err != nil {
			t.Fatal(err)
		}
		s = open(t, Options{Dir: "/spool", FS: m.Crash(seed)})
		if err := s.Verify(b); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestVerify(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), Threshold: -1})
	_, b, err := store(s, []byte("hello there"))
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func() error{
		func() error { return os.WriteFile(b.Path, []byte("hello thera"), 0o640) },
		func() error { return os.WriteFile(b.Path, []byte("hello"), 0o640) },
		func() error { return os.Remove(b.Path) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(b); !errors.Is(err, mail.ErrBodyDamaged) {
			t.Error(err)
		}
	}
}

func TestSetAsideAndSweep(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Threshold: -1})
	var names []string
	for range 4 {
		_, b, err := store(s, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(b.Path))
	}
	if err := s.SetAside(names[0], "looks bad"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "corrupt", names[0]+".reason")); string(b) != "looks bad\n" {
		t.Errorf("%q", b)
	}
	if n, err := s.Sweep(func(n string) bool { return n == names[1] || n == names[2] }, false); n != 1 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.Sweep(func(n string) bool { return n == names[1] }, true); n != 1 || err != nil {
		t.Error(n, err)
	}
	left, err := s.Names()
	if err != nil || len(left) != 1 || left[0] != names[1] {
		t.Error(left, err)
	}
	for name, want := range map[string]bool{names[0]: true, names[2]: true, names[3]: false} {
		if _, err := os.Stat(filepath.Join(dir, "corrupt", name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "..", "../../etc/passwd", "corrupt", strings.Repeat("a", 26)} {
		if s.Remove(bad) == nil || s.SetAside(bad, "") == nil {
			t.Errorf("%q was taken for a content", bad)
		}
	}
	if err := s.Remove(names[3]); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

// TestD11Space: at the limit it is content, below it is not, and it recovers by itself.
func TestD11Space(t *testing.T) {
	m := disktest.NewMem()
	now := time.Unix(1e9, 0)
	s := open(t, Options{Dir: "/spool", FS: m, MinFree: 1000, Clock: func() time.Time { return now }})
	for _, c := range []struct {
		space disk.Space
		ok    bool
	}{
		{disk.Space{Bytes: 10000, FreeBytes: 999, Inodes: 100, FreeInodes: 50}, false},
		{disk.Space{Bytes: 10000, FreeBytes: 1000, Inodes: 100, FreeInodes: 50}, true},
		{disk.Space{Bytes: 100000, FreeBytes: 4999, Inodes: 100, FreeInodes: 50}, false},
		{disk.Space{Bytes: 100000, FreeBytes: 5000, Inodes: 100, FreeInodes: 50}, true},
		{disk.Space{Bytes: 100000, FreeBytes: 5000, Inodes: 100, FreeInodes: 4}, false}, // D-12
		{disk.Space{Bytes: 100000, FreeBytes: 5000, Inodes: 100, FreeInodes: 5}, true},
		{disk.Space{Bytes: 100000, FreeBytes: 5000}, true}, // does not count inodes
	} {
		before := s.Space()
		m.SetSpace(c.space)
		if after := s.Space(); (after == nil) != (before == nil) && !now.Equal(time.Unix(1e9, 0)) {
			t.Errorf("looked twice within a second")
		}
		now = now.Add(time.Second)
		if err := s.Space(); (err == nil) != c.ok || err != nil && !errors.Is(err, queue.ErrNoSpace) {
			t.Errorf("%+v: %v", c.space, err)
		}
	}
}

// TestD11Margin: what is written counts. A message in the middle, or the next, is refused
// before the disk is full, though it is not a second since the last look.
func TestD11Margin(t *testing.T) {
	m := disktest.NewMem()
	now := time.Unix(1e9, 0)
	s := open(t, Options{Dir: "/spool", Threshold: 1000, FS: m, Clock: func() time.Time { return now }})
	roomy := disk.Space{Bytes: 20 << 20, FreeBytes: 3 << 20, Inodes: 100, FreeInodes: 15}
	full := func(space disk.Space, begin func() error, then func() error) {
		t.Helper()
		now = now.Add(time.Second)
		m.SetSpace(roomy)
		if err := begin(); err != nil {
			t.Fatal(err)
		}
		m.SetSpace(space)
		err := then()
		for range 2000 {
			if err != nil {
				break
			}
			err = then()
		}
		if !errors.Is(err, queue.ErrNoSpace) {
			t.Errorf("%+v: %v", space, err)
		}
	}
	w := s.NewWriter()
	chunk := make([]byte, bufferSize)
	full(disk.Space{Bytes: 20 << 20, FreeBytes: 1, Inodes: 100, FreeInodes: 15}, s.Space,
		func() error { _, err := w.Write(chunk); return err })
	if w.Size() > 2<<20 {
		t.Errorf("%d bytes were written", w.Size())
	}
	w.Abort()
	inline := func() error { _, _, err := store(s, make([]byte, 1000)); return err }
	full(disk.Space{Bytes: 20 << 20, FreeBytes: 1, Inodes: 100, FreeInodes: 15}, s.Space, inline)
	one := func() error { _, _, err := store(s, make([]byte, 1001)); return err }
	full(disk.Space{Bytes: 20 << 20, FreeBytes: 3 << 20, Inodes: 100, FreeInodes: 4}, s.Space, one)
}

func TestParallel(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), Threshold: 1000, FS: disktest.NewMem()})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			text := bytes.Repeat([]byte{byte(i)}, 500*(1+i%4))
			_, b, err := store(s, text)
			if err != nil {
				t.Error(err)
			} else if b.Path != "" {
				if err := s.Verify(b); err != nil {
					t.Error(err)
				}
			} else if !bytes.Equal(b.Inline, text) {
				t.Error("altered")
			}
			if err := s.Space(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
