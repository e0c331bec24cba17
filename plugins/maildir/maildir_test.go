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
	"github.com/postern-mail/postern/sdk/sdktest"
)

var ann = mail.MustPath("Ann@example.org")

func configured(t testing.TB, data string) *Plugin {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{DataDir: data, Hostname: "mx.example.org"}); err != nil {
		t.Fatal(err)
	}
	return p
}

func delivery(key string) *sdk.Delivery {
	h, body := mail.SplitMessage([]byte("Return-Path: <a@example.com>\r\nSubject: " + key + "\r\n\r\nline\r\n.dot\r\n\r\nno end"))
	return &sdk.Delivery{Key: key, Recipient: ann, Message: &mail.Message{Header: h, Body: mail.InlineBody(body)}}
}

// isMessage reports whether a file is one that readers take for a message.
func isMessage(path string) bool {
	dir := filepath.Base(filepath.Dir(path))
	return dir == "new" || dir == "cur"
}

// files lists what is below dir, without directories.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestConformance(t *testing.T) {
	data := t.TempDir()
	sdktest.Mailbox(t, configured(t, data), ann, func(t *testing.T) int {
		if _, err := os.Stat(data + "/mail"); err != nil {
			return 0
		}
		return len(files(t, data+"/mail"))
	})
}

// The message is stored byte for byte, by nobody but the owner to be read.
func TestStoresTheMessage(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	p.now = func() time.Time { return time.Unix(1700000000, 0) }
	d := delivery("0c1f3k9w2m4xq.0")
	if err := p.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("mail/example.org/ann/new/1700000000.Q0c1f3k9w2m4xq%%2e0.mx.example.org,S=%d,W=%[1]d", d.Message.Size())
	if got := files(t, data); len(got) != 1 || got[0] != want {
		t.Fatalf("files are %v, want %s", got, want)
	}
	got, err := os.ReadFile(filepath.Join(data, want))
	if err != nil || string(got) != string(d.Message.Header.Block())+string(d.Message.Body.Inline) {
		t.Errorf("%q, %v", got, err)
	}
	filepath.Walk(filepath.Join(data, "mail"), func(path string, fi os.FileInfo, err error) error {
		mode := os.FileMode(0o600)
		if fi.IsDir() {
			mode = 0o700
		}
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, fi.Mode(), err)
		}
		return nil
	})
}

func TestBodyFromFile(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	for _, size := range []int{0, 1, 64<<10 - 60, 64 << 10, 64<<10 + 1, 1 << 20} {
		body := strings.Repeat("0123456789abcde\n", size/16+1)[:size]
		file := filepath.Join(data, "content")
		if err := os.WriteFile(file, []byte("xx"+body+"yy"), 0o600); err != nil {
			t.Fatal(err)
		}
		d := delivery(fmt.Sprint(size))
		d.Message.Body = mail.Body{Path: file, Offset: 2, Size: int64(size)}
		if err := p.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(data + "/mail/example.org/ann/new/*.Q" + d.Key + ".*")
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		got, err := os.ReadFile(names[0])
		if err != nil || string(got) != string(d.Message.Header.Block())+body {
			t.Errorf("size %d: stored %d bytes, %v", size, len(got), err)
		}
	}
	d := delivery("short")
	d.Message.Body = mail.Body{Path: filepath.Join(data, "content"), Size: 10 << 20}
	if err := p.Deliver(t.Context(), d); !mail.StatusOf(err).Temporary() {
		t.Errorf("a body that is cut off: %v", err)
	}
	d.Message.Body.Path += "x"
	if err := p.Deliver(t.Context(), d); !mail.StatusOf(err).Temporary() {
		t.Errorf("a body that is not there: %v", err)
	}
	if got := files(t, data+"/mail/example.org/ann/tmp"); len(got) != 0 {
		t.Errorf("left in tmp: %v", got)
	}
}

