package srs

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

var ours, second = domain("mx.example.org"), domain("fwd.example.com")

func domain(s string) mail.Domain { return mail.MustPath("x@" + s).Domain }

func rewriter(t testing.TB, d mail.Domain, key byte, now *time.Time) *Rewriter {
	t.Helper()
	r, err := New(Options{Domain: d, Key: bytes.Repeat([]byte{key}, 32), Clock: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := rewriter(t, ours, 1, &now)
	for _, from := range []string{"a@example.net", "A.b+c@example.net", `"a b"@example.net`, "a=b=c@example.net", "ü@example.net", "srs0@example.net", "a@[192.0.2.1]",
		strings.Repeat("x", 37) + "@example.net"} {
		p := mail.MustPath(from)
		to, ok := r.Forward(p)
		if !ok || to.Domain != ours || !strings.HasPrefix(to.Local, "SRS0=") {
			t.Errorf("%s becomes %s, %t", from, to, ok)
			continue
		}
		if again, ok := r.Forward(to); ok || again != to {
			t.Errorf("rewritten twice: %s", again)
		}
		if back, err := r.Reverse(to); err != nil || back != p {
			t.Errorf("%s comes back as %s, %v", to, back, err)
		}
		// A host in between that folds case changes no more than that.
		if back, err := r.Reverse(to.Fold()); err != nil || back != p.Fold() {
			t.Errorf("%s comes back as %s, %v", to.Fold(), back, err)
		}
	}
	for _, from := range []mail.Path{{}, mail.MustPath("x@mx.example.org"), mail.MustPath(strings.Repeat("x", 38) + "@example.net")} {
		if to, ok := r.Forward(from); ok || to != from {
			t.Errorf("%s becomes %s", from, to)
		}
	}
}

// Two hosts that rewrite: the second sends reports to the first.
func TestTwice(t *testing.T) {
	now := time.Now()
	r1, r2, r3 := rewriter(t, second, 2, &now), rewriter(t, ours, 1, &now), rewriter(t, domain("x.example.org"), 3, &now)
	from := mail.MustPath("a@e.net")
	one, _ := r1.Forward(from)
	two, ok := r2.Forward(one)
	if !ok || !strings.HasPrefix(two.Local, "SRS1=") || !strings.Contains(two.Local, "=fwd.example.com==") {
		t.Fatal(two)
	}
	if back, err := r2.Reverse(two); err != nil || back != one {
		t.Errorf("%s, %v", back, err)
	}
	// A third leaves the second out.
	three, ok := r3.Forward(two)
	if back, err := r3.Reverse(three); !ok || err != nil || back != one {
		t.Errorf("%s: %s, %v", three, back, err)
	}
	if back, err := r1.Reverse(one); err != nil || back != from {
		t.Errorf("%s, %v", back, err)
	}
	if _, err := r3.Reverse(mail.Path{Local: two.Local, Domain: r3.Domain}); !errors.Is(err, ErrForged) {
		t.Errorf("another's key: %v", err)
	}
}

func TestForged(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := rewriter(t, ours, 1, &now)
	good, _ := r.Forward(mail.MustPath("alice@example.net"))
	if _, err := r.Reverse(mail.MustPath("alice@mx.example.org")); !errors.Is(err, ErrNotOurs) {
		t.Error(err)
	}
	if _, err := r.Reverse(mail.Path{Local: good.Local, Domain: second}); !errors.Is(err, ErrNotOurs) {
		t.Error(err)
	}
	for i := 5; i < len(good.Local); i++ {
		b := []byte(good.Local)
		if b[i] == 'q' {
			b[i] = 'r'
		} else {
			b[i] = 'q'
		}
		if back, err := r.Reverse(mail.Path{Local: string(b), Domain: ours}); !errors.Is(err, ErrForged) {
			t.Errorf("%s is taken for %s, %v", b, back, err)
		}
	}
	for _, local := range []string{"SRS0=", "SRS0==", "SRS0=a", "SRS0=a=b=c", "SRS0====", "SRS0=a=b=c=d", "SRS1=a", "SRS1=a==", "SRS1=a=b=c", "SRS1=a=example.com==x", "SRS0-a-b-c-d", "SRS1==example.com==x"} {
		if back, err := r.Reverse(mail.Path{Local: local, Domain: ours}); err == nil {
			t.Errorf("%s is taken for %s", local, back)
		}
	}
}

func TestExpired(t *testing.T) {
	begin := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	now := begin
	r := rewriter(t, ours, 1, &now)
	p, _ := r.Forward(mail.MustPath("alice@example.net"))
	for days, want := range map[int]error{0: nil, 20: nil, 21: nil, 22: ErrExpired, 400: ErrExpired, 1003: ErrExpired} {
		now = begin.AddDate(0, 0, days)
		if _, err := r.Reverse(p); !errors.Is(err, want) {
			t.Errorf("after %d days: %v", days, err)
		}
	}
}

func FuzzReverse(f *testing.F) {
	now := time.Now()
	r := rewriter(f, ours, 1, &now)
	f.Add("alice", "example.net")
	f.Add("SRS0=abcdef=aa=example.net=a", "fwd.example.com")
	f.Add("SRS1=abcdef=example.net==a", "fwd.example.com")
	f.Fuzz(func(t *testing.T, local, dom string) {
		r.Reverse(mail.Path{Local: local, Domain: ours})
		p, err := mail.MakePath(local, dom)
		if err != nil {
			return
		}
		to, ok := r.Forward(p)
		if !ok {
			return
		}
		back, err := r.Reverse(to)
		if err != nil || back != p && !strings.HasPrefix(to.Local, "SRS1=") {
			t.Errorf("%s becomes %s and comes back as %s, %v", p, to, back, err)
		}
	})
}
