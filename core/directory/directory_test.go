package directory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func open(t testing.TB, path string) *Directory {
	t.Helper()
	d, err := Open(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	d.Declare([]Domain{{Name: mail.MustDomain("example.org"), Aliases: []mail.Domain{mail.MustDomain("example.net")}}}, mail.MustPath("boss@example.org"))
	return d
}

func newDirectory(t testing.TB) *Directory {
	return open(t, filepath.Join(t.TempDir(), "directory.db"))
}

// account adds an account with little work: tests that do not log in need no good verifier.
func account(t testing.TB, d *Directory, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		p := mail.MustPath(a)
		if _, err := d.exec(context.Background(), `INSERT INTO accounts (domain, local, created, salt, iterations, stored_key, server_key) VALUES (?, ?, 0, x'00', 1, x'00', x'00')`,
			p.Domain.String(), p.Local); err != nil {
			t.Fatal(err)
		}
	}
}

// alias writes an alias as it may have become: its targets are not checked.
func alias(t testing.TB, d *Directory, address string, targets ...string) {
	t.Helper()
	p := mail.Path{Domain: mail.MustDomain("example.org")} // the catch-all
	if !strings.HasPrefix(address, "@") {
		p = mail.MustPath(address)
	}
	for _, to := range targets {
		if _, err := d.exec(context.Background(), `INSERT INTO aliases (domain, local, target) VALUES (?, ?, ?)`, p.Domain.String(), p.Local, to); err != nil {
			t.Fatal(err)
		}
	}
}

