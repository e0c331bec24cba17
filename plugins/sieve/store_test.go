package sieve

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

var alice = mail.MustPath("alice@example.org")

func newStore(t *testing.T) (*Store, *sdktest.Host) {
	t.Helper()
	h := sdktest.NewHost(t)
	return &Store{Data: h.Handle, Quota: Quota{Scripts: 3, ScriptSize: 100, Size: 150}}, h
}

// texts counts the texts that are kept, named or not.
func texts(h *sdktest.Host) int {
	h.Lock()
	defer h.Unlock()
	n := 0
	for k := range h.Data {
		if strings.Contains(k, " "+textPrefix) {
			n++
		}
	}
	return n
}

func names(t *testing.T, s *Store) string {
	t.Helper()
	list, err := s.List(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range list {
		name := x.Name
		if x.Active {
			name += "*"
		}
		out = append(out, fmt.Sprintf("%s:%d", name, x.Size))
	}
	return strings.Join(out, " ")
}

func TestStore(t *testing.T) {
	s, h := newStore(t)
	ctx := t.Context()
	expect := func(err, want error, list string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		if got := names(t, s); got != list {
			t.Errorf("list %q, want %q", got, list)
		}
	}
	if _, ok, err := s.Active(ctx, alice); ok || err != nil {
		t.Error("active", ok, err)
	}
	expect(s.Put(ctx, alice, "a", []byte("keep;")), nil, "a:5")
	expect(s.Put(ctx, alice, "b", nil), nil, "a:5 b:0")
	expect(s.Activate(ctx, alice, "c"), ErrNoScript, "a:5 b:0")
	expect(s.Activate(ctx, alice, "a"), nil, "a*:5 b:0")
	expect(s.Put(ctx, alice, "a", []byte("discard;")), nil, "a*:8 b:0")
	expect(s.Delete(ctx, alice, "a"), ErrActive, "a*:8 b:0")
	expect(s.Delete(ctx, alice, "x"), ErrNoScript, "a*:8 b:0")
	expect(s.Rename(ctx, alice, "a", "b"), ErrExists, "a*:8 b:0")
	expect(s.Rename(ctx, alice, "x", "y"), ErrNoScript, "a*:8 b:0")
	expect(s.Rename(ctx, alice, "a", "a/b"), ErrName, "a*:8 b:0")
	expect(s.Rename(ctx, alice, "a", "Räume"), nil, "Räume*:8 b:0")
	script, text, err := s.Get(ctx, alice, "Räume")
	if err != nil || string(text) != "discard;" || !script.Active || script.Hash != hashOf(text) {
		t.Error(script, string(text), err)
	}
	if active, ok, err := s.Active(ctx, alice); !ok || err != nil || active.Name != "Räume" {
		t.Error(active, ok, err)
	}
	expect(s.Activate(ctx, alice, ""), nil, "Räume:8 b:0")
	expect(s.Delete(ctx, alice, "Räume"), nil, "b:0")
	if _, _, err := s.Get(ctx, alice, "Räume"); !errors.Is(err, ErrNoScript) {
		t.Error(err)
	}
	if n := texts(h); n != 1 {
		t.Errorf("%d texts are kept", n)
	}
	var fault *engine.Error
	if err := s.Put(ctx, alice, "bad", []byte("keep;\nfoo;")); !errors.As(err, &fault) || fault.Line != 2 {
		t.Error(err)
	}
}

// V-11: what exceeds a quota leaves what is there as it is.
func TestV11StoreQuota(t *testing.T) {
	s, h := newStore(t)
	ctx := t.Context()
	text := func(n int) []byte { return []byte("#" + strings.Repeat("x", n-2) + "\n") }
	for _, step := range []struct {
		name string
		size int
		want error
	}{
		{"a", 100, nil}, {"a", 101, ErrTooLarge}, {"b", 51, ErrNoSpace}, {"b", 50, nil}, {"a", 99, nil}, {"b", 51, nil},
		{"a", 50, nil}, {"c", 5, nil}, {"d", 5, ErrTooMany}, {"c", 49, nil},
	} {
		if err := s.HaveSpace(ctx, alice, step.name, int64(step.size)); !errors.Is(err, step.want) {
			t.Errorf("space for %s of %d: %v", step.name, step.size, err)
		}
		if err := s.Put(ctx, alice, step.name, text(step.size)); !errors.Is(err, step.want) {
			t.Errorf("put %s of %d: %v", step.name, step.size, err)
		}
	}
	if got := names(t, s); got != "a:50 b:51 c:49" || texts(h) != 3 {
		t.Errorf("%s, %d texts", got, texts(h))
	}
}

// Changes at the same time are all made.
func TestStoreConcurrently(t *testing.T) {
	s, h := newStore(t)
	s.Quota = Quota{Scripts: 8, ScriptSize: 100, Size: 1000}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			name := fmt.Sprint(i)
			if err := s.Put(t.Context(), alice, name, []byte("keep;")); err != nil {
				t.Error(err)
			}
			if err := s.Rename(t.Context(), alice, name, "n"+name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t, s); got != "n0:5 n1:5 n2:5 n3:5 n4:5 n5:5" || texts(h) != 6 {
		t.Errorf("%s, %d texts", got, texts(h))
	}
}

// What somebody left behind who broke off goes with a later change, unless it is fresh.
func TestStoreSweeps(t *testing.T) {
	s, h := newStore(t)
	now := time.Now()
	s.Clock = func() time.Time { return now }
	for _, id := range []string{fmt.Sprintf("%010x-OLD", now.Add(-2*time.Hour).Unix()), fmt.Sprintf("%010x-NEW", now.Add(-time.Minute).Unix())} {
		if _, err := s.Data.PutData(t.Context(), alice, textPrefix+id, []byte("keep;"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(t.Context(), alice, "a", []byte("keep;")); err != nil {
		t.Fatal(err)
	}
	if n := texts(h); n != 2 {
		t.Errorf("%d texts are kept", n)
	}
}
