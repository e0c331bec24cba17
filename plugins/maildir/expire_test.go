package maildir

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

const day = 24 * time.Hour

// Only what has been in the folders for trash and junk for too long is removed, by the
// account's own days if it has any, and never anything else.
func TestExpiry(t *testing.T) {
	p, host, now, ann := metered(t, "quota = '1MiB'\ntrash = ['Trash', 'Papierkorb/alt']\njunk_days = 3\ntrash_days = 5")
	mailboxes := filepath.Dir(ann)
	account := func(local string, settings map[string]string) {
		host.Accounts[mail.MustPath(local+"@example.org")] = sdk.Account{Info: &sdk.AccountInfo{Settings: settings}}
	}
	account("own", map[string]string{"junk_expiry": "30d", "trash_expiry": "never"})
	account("odd", map[string]string{"junk_expiry": "soon"})
	for _, local := range []string{"ann", "own", "odd", "x%2fy"} {
		for _, folder := range []string{"", "Trash", "Junk", "Papierkorb/alt", "Trash/Sub", "Other"} {
			d := sized(folder, 100)
			d.Recipient, d.Folder, d.Create = mail.Path{Local: strings.Replace(local, "%2f", "/", 1), Domain: mail.MustDomain("example.org")}, folder, true
			if folder == "Junk" {
				d.Flags = []string{`\Seen`}
			}
			if err := p.Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		for _, left := range []string{".Trash/tmp/1.x", ".Trash/subscriptions", ".Trash/cur/sub/1.x"} {
			path := filepath.Join(mailboxes, local, left)
			os.MkdirAll(filepath.Dir(path), 0o700)
			os.WriteFile(path, nil, 0o600)
		}
	}
	messages := func(local string) (list []string) {
		for _, f := range files(t, filepath.Join(mailboxes, local)) {
			if isMessage(f) {
				list = append(list, filepath.Dir(f))
			}
		}
		slices.Sort(list)
		return list
	}
	all := []string{".Junk/cur", ".Other/new", ".Papierkorb.alt/new", ".Trash.Sub/new", ".Trash/new", "new"}
	check := func(after time.Duration, local string, removed ...string) {
		t.Helper()
		want := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(removed, s) })
		if got := messages(local); !slices.Equal(got, want) {
			t.Errorf("after %v %s has\n%v, want\n%v", after, local, got, want)
		}
	}
	began := *now
	for after, step := range map[time.Duration]func(time.Duration){
		3*day - time.Minute: func(a time.Duration) {
			for _, l := range []string{"ann", "own", "odd", "x%2fy"} {
				check(a, l)
			}
		},
	} {
		*now = began.Add(after)
		p.expire(t.Context())
		step(after)
	}
	*now = began.Add(3*day + time.Minute)
	p.expire(t.Context())
	for _, l := range []string{"ann", "x%2fy"} {
		check(3*day, l, ".Junk/cur")
	}
	check(3*day, "own")
	check(3*day, "odd")
	*now = began.Add(100 * day)
	p.expire(t.Context())
	for _, l := range []string{"ann", "x%2fy"} {
		check(100*day, l, ".Junk/cur", ".Trash/new", ".Papierkorb.alt/new")
	}
	check(100*day, "own", ".Junk/cur")
	check(100*day, "odd", ".Trash/new", ".Papierkorb.alt/new")
	for _, left := range []string{".Trash/tmp/1.x", ".Trash/subscriptions", ".Trash/cur/sub/1.x"} {
		if _, err := os.Stat(filepath.Join(ann, left)); err != nil {
			t.Error(err)
		}
	}
	// The quota knows.
	if s, err := readSizes(ann); err != nil || s.total != (amount{300, 3}) {
		t.Errorf("%+v, %v", s, err)
	}
	// Who gives no answer keeps his mail.
	host.Handle.Close()
	*now = began.Add(1000 * day)
	p.expire(t.Context())
	check(1000*day, "own", ".Junk/cur")
}

// Symbolic links lead nowhere.
func TestExpiryStaysInTheMailbox(t *testing.T) {
	p, _, now, box := metered(t, "trash_days = 1\njunk_days = 1")
	for _, local := range []string{"ann", "bob"} {
		for _, folder := range []string{"", "Trash"} {
			d := sized("k", 100)
			d.Recipient, d.Folder = mail.MustPath(local+"@example.org"), folder
			if err := p.Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	bob := filepath.Join(filepath.Dir(box), "bob")
	os.RemoveAll(filepath.Join(box, ".Trash", "new"))
	for link, target := range map[string]string{".Junk": bob, ".Trash/new": "../../bob/new", ".Trash/cur/1.x": filepath.Join(bob, "new")} {
		os.RemoveAll(filepath.Join(box, link))
		if err := os.Symlink(target, filepath.Join(box, link)); err != nil {
			t.Fatal(err)
		}
	}
	*now = now.Add(100 * day)
	p.expire(t.Context())
	if got := files(t, filepath.Join(bob, "new")); len(got) != 1 {
		t.Errorf("bob has %v", got)
	}
	if got := files(t, filepath.Join(bob, ".Trash")); len(got) != 1 { // maildirfolder
		t.Errorf("bob's trash has %v", got)
	}
}

// told is a log that hands on its lines.
type told struct {
	slog.Handler
	lines chan string
}

func (told) Enabled(context.Context, slog.Level) bool { return true }

func (h told) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.lines <- r.Message:
	default:
	}
	return nil
}

func TestServe(t *testing.T) {
	p, _, now, box := metered(t, "trash_days = 1")
	d := sized("k", 100)
	d.Folder = "Trash"
	if err := p.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(2 * day)
	heard := told{slog.DiscardHandler, make(chan string, 10)}
	before, out, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(heard))
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Serve(ctx, nil) }()
	select {
	case <-heard.lines: // it has been through all mailboxes
	case <-time.After(30 * time.Second):
		t.Error("nothing was removed")
	}
	if left := files(t, filepath.Join(box, ".Trash", "new")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// All mailboxes are found, and their addresses, wherever the placeholders are.
func TestWalk(t *testing.T) {
	for _, path := range []string{"{data_dir}/mail/{domain}/{local}", "{domain}/x-{local}-y/Maildir", "{local}@{domain}", "a/{local}"} {
		data := t.TempDir()
		tr, err := newTree(path, data)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]mail.Path{}
		for _, a := range []string{"ann@example.org", "b.c+d@xn--bcher-kva.example", `"a b/c"@example.org`, `".."@example.net`} {
			p := mail.MustPath(a)
			root, err := tr.root(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(root, "cur"), 0o700); err != nil {
				t.Fatal(err)
			}
			os.MkdirAll(filepath.Join(root, ".Folder", "cur"), 0o700)
			if path == "a/{local}" {
				p = mail.Path{}
			}
			want[root] = p
		}
		os.MkdirAll(filepath.Join(data, "mail", "unrelated", "x"), 0o700)
		got := map[string]mail.Path{}
		tr.walk(t.Context(), func(root string, address mail.Path) { got[root] = address })
		if len(got) != len(want) {
			t.Errorf("%s: found %v", path, got)
		}
		for root, a := range want {
			if got[root] != a {
				t.Errorf("%s: %s is %q, want %q", path, root, got[root], a)
			}
		}
	}
}
