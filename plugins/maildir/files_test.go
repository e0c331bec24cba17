package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// A folder that does not exist is made when that is asked for, or is one for trash or junk,
// or the admin wants it; else the inbox has the message, once.
func TestFoldersOnDemand(t *testing.T) {
	for _, tt := range []struct {
		settings, folder string
		create           bool
		want             string
	}{
		{"", "Lists", false, "new"},
		{"", "Lists", true, ".Lists/new"},
		{"", "Junk", false, ".Junk/new"},
		{"", "junk", false, "new"},
		{"", "Trash", false, ".Trash/new"},
		{"junk = ['Spam']", "Spam", false, ".Spam/new"},
		{"junk = ['Spam']", "Junk", false, "new"},
		{"create_folders = true", "Lists", false, ".Lists/new"},
	} {
		p, _, _, box := metered(t, tt.settings)
		for range 2 {
			d := delivery("k")
			d.Folder, d.Create = tt.folder, tt.create
			if err := p.Deliver(t.Context(), d); err != nil {
				t.Fatal(tt, err)
			}
		}
		var where []string
		for _, f := range files(t, box) {
			if isMessage(f) {
				where = append(where, filepath.Dir(f))
			}
		}
		if len(where) != 1 || where[0] != tt.want {
			t.Errorf("%+v: it is in %v", tt, where)
		}
		// The folder comes later: another process still finds the message in the inbox.
		if tt.want == "new" {
			os.MkdirAll(filepath.Join(box, "."+tt.folder, "cur"), 0o700)
			q := New()
			if err := q.Configure(t.Context(), sdk.Config{DataDir: filepath.Join(box, "../../.."), Hostname: "mx.example.org"}); err != nil {
				t.Fatal(err)
			}
			d := delivery("k")
			d.Folder = tt.folder
			if err := q.Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(box, "."+tt.folder, "new")); err == nil && len(files(t, filepath.Join(box, "."+tt.folder, "new"))) > 0 {
				t.Errorf("%+v: stored again", tt)
			}
		}
	}
}

func TestSubscribed(t *testing.T) {
	for _, tt := range []struct{ text, folder, want string }{
		{"", "A", "A\n"},
		{"A\nB\n", "A.B", "A\nB\nA.B\n"},
		{"A\nB", "C", "A\nB\nC\n"},
		{"A\nA.B\n", "A.B", ""},
		{"V\t2\n\nA\n", "A.B", "V\t2\n\nA\nA\tB\n"},
		{"V\t2\n\nA\tB\n", "A.B", ""},
	} {
		got, changed := subscribed([]byte(tt.text), tt.folder)
		if changed != (tt.want != "") || changed && string(got) != tt.want {
			t.Errorf("%q + %q: %q", tt.text, tt.folder, got)
		}
	}
}

// Keywords keep the letters that they have; when there are no more letters, the message is
// stored without.
func TestKeywords(t *testing.T) {
	p, _, _, box := metered(t, "")
	if err := p.Deliver(t.Context(), delivery("k0")); err != nil {
		t.Fatal(err)
	}
	table := "0 Junk\n2 $Forwarded\nnonsense\n99 x\n-1 y\n"
	if err := os.WriteFile(filepath.Join(box, keywordFile), []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	deliver := func(key string, flags ...string) string {
		t.Helper()
		d := delivery(key)
		d.Flags = flags
		if err := p.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		names, _ := filepath.Glob(filepath.Join(box, "*", "*.Q"+key+".*"))
		if len(names) != 1 {
			t.Fatal(names)
		}
		_, letters, _ := strings.Cut(names[0], ":2,")
		return letters
	}
	if got := deliver("k1", "junk", "$Forwarded", `\Seen`); got != "Sac" {
		t.Error(got)
	}
	if b, _ := os.ReadFile(filepath.Join(box, keywordFile)); string(b) != table {
		t.Errorf("the table was written for nothing: %q", b)
	}
	if got := deliver("k2", "one", "Two"); got != "bd" {
		t.Error(got)
	}
	if b, _ := os.ReadFile(filepath.Join(box, keywordFile)); string(b) != "0 Junk\n1 one\n2 $Forwarded\n3 Two\n" {
		t.Errorf("%q", b)
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprint("word", i))
	}
	if got := deliver("k3", many...); got != "efghijklmnopqrstuvwxyz" {
		t.Error(got)
	}
	if got := deliver("k4", "onemore"); got != "" {
		t.Error(got)
	}
	if _, err := os.Stat(filepath.Join(box, keywordLock)); err == nil {
		t.Error("the lock is left")
	}
}

