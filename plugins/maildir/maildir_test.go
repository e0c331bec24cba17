package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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
