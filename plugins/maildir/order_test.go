package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// slow is a disk that tells and fails as it is told.
type slow struct {
	osDisk
	mu    sync.Mutex
	root  string
	ops   []string
	fail  int // the operation that fails, from 1; 0: none
	after bool
	err   error
}

// step notes an operation, and does it or fails.
func (s *slow) step(op, path string, do func() error) error {
	s.mu.Lock()
	rel, _ := filepath.Rel(s.root, path)
	if i := strings.Index(rel, ".Q"); i >= 0 {
		rel = filepath.Dir(rel) + "/MSG"
	}
	s.ops = append(s.ops, op+" "+rel)
	n := len(s.ops)
	s.mu.Unlock()
	if n == s.fail && !s.after {
		return s.err
	}
	err := do()
	if n == s.fail {
		return s.err
	}
	return err
}

func (s *slow) Mkdir(path string) error {
	return s.step("mkdir", path, func() error { return s.osDisk.Mkdir(path) })
}

func (s *slow) Rename(from, to string) error {
	return s.step("rename", to, func() error { return s.osDisk.Rename(from, to) })
}

func (s *slow) SyncDir(path string) error {
	return s.step("syncdir", path, func() error { return s.osDisk.SyncDir(path) })
}

func (s *slow) Create(path string) (f file, err error) {
	err = s.step("create", path, func() (err error) { f, err = s.osDisk.Create(path); return err })
	if err != nil {
		return nil, err
	}
	return &slowFile{f, s, path}, nil
}

type slowFile struct {
	file
	s    *slow
	path string
}

func (f *slowFile) Write(b []byte) (n int, err error) {
	err = f.s.step("write", f.path, func() (err error) { n, err = f.file.Write(b); return err })
	return n, err
}

func (f *slowFile) Sync() error { return f.s.step("sync", f.path, f.file.Sync) }

// What is promised to survive a power cut depends on this order and nothing else.
func TestOrderOnDisk(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	disk := &slow{root: data}
	p.disk = disk
	if err := p.Deliver(t.Context(), delivery("k1")); err != nil {
		t.Fatal(err)
	}
	const box = "mail/example.org/ann"
	want := []string{
		"mkdir " + box, "mkdir mail/example.org", "mkdir mail", "mkdir mail/example.org", // tries the last first
		"mkdir " + box,
	}
	var makes, rest []string
	for i, op := range disk.ops {
		if strings.HasPrefix(op, "create") {
			makes, rest = disk.ops[:i], disk.ops[i:]
			break
		}
	}
	message := []string{"create " + box + "/tmp/MSG", "write " + box + "/tmp/MSG", "sync " + box + "/tmp/MSG", "rename " + box + "/new/MSG", "syncdir " + box + "/new"}
	if d := cmp.Diff(message, rest); d != "" {
		t.Errorf("message (-want +got):\n%s", d)
	}
	var mkdirs []string
	for i, op := range makes {
		dir, ok := strings.CutPrefix(op, "mkdir ")
		if !ok {
			continue
		}
		mkdirs = append(mkdirs, op)
		// The last mkdir of a directory is the one that made it; its parent is synced later.
		synced := false
		for _, later := range makes[i:] {
			synced = synced || later == "syncdir "+filepath.Dir(dir)
		}
		if !synced {
			t.Errorf("%s is not followed by a sync of its parent", op)
		}
	}
	want = append(want, "mkdir "+box+"/tmp", "mkdir "+box+"/new", "mkdir "+box+"/cur")
	if d := cmp.Diff(want, mkdirs); d != "" {
		t.Errorf("directories (-want +got):\n%s", d)
	}
	disk.ops = nil
	if err := p.Deliver(t.Context(), delivery("k2")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(message, disk.ops); d != "" {
		t.Errorf("the second message does more than it must (-want +got):\n%s", d)
	}
	disk.ops = nil
	if err := p.Deliver(t.Context(), delivery("k2")); err != nil || len(disk.ops) != 0 {
		t.Errorf("the same key again: %v, %v", disk.ops, err)
	}
}

// Any operation fails, before or after it had its effect: the delivery is temporarily
// refused, no reader ever sees a part of a message, and trying again, in this process or
// another, gives exactly one.
func TestFailureAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, restart := range []bool{false, true} {
			for n := 1; ; n++ {
				data := t.TempDir()
				p := configured(t, data)
				disk := &slow{root: data, fail: n, after: after, err: syscall.EIO}
				p.disk = disk
				p.patience = time.Millisecond
				d := delivery("k")
				d.Folder, d.Create = "Sub", true
				err := p.Deliver(t.Context(), d)
				name := fmt.Sprintf("operation %d, after %v, restart %v", n, after, restart)
				if err != nil && !mail.StatusOf(err).Temporary() {
					t.Errorf("%s: %v", name, err)
				}
				visible := checkVisible(t, name, data, d)
				if err == nil && visible != 1 {
					t.Errorf("%s: reported as stored, and there are %d", name, visible)
				}
				if len(disk.ops) < n {
					break // there are no more operations
				}
				disk.fail = 0
				if restart {
					p = configured(t, data)
					p.patience = time.Millisecond
				}
				if err := p.Deliver(t.Context(), d); err != nil {
					t.Errorf("%s: again: %v", name, err)
				}
				if visible := checkVisible(t, name, data, d); visible != 1 {
					t.Errorf("%s: again: %d messages", name, visible)
				}
			}
		}
	}
}

func checkVisible(t *testing.T, name, data string, d *sdk.Delivery) int {
	t.Helper()
	n := 0
	for _, f := range files(t, data) {
		if !isMessage(f) {
			continue
		}
		n++
		if b, err := os.ReadFile(filepath.Join(data, f)); err != nil || int64(len(b)) != d.Message.Size() {
			t.Errorf("%s: a reader sees %d bytes, %v", name, len(b), err)
		}
	}
	return n
}

func TestErrorsAreTemporary(t *testing.T) {
	for err, want := range map[error]int{syscall.ENOSPC: 452, syscall.EDQUOT: 452, syscall.EACCES: 451, syscall.EROFS: 451} {
		data := t.TempDir()
		p := configured(t, data)
		if err := p.Deliver(t.Context(), delivery("k0")); err != nil {
			t.Fatal(err)
		}
		p.disk = &slow{root: data, fail: 2, err: &os.PathError{Op: "write", Err: err}}
		if s := mail.StatusOf(p.Deliver(t.Context(), delivery("k"))); s.Code != want {
			t.Errorf("%v: %v", err, s)
		}
		if got := files(t, data); len(got) != 1 {
			t.Errorf("%v: left: %v", err, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := configured(t, t.TempDir()).Deliver(ctx, delivery("k")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func BenchmarkDeliver4K(b *testing.B) {
	p := configured(b, b.TempDir())
	h, body := mail.SplitMessage([]byte("Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 250)))
	m := &mail.Message{Header: h, Body: mail.InlineBody(body)}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if err := p.Deliver(b.Context(), &sdk.Delivery{Key: fmt.Sprint(i), Recipient: ann, Message: m}); err != nil {
			b.Fatal(err)
		}
	}
}
