package callahead

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// TestBound: with more than there is room for, the oldest go, and first those that do not exist.
func TestBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	fill := func(n int) map[string]int {
		os.Remove(path)
		s, err := openStore(path, 100, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			s.put(mail.Path{Local: fmt.Sprintf("u%03d", i), Domain: behind}, fact{i%2 == 0, time.Unix(int64(1e9+i), 0)})
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if s, err = openStore(path, 100, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		defer s.close()
		left := make(map[string]int)
		for i := range n {
			f, ok, err := s.get(context.Background(), mail.Path{Local: fmt.Sprintf("u%03d", i), Domain: behind})
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				left[fmt.Sprint(f.known)]++
				if f.known != (i%2 == 0) || f.checked.Unix() != int64(1e9+i) {
					t.Errorf("%d is %+v", i, f)
				}
			}
		}
		return left
	}
	for n, want := range map[int][2]int{99: {50, 49}, 100: {50, 50}, 101: {51, 48}, 300: {99, 0}} {
		if left := fill(n); left["true"] != want[0] || left["false"] != want[1] {
			t.Errorf("of %d are left %v, want %v", n, left, want)
		}
	}
}

// TestBrokenFile: a cache that cannot be read is begun anew, and set aside.
func TestBrokenFile(t *testing.T) {
	r := newRig(t)
	r.want("alice@corp.example", "", 1)
	r.Close()
	if err := os.WriteFile(r.path, []byte("this is no database, and was none since it was written by somebody else"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.want("alice@corp.example", "", 1)
	if _, err := os.Stat(r.path + ".broken"); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(r.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestRemembered: what a gateway knows, without asking and while it runs.
func TestRemembered(t *testing.T) {
	r := newRig(t)
	open := func() *Remembered {
		m, err := Remember(r.path, r.rules, r.clock)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	want := func(m *Remembered, address string, want mail.Status) {
		t.Helper()
		if got := m.Recipient(context.Background(), &r.client, mail.MustPath(address)); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
	r.want("alice@corp.example", "", 1)
	r.want("nobody@corp.example", notThere, 1)
	for _, running := range []bool{true, false} {
		if running {
			r.restart() // so that it is written
		} else {
			r.Close()
		}
		m := open()
		want(m, "alice@corp.example", mail.Status{})
		want(m, "nobody@corp.example", unknown)
		want(m, "bob@corp.example", mail.Status{})
	}
	if n := r.server.questions(); n != 0 {
		t.Errorf("%d questions", n)
	}
	m, err := Remember(filepath.Join(t.TempDir(), "none.db"), r.rules, r.clock)
	if err != nil {
		t.Fatal(err)
	}
	want(m, "alice@corp.example", mail.Status{})
	r.open()
}

// BenchmarkKnown measures the answer about an address out of 100,000: one asked for lately, and one that is
// on the disk only.
func BenchmarkKnown(b *testing.B) {
	path := filepath.Join(b.TempDir(), "r.db")
	s, err := openStore(path, 1_000_000, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	const n = 100_000
	facts := make(map[mail.Path]fact, n)
	for i := range n {
		facts[mail.Path{Local: fmt.Sprintf("user%06d", i), Domain: behind}] = fact{true, time.Now()}
	}
	if err := s.save(context.Background(), facts, nil); err != nil {
		b.Fatal(err)
	}
	s.close()
	k, err := Open(Options{Path: path, Asker: &server{answer: always(down)}})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	k.Reload(Rules{Domains: map[mail.Domain]route.Route{behind: toThere}, Keep: time.Hour, Refresh: time.Hour, Timeout: time.Second, Concurrency: 1})
	c := &mail.Client{Addr: netip.MustParseAddr("192.0.2.1")}
	for name, step := range map[string]int{"lately": 0, "disk": 1} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i += step {
				if s := k.Recipient(context.Background(), c, mail.Path{Local: fmt.Sprintf("user%06d", i*7919%n), Domain: behind}); !s.IsZero() {
					b.Fatal(s)
				}
			}
		})
	}
}