// A key that is stored is found by another process, wherever a reader has put it, until it
// is very old.
func TestIdempotentAcrossProcesses(t *testing.T) {
	data := t.TempDir()
	box := filepath.Join(data, "mail/example.org/ann")
	first := configured(t, data)
	if err := first.Deliver(t.Context(), delivery("k.1")); err != nil {
		t.Fatal(err)
	}
	again := func(name string, p *Plugin) {
		t.Helper()
		if err := p.Deliver(t.Context(), delivery("k.1")); err != nil {
			t.Fatal(err)
		}
		if got := files(t, box); len(got) != 1 {
			t.Errorf("%s: files are %v", name, got)
		}
	}
	again("same process", first)
	again("new process", configured(t, data))
	name := files(t, box)[0]
	seen := filepath.Join(box, "cur", filepath.Base(name)+":2,FS")
	if err := os.Rename(filepath.Join(box, name), seen); err != nil {
		t.Fatal(err)
	}
	again("seen, same process", first)
	again("seen, new process", configured(t, data))
	// Another process stores a key that this one has not.
	if err := configured(t, data).Deliver(t.Context(), delivery("k.2")); err != nil {
		t.Fatal(err)
	}
	if err := first.Deliver(t.Context(), delivery("k.2")); err != nil {
		t.Fatal(err)
	}
	if got := files(t, box); len(got) != 2 {
		t.Errorf("files are %v", got)
	}
	// The mailbox is removed under its feet.
	if err := os.RemoveAll(box); err != nil {
		t.Fatal(err)
	}
	if err := first.Deliver(t.Context(), delivery("k.3")); err != nil {
		t.Fatal(err)
	}
	if got := files(t, box); len(got) != 1 {
		t.Errorf("files are %v", got)
	}
}

