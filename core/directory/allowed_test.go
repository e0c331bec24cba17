package directory

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestAllowedSenders(t *testing.T) {
	ctx := t.Context()
	options := Options{Path: filepath.Join(t.TempDir(), "directory.db"), Hostname: mail.MustDomain("mx.test"), Postmaster: mail.MustPath("postmaster@mx.test")}
	d, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	declare := func() {
		d.Declare([]Domain{{Name: mail.MustDomain("a.test"), Aliases: []mail.Domain{mail.MustDomain("alias.test")}}}, options.Postmaster)
	}
	declare()
	allows := func(sender, to string) bool {
		t.Helper()
		var from mail.Path
		if sender != "" {
			from = mail.MustPath(sender)
		}
		f, err := d.WhoAllows(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		return f != nil && f(ctx, mail.MustPath(to))
	}
	if allows("x@b.test", "bob@a.test") {
		t.Error("allowed before anybody said so")
	}
	for sender, to := range map[string]string{"X@b.test": "Bob@alias.test", "y@b.test": "@a.test", "@news.test": "carol@a.test"} {
		if err := d.AllowSender(ctx, sender, to); err != nil {
			t.Fatal(err)
		}
		if err := d.AllowSender(ctx, sender, to); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	check := func() {
		t.Helper()
		for _, c := range []struct {
			from, to string
			want     bool
		}{
			{"x@B.test", "bob@a.test", true}, {"X@b.test", "BOB+tag@alias.test", true}, {"x@b.test", "carol@a.test", false}, {"x@sub.b.test", "bob@a.test", false},
			{"y@b.test", "anyone@a.test", true}, {"y@b.test", "anyone@elsewhere.test", false}, {"bounce-123@news.test", "carol@a.test", true},
			{"bounce-123@news.test", "bob@a.test", false}, {"", "bob@a.test", false},
		} {
			if got := allows(c.from, c.to); got != c.want {
				t.Errorf("%s to %s: %v", c.from, c.to, got)
			}
		}
	}
	check()
	for _, bad := range [][2]string{{"", "bob@a.test"}, {"x", "bob@a.test"}, {"@", "bob@a.test"}, {"x@b.test", ""}, {"x@b.test", "bob"}, {"x@b.test", "bob@elsewhere.test"}} {
		if err := d.AllowSender(ctx, bad[0], bad[1]); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	d.Close()
	if d, err = Open(options); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	declare()
	check()
	all, err := d.AllowedSenders(ctx)
	if err != nil || len(all) != 3 || fmt.Sprintln(all[0].Sender, all[0].Recipient, all[1].Recipient, all[2].Recipient) != "y@b.test @a.test bob@a.test carol@a.test\n" {
		t.Errorf("%v, %v", all, err)
	}
	if err := d.DisallowSender(ctx, "x@b.test", "bob@a.test"); err != nil {
		t.Error(err)
	}
	if err := d.DisallowSender(ctx, "x@b.test", "bob@a.test"); !errors.Is(err, ErrUnknown) {
		t.Errorf("what is not there: %v", err)
	}
	if allows("x@b.test", "bob@a.test") {
		t.Error("still allowed")
	}
}

func TestTimes(t *testing.T) {
	d, err := Open(Options{Path: filepath.Join(t.TempDir(), "directory.db"), Hostname: mail.MustDomain("mx.test"), Postmaster: mail.MustPath("postmaster@mx.test")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if at, err := d.Time(t.Context(), "digest"); err != nil || !at.IsZero() {
		t.Errorf("%v, %v", at, err)
	}
	for _, n := range []int64{1795354462, 1795354463} {
		if err := d.SetTime(t.Context(), "digest", time.Unix(n, 0)); err != nil {
			t.Fatal(err)
		}
		if at, err := d.Time(t.Context(), "digest"); err != nil || at.Unix() != n {
			t.Errorf("%v, %v", at, err)
		}
	}
}