// A lock that somebody holds is waited for, and is no reason to lose a keyword; one whose
// owner is dead, or that is very old, is nobody's.
func TestLocks(t *testing.T) {
	p, _, now, box := metered(t, "")
	if err := p.Deliver(t.Context(), delivery("k0")); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(box, keywordLock)
	d := delivery("k1")
	d.Flags = []string{"word"}
	p.patience = 50 * time.Millisecond
	for _, text := range []string{"", fmt.Sprintf("%d:%s", os.Getpid(), p.machine), "999999999:elsewhere", "x"} {
		if err := os.WriteFile(lock, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Deliver(t.Context(), d); !mail.StatusOf(err).Temporary() {
			t.Errorf("locked by %q: %v", text, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Deliver(ctx, d); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := files(t, filepath.Join(box, "tmp")); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	os.WriteFile(lock, []byte("999999999:"+p.machine), 0o600)
	if err := p.Deliver(t.Context(), d); err != nil {
		t.Errorf("the owner is dead: %v", err)
	}
	os.WriteFile(lock, []byte("1:elsewhere"), 0o600)
	*now = now.Add(lockStale + time.Minute)
	d = delivery("k2")
	d.Flags = []string{"other"}
	if err := p.Deliver(t.Context(), d); err != nil {
		t.Errorf("it is old: %v", err)
	}
	// Released while we wait.
	os.WriteFile(lock, []byte("1:elsewhere"), 0o600)
	os.Chtimes(lock, time.Time{}, *now)
	p.patience = time.Minute
	held := &releasing{lock: lock, finds: 2}
	p.disk = held
	d = delivery("k3")
	d.Flags = []string{"third"}
	if err := p.Deliver(t.Context(), d); err != nil || held.finds != 0 {
		t.Errorf("%v, it would have been there %d times more", err, held.finds)
	}
}

// releasing is a disk on which the owner of a lock lets go of it once somebody has found it so
// many times.
type releasing struct {
	osDisk
	lock  string
	finds int
}

func (r *releasing) Create(path string) (file, error) {
	f, err := r.osDisk.Create(path)
	if path == r.lock && errors.Is(err, fs.ErrExist) {
		if r.finds--; r.finds == 0 {
			os.Remove(path)
		}
	}
	return f, err
}

// A delivery costs the same into an empty folder and into one with a hundred thousand
// messages.
func BenchmarkDeliverInto(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := configured(b, b.TempDir())
			d := delivery("first")
			d.Fresh = true
			if err := p.Deliver(b.Context(), d); err != nil {
				b.Fatal(err)
			}
			root, _ := p.tree.root(ann)
			for i := range n {
				f, err := os.Create(filepath.Join(root, "cur", fmt.Sprintf("%d.Qold-%d.mx,S=4000,W=4000:2,S", 1700000000+i, i)))
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
			h, body := mail.SplitMessage([]byte("Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 250)))
			m := &mail.Message{Header: h, Body: mail.InlineBody(body)}
			i := 0
			for b.Loop() {
				i++
				if err := p.Deliver(b.Context(), &sdk.Delivery{Key: fmt.Sprint(i), Recipient: ann, Message: m, Fresh: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