// resolve gives the targets in words, or the error.
func resolve(d *Directory, address string) string {
	targets, err := d.Resolve(context.Background(), mail.MustPath(address))
	for _, known := range []struct {
		err  error
		name string
	}{{ErrNotFound, "not found"}, {ErrDisabled, "disabled"}, {ErrNotLocal, "not local"}, {ErrTooDeep, "too deep"}} {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, p := range targets {
		out = append(out, p.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestResolve(t *testing.T) {
	d := newDirectory(t)
	ctx := context.Background()
	account(t, d, "alice@example.org", "bob@example.org", "carol+x@example.org", "gone@example.org", "boss@example.org", "ümit@example.org")
	if err := d.SetEnabled(ctx, mail.MustPath("GONE@example.org"), false); err != nil {
		t.Fatal(err)
	}
	alias(t, d, "info@example.org", "alice@example.org", "BOB@example.net", "away@example.com")
	alias(t, d, "all@example.org", "info@example.org", "alice@example.org", "carol+x@example.org", "gone@example.org")
	alias(t, d, "loop1@example.org", "loop2@example.org")
	alias(t, d, "loop2@example.org", "loop1@example.org")
	alias(t, d, "loop3@example.org", "loop1@example.org", "alice@example.org")
	alias(t, d, "bob@example.org", "bob@example.org", "copy@example.com")
	alias(t, d, "former@example.org", "gone@example.org")
	alias(t, d, "nobody@example.org", "missing@example.org")
	alias(t, d, "tagged+x@example.org", "alice@example.org")
	for address, want := range map[string]string{
		"alice@example.org":       "alice@example.org",
		"ALICE@Example.Org":       "alice@example.org",
		"alice@example.net":       "alice@example.org",
		"alice+lists@example.org": "alice@example.org",
		"alice+a+b@example.org":   "alice@example.org",
		"carol+x@example.org":     "carol+x@example.org", // the exact address goes first
		"carol@example.org":       "not found",
		"carol+y@example.org":     "not found",
		"+x@example.org":          "not found",
		"ÜMIT@example.org":        "ümit@example.org",
		"info@example.org":        "alice@example.org away@example.com bob@example.org copy@example.com",
		"info+tag@example.net":    "alice@example.org away@example.com bob@example.org copy@example.com",
		"all@example.org":         "alice@example.org away@example.com bob@example.org carol+x@example.org copy@example.com",
		"bob@example.org":         "bob@example.org copy@example.com",
		"loop1@example.org":       "not found",
		"loop3@example.org":       "alice@example.org",
		"gone@example.org":        "disabled",
		"gone+x@example.org":      "disabled",
		"former@example.org":      "disabled",
		"nobody@example.org":      "not found",
		"missing@example.org":     "not found",
		"tagged+x@example.org":    "alice@example.org",
		"tagged@example.org":      "not found",
		"postmaster@example.org":  "boss@example.org",
		"PostMaster@example.net":  "boss@example.org",
		"alice@example.com":       "not local",
		"alice@sub.example.org":   "not local",
		"alice@[192.0.2.1]":       "not local",
	} {
		if got := resolve(d, address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	alias(t, d, "@example.org", "alice@example.org", "sink@example.com")
	for address, want := range map[string]string{
		"missing@example.org":    "alice@example.org sink@example.com",
		"missing+x@example.net":  "alice@example.org sink@example.com",
		"bob@example.org":        "bob@example.org copy@example.com",
		"gone@example.org":       "disabled", // a disabled account is not an unknown one
		"postmaster@example.org": "boss@example.org",
		"nobody@example.org":     "alice@example.org sink@example.com",
	} {
		if got := resolve(d, address); got != want {
			t.Errorf("with a catch-all, %s: %q, want %q", address, got, want)
		}
	}
	account(t, d, "postmaster@example.org")
	if got := resolve(d, "postmaster@example.org"); got != "postmaster@example.org" {
		t.Errorf("postmaster with an account: %s", got)
	}
}

// TestA29Postmaster: postmaster leads to the configured address, wherever that is, never
// round in a circle, and at worst to a domain of ours.
func TestA29Postmaster(t *testing.T) {
	d, err := Open(Options{Path: filepath.Join(t.TempDir(), "directory.db"), Hostname: mail.MustDomain("mx.example.org")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	org := []Domain{{Name: mail.MustDomain("example.org")}, {Name: mail.MustDomain("example.com")}}
	d.Declare(org, mail.Path{})
	account(t, d, "boss@example.org", "gone@example.org")
	if err := d.SetEnabled(context.Background(), mail.MustPath("gone@example.org"), false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ postmaster, address, want string }{
		{"boss@elsewhere.example", "postmaster@example.org", "boss@elsewhere.example"},
		{"boss@elsewhere.example", "POSTMASTER@mx.example.org", "boss@elsewhere.example"},
		{"boss@example.org", "postmaster@mx.example.org", "boss@example.org"},
		{"boss@example.org", "postmaster@example.com", "boss@example.org"},
		{"missing@example.org", "postmaster@example.com", "postmaster@example.com"},
		{"gone@example.org", "postmaster@example.com", "postmaster@example.com"},
		{"postmaster@example.org", "postmaster@example.org", "postmaster@example.org"},
		{"postmaster@example.org", "postmaster@example.com", "postmaster@example.com"},
		{"postmaster@mx.example.org", "postmaster@mx.example.org", "postmaster@example.org"},
		{"postmaster@mx.example.org", "postmaster@example.com", "postmaster@example.com"},
		{"postmaster@mx.example.org", "other@mx.example.org", "not local"},
		{"", "postmaster@example.com", "postmaster@example.com"},
		{"", "postmaster@mx.example.org", "postmaster@example.org"},
		{"", "postmaster@elsewhere.example", "not local"},
	} {
		d.Declare(org, mail.MustPath(c.postmaster))
		if got := resolve(d, c.address); got != c.want {
			t.Errorf("postmaster %s: %s: %q, want %q", c.postmaster, c.address, got, c.want)
		}
	}
	d.Declare(nil, mail.MustPath("postmaster@mx.example.org"))
	if got := resolve(d, "postmaster@mx.example.org"); got != "not found" {
		t.Errorf("a gateway without domains: %q", got)
	}
	account(t, d, "postmaster@example.org")
	d.Declare(org, mail.MustPath("boss@elsewhere.example"))
	if got := resolve(d, "postmaster@example.org"); got != "postmaster@example.org" {
		t.Errorf("an account called postmaster: %q", got)
	}
}

func TestExpand(t *testing.T) {
	d := newDirectory(t)
	account(t, d, "alice@example.org")
	for address, want := range map[string]string{
		"alice+x@example.org": "alice@example.org",
		"unknown@example.org": "unknown@example.org",
		"Unknown@example.net": "Unknown@example.org", // the same mailbox, whoever knows it
		"Someone@example.com": "Someone@example.com",
	} {
		got, err := d.Expand(context.Background(), mail.MustPath(address))
		if err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v %v", address, got, err)
		}
	}
}

// TestAliasDepth: chains are followed up to a limit.
func TestAliasDepth(t *testing.T) {
	d := newDirectory(t)
	account(t, d, "end@example.org")
	for _, n := range []int{maxDepth - 1, maxDepth, maxDepth + 1} {
		for i := range n {
			to := fmt.Sprintf("c%d-%d@example.org", n, i+1)
			if i == n-1 {
				to = "end@example.org"
			}
			alias(t, d, fmt.Sprintf("c%d-%d@example.org", n, i), to)
		}
		want := "end@example.org"
		if n > maxDepth {
			want = "too deep"
		}
		if got := resolve(d, fmt.Sprintf("c%d-0@example.org", n)); got != want {
			t.Errorf("%d aliases: %q, want %q", n, got, want)
		}
	}
}

// TestC04Injection: an address is never more than an address.
func TestC04Injection(t *testing.T) {
	d := newDirectory(t)
	account(t, d, "alice@example.org")
	for _, local := range []string{`' or 1=1 --`, `*)(uid=*`, `../x`, `%`, `_____`, `alice'; drop table accounts; --`, `alice" or ""="`, `*`} {
		p, err := mail.MakePath(local, "example.org")
		if err != nil {
			t.Fatal(err)
		}
		if targets, err := d.Resolve(context.Background(), p); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v %v", local, targets, err)
		}
		if _, ok, err := d.Verifier(context.Background(), p); ok || err != nil {
			t.Errorf("%q has a verifier: %v", local, err)
		}
		if err := d.AddAccount(context.Background(), p, "x"); err != nil {
			t.Errorf("%q: %v", local, err)
		}
		if got := resolve(d, p.String()); got != p.Fold().String() {
			t.Errorf("%q after adding it: %s", local, got)
		}
	}
}

func TestAccounts(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	alice := mail.MustPath("Alice@example.net")
	if err := d.AddAccount(ctx, alice, "pässword"); err != nil {
		t.Fatal(err)
	}
	if err := d.AddAccount(ctx, mail.MustPath("alice@EXAMPLE.org"), "x"); !errors.Is(err, ErrExists) {
		t.Errorf("the same account again: %v", err)
	}
	if err := d.AddAccount(ctx, mail.MustPath("a@example.com"), "x"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an account elsewhere: %v", err)
	}
	if err := d.AddAccount(ctx, mail.MustPath("b@example.org"), ""); err == nil {
		t.Error("an empty password is accepted")
	}
	v, ok, err := d.Verifier(ctx, mail.MustPath("ALICE@example.org"))
	if err != nil || !ok || v.Account != "alice@example.org" || v.Check() != nil {
		t.Errorf("verifier: %+v %v %v", v, ok, err)
	}
	if err := d.SetPassword(ctx, alice, "other"); err != nil {
		t.Error(err)
	}
	w, _, _ := d.Verifier(ctx, alice)
	if string(w.StoredKey) == string(v.StoredKey) || string(w.Salt) == string(v.Salt) {
		t.Error("the verifier did not change with the password")
	}
	for _, enabled := range []bool{false, true} {
		if err := d.SetEnabled(ctx, alice, enabled); err != nil {
			t.Error(err)
		}
		if _, ok, err := d.Verifier(ctx, alice); ok != enabled || err != nil {
			t.Errorf("enabled %v: verifier %v %v", enabled, ok, err)
		}
		if all, err := d.Accounts(ctx); err != nil || len(all) != 1 || all[0].Enabled != enabled || all[0].Address.String() != "alice@example.org" {
			t.Errorf("enabled %v: accounts %v %v", enabled, all, err)
		}
	}
	if err := d.RemoveAccount(ctx, alice); err != nil {
		t.Error(err)
	}
	for _, err := range []error{d.RemoveAccount(ctx, alice), d.SetPassword(ctx, alice, "x"), d.SetEnabled(ctx, alice, true)} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("an account that is gone: %v", err)
		}
	}
}

func TestAliases(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	p, a, b := mail.MustPath("info@example.org"), mail.MustPath("a@example.com"), mail.MustPath("b@example.com")
	alias(t, d, "info@example.org", "a@example.com")
	if err := d.AddAlias(ctx, p, b, a); !errors.Is(err, ErrExists) {
		t.Errorf("a target again: %v", err)
	}
	if got := resolve(d, "info@example.org"); got != "a@example.com" {
		t.Errorf("after a change that failed: %s", got)
	}
	alias(t, d, "info@example.org", "b@example.com")
	alias(t, d, "@example.org", "b@example.com")
	all, err := d.Aliases(ctx)
	if err != nil || len(all) != 2 || all[0].Address.Local != "" || len(all[1].Targets) != 2 {
		t.Errorf("aliases: %v %v", all, err)
	}
	if err := d.RemoveAlias(ctx, p, a); err != nil || resolve(d, "info@example.org") != "b@example.com" {
		t.Errorf("removing a target: %v, %s", err, resolve(d, "info@example.org"))
	}
	if err := d.RemoveAlias(ctx, p); err != nil {
		t.Error(err)
	}
	for _, err := range []error{d.RemoveAlias(ctx, p), d.RemoveAlias(ctx, p, a)} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("an alias that is gone: %v", err)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub dir?x#y%41", "directory.db")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	account(t, d, "alice@example.org")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("directory.db%s: %v %v", suffix, info, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path) // a second time, without migrations
	if got := resolve(d, "alice@example.org"); got != "alice@example.org" {
		t.Errorf("after opening it again: %s", got)
	}
	if _, err := d.exec(context.Background(), `INSERT INTO schema_version (version) VALUES (99)`); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if d, err := Open(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer file: %v %v", d, err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("this is not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Open(Options{Path: path}); err == nil {
		t.Errorf("a damaged file opens: %v", d)
	}
}

// TestFailure: a directory that fails says so, and never that a user does not exist.
func TestFailure(t *testing.T) {
	d := newDirectory(t)
	account(t, d, "alice@example.org")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Resolve(ctx, mail.MustPath("alice@example.org")); err == nil || mail.StatusOf(err).Permanent() {
		t.Errorf("cancelled: %v", err)
	}
	d.Close()
	if _, err := d.Resolve(context.Background(), mail.MustPath("bob@example.org")); err == nil || mail.StatusOf(err).Permanent() {
		t.Errorf("closed: %v", err)
	}
	if _, _, err := d.Verifier(context.Background(), mail.MustPath("alice@example.org")); err == nil {
		t.Error("a closed directory has verifiers")
	}
}

// TestConcurrentUse is for the race detector, and for locks that would time out.
func TestConcurrentUse(t *testing.T) {
	d := newDirectory(t)
	ctx := context.Background()
	account(t, d, "alice@example.org")
	errs := make(chan error)
	for w := range 4 {
		go func() {
			var err error
			for i := range 20 {
				_, e := d.Resolve(ctx, mail.MustPath("alice@example.org"))
				err = errors.Join(err, e, d.AddAlias(ctx, mail.MustPath(fmt.Sprintf("w%d-%d@example.org", w, i)), mail.MustPath("alice@example.org")))
				_, _, e = d.Local(ctx, mail.MustDomain("unknown.example"))
				err = errors.Join(err, e)
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if all, err := d.Aliases(ctx); err != nil || len(all) != 80 {
		t.Errorf("%d aliases, %v", len(all), err)
	}
}

func BenchmarkResolve(b *testing.B) {
	d := newDirectory(b)
	ctx := context.Background()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100_000 {
		if _, err := tx.ExecContext(ctx, `INSERT INTO accounts (domain, local, created, salt, iterations, stored_key, server_key) VALUES ('example.org', ?, 0, x'00', 1, x'00', x'00')`, fmt.Sprintf("user%d", i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	d.watch.changed()
	domain := mail.MustDomain("example.org")
	if err := d.AddGroup(ctx, mail.MustPath("team@example.org"), SendersMembers, paths("user1@example.org", "user2@example.org", "far@example.com")...); err != nil {
		b.Fatal(err)
	}
	b.Run("rcpt", func(b *testing.B) { // all that is asked at RCPT, each time about another account
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			p := mail.Path{Local: "user" + strconv.Itoa(i*7919%100_000), Domain: domain}
			to, err := d.Rewrite(ctx, RewriteRecipient, p)
			if err == nil {
				err = d.MaySend(ctx, Sender{}, to)
			}
			if err == nil {
				_, err = d.Resolve(ctx, to)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, address := range map[string]string{"repeated": "user7", "account": "user%d", "tag": "user%d+tag", "unknown": "nobody%d"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				p := mail.Path{Local: strings.Replace(address, "%d", strconv.Itoa(i*7919%100_000), 1), Domain: domain}
				_, err := d.Resolve(ctx, p)
				if err != nil && !errors.Is(err, ErrNotFound) {
					b.Fatal(err)
				}
			}
		})
	}
}
