package directory

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestDataVersions(t *testing.T) {
	d, ctx := newDirectory(t), t.Context()
	a := mail.MustPath("A@example.net") // of an alias of the domain
	put := func(value string, version int64) (int64, error) {
		var b []byte
		if value != "" {
			b = []byte(value)
		}
		return d.PutData(ctx, "sieve", a, "script", b, version)
	}
	if _, err := put("one", 7); !errors.Is(err, ErrConflict) {
		t.Errorf("a change of what is not there: %v", err)
	}
	v1, err := put("one", 0)
	if err != nil || v1 == 0 {
		t.Fatal(v1, err)
	}
	if now, err := put("two", 0); !errors.Is(err, ErrConflict) || now != v1 {
		t.Errorf("a second creation: %d, %v", now, err)
	}
	v2, err := put("two", v1)
	if err != nil || v2 <= v1 {
		t.Fatal(v2, err)
	}
	got, err := d.GetData(ctx, "sieve", mail.MustPath("a@example.org"), "script")
	if err != nil || string(got.Value) != "two" || got.Version != v2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := d.GetData(ctx, "fetch", a, "script"); err != nil || got.Version != 0 {
		t.Errorf("another plugin sees %+v, %v", got, err)
	}
	if _, err := put("", v1); !errors.Is(err, ErrConflict) {
		t.Errorf("a removal of an old version: %v", err)
	}
	if now, err := put("", v2); err != nil || now != 0 {
		t.Errorf("removal: %d, %v", now, err)
	}
	v3, err := put("three", AnyVersion)
	if err != nil || v3 <= v2 {
		t.Errorf("version %d after a removal, it was %d: %v", v3, v2, err)
	}
	if _, err := d.GetData(ctx, "sieve", mail.MustPath("a@elsewhere.test"), "script"); !errors.Is(err, ErrNotLocal) {
		t.Errorf("an address elsewhere: %v", err)
	}
}

func TestDataGoesWithItsAccount(t *testing.T) {
	d, ctx := newDirectory(t), t.Context()
	account(t, d, "a@example.org", "b@example.org")
	for _, a := range []string{"a@example.org", "b@example.org"} {
		if _, err := d.PutData(ctx, "sieve", mail.MustPath(a), "script", []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.RemoveAccount(ctx, mail.MustPath("a@example.org")); err != nil {
		t.Fatal(err)
	}
	list, err := d.ListData(ctx, "sieve", mail.Path{}, "", Datum{}, 10)
	if err != nil || len(list) != 1 || list[0].Account != mail.MustPath("b@example.org") {
		t.Errorf("left are %+v, %v", list, err)
	}
}

func TestDataLists(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	for _, a := range []string{"a@example.org", "b@example.org"} {
		for i := range 3 {
			for _, kind := range []string{"s%", "t"} { // % is no wildcard
				if _, err := d.PutData(ctx, "p", mail.MustPath(a), fmt.Sprintf("%s/%d", kind, i), make([]byte, i), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	var after Datum
	n := 0
	for {
		list, err := d.ListData(ctx, "p", mail.Path{}, "s%/", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			if want := fmt.Sprintf("s%%/%d", n%3); one.Key != want || one.Size != int64(n%3) || one.Account.Local != string("ab"[n/3]) {
				t.Errorf("entry %d is %+v", n, one)
			}
			after = one
			n++
		}
		if len(list) < 2 {
			break
		}
	}
	if n != 6 {
		t.Errorf("%d entries", n)
	}
	if list, err := d.ListData(ctx, "p", mail.MustPath("b@example.org"), "", Datum{}, 100); err != nil || len(list) != 6 {
		t.Errorf("%d entries of one account, %v", len(list), err)
	}
}

func TestDataIsBounded(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	a := mail.MustPath("a@example.org")
	for i := range maxData {
		if _, err := d.db.Exec(`INSERT INTO account_data VALUES ('p', 'example.org', 'a', ?, 1, x'')`, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.PutData(ctx, "p", a, "one more", []byte("x"), 0); !errors.Is(err, ErrTooMuchData) {
		t.Errorf("one more: %v", err)
	}
	if _, err := d.PutData(ctx, "p", a, "0", []byte("x"), 1); err != nil {
		t.Errorf("a change of one that is there: %v", err)
	}
	if _, err := d.PutData(ctx, "q", a, "0", []byte("x"), 0); err != nil {
		t.Errorf("another plugin: %v", err)
	}
}