func TestConcurrentDeliveries(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if err := p.Deliver(t.Context(), delivery(fmt.Sprint("k", i%16))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := files(t, data); len(got) != 16 {
		t.Errorf("%d files: %v", len(got), got)
	}
}

func TestFoldersAndFlags(t *testing.T) {
	for _, tt := range []struct {
		folder string
		flags  []string
		want   string // below the mailbox, without the name; "" for a permanent error
		suffix string
	}{
		{"", nil, "new", ""},
		{"inbox", nil, "new", ""},
		{"", []string{`\Seen`, `\Flagged`, `\seen`, "$Junk", "a b", "naïve"}, "cur", ":2,FSa"},
		{"", []string{"$Junk", "work", "$junk"}, "cur", ":2,ab"},
		{"", []string{"a(b"}, "new", ""},
		{"Lists/Go", nil, ".Lists.Go/new", ""},
		{"Lists.Go", []string{`\Deleted`, `\Draft`, `\Answered`}, ".Lists.Go/cur", ":2,DRT"},
		{"Entwürfe & mehr", nil, ".Entw&APw-rfe &- mehr/new", ""},
		{"../../../etc", nil, "", ""},
		{"/etc/cron.d/x", nil, "", ""},
		{"a//b", nil, "", ""},
		{"a/", nil, "", ""},
		{`..\..\etc`, nil, "", ""},
		{`a\b`, nil, `.a\b/new`, ""},
		{"..", nil, "", ""},
		{"/", nil, "", ""},
		{strings.Repeat("a/", 5000) + "b", nil, "", ""},
		{"\xff", nil, "", ""},
		{"a\u0085b", nil, "", ""},
		{"a\x00b", nil, "", ""},
		{"a\nb", nil, "", ""},
		{strings.Repeat("x", 254), nil, "." + strings.Repeat("x", 254) + "/new", ""},
		{strings.Repeat("x", 255), nil, "", ""},
	} {
		data := t.TempDir()
		d := delivery("k")
		d.Folder, d.Flags, d.Create = tt.folder, tt.flags, true
		err := configured(t, data).Deliver(t.Context(), d)
		if tt.want == "" {
			if !mail.StatusOf(err).Permanent() {
				t.Errorf("folder %q: %v", tt.folder, err)
			}
			if _, err := os.Stat(data + "/mail"); err == nil {
				t.Errorf("folder %q: something was made: %v", tt.folder, files(t, data))
			}
			continue
		}
		if err != nil {
			t.Errorf("folder %q: %v", tt.folder, err)
			continue
		}
		found := false
		for _, name := range files(t, data+"/mail/example.org/ann") {
			if !isMessage(name) {
				continue
			}
			found = filepath.Dir(name) == tt.want && strings.HasSuffix(name, fmt.Sprintf(",S=%d,W=%[1]d%s", d.Message.Size(), tt.suffix))
		}
		if !found {
			t.Errorf("folder %q, flags %v: files are %v", tt.folder, tt.flags, files(t, data))
		}
	}
}

// Whatever an address looks like, its mailbox is one directory below its domain's, and no
// two addresses share one.
func TestAddressesAreSafe(t *testing.T) {
	data := t.TempDir()
	p := configured(t, data)
	seen := make(map[string]string)
	for _, local := range []string{"ann", ".", "..", "../../x", "a/b", "a%2fb", ".hidden", "%2ehidden", "a b", "ünï", "UNÏ", "a:2,S", "a,b", "a.b", "new", "tmp", strings.Repeat("ü", 32), "a\\b", "a\tb"} {
		to := mail.Path{Local: local, Domain: mail.MustDomain("example.org")}
		root, _, err := p.locate(&sdk.Delivery{Recipient: to})
		if err != nil {
			t.Errorf("%q: %v", local, err)
			continue
		}
		if filepath.Dir(root) != data+"/mail/example.org" || strings.ContainsAny(filepath.Base(root), "/\x00\n\t :,") || filepath.Base(root)[0] == '.' {
			t.Errorf("%q: %q", local, root)
		}
		if other, ok := seen[root]; ok {
			t.Errorf("%q and %q share %s", local, other, root)
		}
		seen[root] = local
	}
	if a, _, _ := p.locate(&sdk.Delivery{Recipient: ann}); a != data+"/mail/example.org/ann" {
		t.Errorf("case matters: %s", a)
	}
	if _, _, err := p.locate(&sdk.Delivery{Recipient: mail.Path{Local: "postmaster"}}); err == nil {
		t.Error("no domain")
	}
	lit := mail.MustPath("a@[IPv6:2001:db8::1]")
	if a, _, err := p.locate(&sdk.Delivery{Recipient: lit}); err != nil || strings.Contains(a, ":") {
		t.Error(a, err)
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("a", "b")
	f.Add("../x", "%2e./x")
	f.Fuzz(func(t *testing.T, a, b string) {
		sa := safe(a)
		if strings.ContainsAny(sa, "/\x00:,\\ \n") || strings.HasPrefix(sa, ".") {
			t.Fatalf("%q -> %q", a, sa)
		}
		if a != b && sa == safe(b) {
			t.Fatalf("%q and %q -> %q", a, b, sa)
		}
		if back, ok := unsafe(sa); !ok || back != a {
			t.Fatalf("%q -> %q -> %q", a, sa, back)
		}
		for _, names := range []string{"utf-7", "utf-8"} {
			name, err := (&Settings{FolderNames: names}).folder(a)
			if err == nil && (strings.ContainsAny(name, "/\x00") || strings.Contains(name, "..") || len(name) < 2 || len(name) > maxName || name[0] != '.') {
				t.Fatalf("folder %q -> %q", a, name)
			}
		}
	})
}

func TestOldTemporaryFilesAreSwept(t *testing.T) {
	data := t.TempDir()
	tmp := filepath.Join(data, "mail/example.org/ann/tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{"old.Q": 37 * time.Hour, "young.Q": 35 * time.Hour} {
		_, key, _ := strings.Cut(name, ".")
		if err := os.WriteFile(filepath.Join(tmp, fmt.Sprintf("%d.%s%s.h,S=1", now.Add(-age).Unix(), key, name[:3])), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(tmp, "1.M1P2.other"), nil, 0o600)
	if err := configured(t, data).Deliver(t.Context(), delivery("k")); err != nil {
		t.Fatal(err)
	}
	got := files(t, tmp)
	if len(got) != 2 || strings.Contains(strings.Join(got, " "), "Qold") {
		t.Errorf("tmp has %v", got)
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		"path = '/var/mail'":                   "no {local}",
		"path = '/var/mail/{user}/{local}'":    "placeholders",
		"path = '/var/mail/{local'":            "no {local}",
		"pth = '/var/mail/{local}'":            `unknown key "pth"`,
		"path = \"/var/mail/{local}/\\u0000\"": "placeholders",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: "/data"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q", settings, err, want)
		}
	}
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte("path = 'boxes/{local}'"), DataDir: "/data"}); err != nil || p.tree.path != "/data/boxes/{local}" {
		t.Error(p.tree, err)
	}
}

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
