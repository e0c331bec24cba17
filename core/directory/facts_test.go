package directory

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/sdk/mail"
)

func TestAppPasswords(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	now := time.Unix(1_800_000_000, 0)
	d.clock = func() time.Time { return now }
	alice := mail.MustPath("alice@example.org")
	if err := d.AddAccount(ctx, alice, "first"); err != nil {
		t.Fatal(err)
	}
	phone, err := d.AddAppPassword(ctx, alice, "phone")
	if err != nil {
		t.Fatal(err)
	}
	laptop, err := d.AddAppPassword(ctx, mail.MustPath("ALICE@example.net"), "my laptop")
	if err != nil || laptop == phone || len(phone) != 23 {
		t.Errorf("%q %q %v", phone, laptop, err)
	}
	if err := d.SetPassword(ctx, alice, "second"); err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Options{Accounts: d, AppUsed: func(ctx context.Context, account, name string) {
		if err := d.AppPasswordUsed(ctx, account, name); err != nil {
			t.Error(err)
		}
	}, Sleep: func(context.Context, time.Duration) {}})
	if err != nil {
		t.Fatal(err)
	}
	opens := func(password string) bool {
		_, err := a.Authenticate(ctx, &mail.Client{}, "", "alice@example.org", password)
		return err == nil
	}
	for password, want := range map[string]bool{"first": false, "second": true, phone: true, laptop: true, "": false} {
		if opens(password) != want {
			t.Errorf("%q opens: %v", password, !want)
		}
	}
	list, err := d.AppPasswords(ctx, alice)
	if err != nil || len(list) != 2 || list[0].Name != "my laptop" || list[1].Name != "phone" || !list[0].Used.Equal(now) || !list[1].Created.Equal(now) {
		t.Errorf("%+v %v", list, err)
	}
	now = now.Add(usedEvery - time.Second)
	opens(phone)
	if list, _ := d.AppPasswords(ctx, alice); now.Sub(list[1].Used) != usedEvery-time.Second {
		t.Errorf("each log-in is a write: %+v", list[1])
	}
	now = now.Add(time.Second)
	opens(phone)
	if list, _ := d.AppPasswords(ctx, alice); !list[1].Used.Equal(now) {
		t.Errorf("used %v, at %v", list[1].Used, now)
	}
	for what, err := range map[string]error{
		"revoking another": d.RevokeAppPassword(ctx, alice, "tablet"),
		"the same name":    func() error { _, err := d.AddAppPassword(ctx, alice, "phone"); return err }(),
		"no name":          func() error { _, err := d.AddAppPassword(ctx, alice, ""); return err }(),
		"two lines":        func() error { _, err := d.AddAppPassword(ctx, alice, "a\nb"); return err }(),
		"nobody":           func() error { _, err := d.AddAppPassword(ctx, mail.MustPath("bob@example.org"), "x"); return err }(),
	} {
		if err == nil {
			t.Errorf("%s is possible", what)
		}
	}
	if err := d.RevokeAppPassword(ctx, alice, "phone"); err != nil || opens(phone) || !opens(laptop) || !opens("second") {
		t.Errorf("after revoking: %v", err)
	}
	for i := 1; i < maxAppPasswords; i++ {
		if _, err := d.AddAppPassword(ctx, alice, "n"+strings.Repeat("x", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.AddAppPassword(ctx, alice, "one more"); err == nil {
		t.Errorf("more than %d app passwords", maxAppPasswords)
	}
	if err := d.RemoveAccount(ctx, alice); err != nil || opens(laptop) {
		t.Errorf("after removing the account: %v", err)
	}
}

func TestAccountFacts(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	d.Declare([]Domain{{Name: mail.MustDomain("example.org"), Aliases: []mail.Domain{mail.MustDomain("example.net")}, Quota: Quota{1000, 20}}}, mail.Path{})
	account(t, d, "alice@example.org", "bob@example.org")
	five, zero := int64(5), int64(0)
	for _, err := range []error{d.SetQuota(ctx, mail.MustPath("alice@example.org"), &five, nil), d.SetDisplayName(ctx, mail.MustPath("alice@example.org"), "Alice Ä."),
		d.SetSetting(ctx, mail.MustPath("alice@example.org"), "trash_expiry", "30d"), d.SetSetting(ctx, mail.MustPath("alice@example.org"), "sieve", "off"),
		d.SetSetting(ctx, mail.MustPath("alice@example.org"), "sieve", "on"), d.SetSetting(ctx, mail.MustPath("alice@example.org"), "junk", "x"), d.SetSetting(ctx, mail.MustPath("alice@example.org"), "junk", "")} {
		if err != nil {
			t.Error(err)
		}
	}
	a, ok, err := d.Account(ctx, mail.MustPath("ALICE+tag@example.net"))
	if err != nil || !ok || a.Address.String() != "alice@example.org" || a.DisplayName != "Alice Ä." || !a.Enabled || a.Quota != (Quota{5, 20}) || !a.OwnBytes || a.OwnMessages ||
		!reflect.DeepEqual(a.Settings, map[string]string{"trash_expiry": "30d", "sieve": "on"}) {
		t.Errorf("%+v %v %v", a, ok, err)
	}
	if b, ok, err := d.Account(ctx, mail.MustPath("bob@example.org")); err != nil || !ok || b.Quota != (Quota{1000, 20}) {
		t.Errorf("%+v %v %v", b, ok, err)
	}
	if err := d.SetQuota(ctx, mail.MustPath("bob@example.org"), &zero, &zero); err != nil {
		t.Error(err)
	}
	if b, _, _ := d.Account(ctx, mail.MustPath("bob@example.org")); b.Quota != (Quota{}) || !b.OwnBytes {
		t.Errorf("no limit of his own: %+v", b)
	}
	for _, address := range []string{"nobody@example.org", "alice@example.com"} {
		if a, ok, err := d.Account(ctx, mail.MustPath(address)); ok || err != nil {
			t.Errorf("%s: %+v %v", address, a, err)
		}
	}
	minus := int64(-1)
	for what, err := range map[string]error{"a quota below zero": d.SetQuota(ctx, mail.MustPath("bob@example.org"), &minus, nil), "a name of two lines": d.SetDisplayName(ctx, mail.MustPath("bob@example.org"), "a\nb"),
		"a key": d.SetSetting(ctx, mail.MustPath("bob@example.org"), "A b", "x"), "a value of two lines": d.SetSetting(ctx, mail.MustPath("bob@example.org"), "k", "x\ny"),
		"a setting of nobody": d.SetSetting(ctx, mail.MustPath("nobody@example.org"), "k", "x"), "a long value": d.SetSetting(ctx, mail.MustPath("bob@example.org"), "k", strings.Repeat("x", maxSetting+1))} {
		if err == nil {
			t.Errorf("%s is possible", what)
		}
	}
}

func TestImport(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	quota := int64(7)
	items := []Item{
		{Line: 2, Group: &Group{Address: mail.MustPath("team@example.org"), Senders: SendersMembers, Members: paths("info@example.org", "bob@example.org")}}, // in any order
		{Line: 3, Alias: &Alias{Address: mail.MustPath("info@example.org"), Targets: paths("alice@example.org", "far@example.com")}},
		{Line: 4, Account: &NewAccount{Address: mail.MustPath("Alice@example.net"), Password: "secret", DisplayName: "A", QuotaBytes: &quota, Settings: map[string]string{"k": "v"}}},
		{Line: 5, Account: &NewAccount{Address: mail.MustPath("bob@example.org"), Disabled: true}},
	}
	bad := append(slices.Clone(items), Item{Line: 6, Account: &NewAccount{Address: mail.MustPath("bob@example.org")}}, Item{Line: 7, Alias: &Alias{Address: mail.MustPath("x@example.org"), Targets: paths("nobody@example.org")}},
		Item{Line: 8, Account: &NewAccount{Address: mail.MustPath("c@example.com")}})
	err := d.Import(ctx, bad, false)
	for _, want := range []string{"line 6: account bob@example.org: exists already", "line 7: x@example.org: nobody@example.org does not exist", "line 8: domain example.com"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if err := d.Import(ctx, items, true); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if got := resolve(d, "team@example.org"); got != "not found" {
		t.Fatalf("something was imported: %s", got)
	}
	if err := d.Import(ctx, items, false); err != nil {
		t.Fatal(err)
	}
	if got := resolve(d, "team@example.org"); got != "alice@example.org far@example.com" {
		t.Error(got)
	}
	a, _, err := d.Account(ctx, mail.MustPath("alice@example.org"))
	if err != nil || a.DisplayName != "A" || a.Bytes != 7 || a.Settings["k"] != "v" {
		t.Errorf("%+v %v", a, err)
	}
	if _, ok, _ := d.Verifier(ctx, mail.MustPath("bob@example.org")); ok {
		t.Error("a disabled account can log in")
	}
}

// TestMigration: a file of the first version becomes one of this, with all that is in it.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory.db")
	d := open(t, path)
	for _, table := range []string{"app_passwords", "account_settings", "groups", "rewrites", "secrets", "account_data", "allowed_senders", "times"} {
		if _, err := d.db.Exec(`DROP TABLE ` + table); err != nil {
			t.Fatal(err)
		}
	}
	for table, columns := range map[string]string{"domains": "deliver recipients directory planner postmaster quota_bytes quota_messages", "accounts": "display_name quota_bytes quota_messages"} {
		for _, c := range strings.Fields(columns) {
			if _, err := d.db.Exec(`ALTER TABLE ` + table + ` DROP COLUMN ` + c); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, sql := range []string{`DELETE FROM schema_version`, `INSERT INTO schema_version VALUES (1)`, `INSERT INTO domains VALUES ('old.example', NULL), ('older.example', 'old.example')`,
		`INSERT INTO accounts VALUES ('old.example', 'alice', 1, 0, x'00', 1, x'00', x'00')`, `INSERT INTO aliases VALUES ('old.example', 'info', 'alice@old.example')`} {
		if _, err := d.db.Exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	d = open(t, path)
	if got := resolve(d, "info@older.example"); got != "alice@old.example" {
		t.Error(got)
	}
	if err := d.AddGroup(context.Background(), mail.MustPath("g@old.example"), SendersAnyone, mail.MustPath("alice@old.example")); err != nil {
		t.Error(err)
	}
	if a, ok, err := d.Account(context.Background(), mail.MustPath("alice@old.example")); err != nil || !ok || a.Quota != (Quota{}) {
		t.Errorf("%+v %v", a, err)
	}
}

func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory.db")
	d, ctx := open(t, path), context.Background()
	one, err := d.Secret(ctx, "one")
	if err != nil || len(one) != secretSize {
		t.Fatal(one, err)
	}
	two, err := d.Secret(ctx, "two")
	if err != nil || string(two) == string(one) {
		t.Error("two secrets are the same", err)
	}
	d.Close()
	if again, err := open(t, path).Secret(ctx, "one"); err != nil || string(again) != string(one) {
		t.Errorf("%x, was %x: %v", again, one, err)
	}
}

// A directory that fails says nothing about a domain: who asks has to ask again, and not to believe
// that it is none of ours.
func TestDomainUnknownNow(t *testing.T) {
	d := newDirectory(t)
	for name, want := range map[string]bool{"elsewhere.test": true, "example.net": false} {
		if _, err := d.Domain(t.Context(), mail.MustDomain(name)); errors.Is(err, ErrNotLocal) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.watch.clock = func() time.Time { return time.Now().Add(time.Minute) } // it has not looked for long
	d.Close()
	if _, err := d.Domain(t.Context(), mail.MustDomain("stored.test")); err == nil || errors.Is(err, ErrNotLocal) {
		t.Errorf("of one that is closed: %v", err)
	}
}
