package sieve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/plugins/sieve/managesieve"
	"github.com/postern-mail/postern/sdk"
)

// Each error of the store has its response code, and what is out of reach none.
func TestManageSieveRefusals(t *testing.T) {
	s, h := newStore(t)
	m, ctx := managed{s}, t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, text string) error {
		_, err := m.Put(ctx, alice, name, []byte(text))
		return err
	}
	must(put("a", "keep;"))
	must(m.Activate(ctx, alice, "a"))
	must(put("b", "#"+strings.Repeat("x", 98)+"\n"))
	for name, tt := range map[string]struct {
		err  error
		code string
		text string
	}{
		"get":        {func() error { _, err := m.Get(ctx, alice, "x"); return err }(), "NONEXISTENT", "no script"},
		"activate":   {m.Activate(ctx, alice, "x"), "NONEXISTENT", "no script"},
		"delete":     {m.Delete(ctx, alice, "x"), "NONEXISTENT", "no script"},
		"active":     {m.Delete(ctx, alice, "a"), "ACTIVE", "is active"},
		"rename":     {m.Rename(ctx, alice, "x", "y"), "NONEXISTENT", "no script"},
		"taken":      {m.Rename(ctx, alice, "a", "b"), "ALREADYEXISTS", "already"},
		"name":       {m.Rename(ctx, alice, "a", "b/c"), "", "name"},
		"large":      {m.HaveSpace(ctx, alice, "b", 101), "QUOTA/MAXSIZE", "100 bytes"},
		"room":       {m.HaveSpace(ctx, alice, "c", 46), "QUOTA", "150 bytes"},
		"put large":  {put("b", "#"+strings.Repeat("x", 99)+"\n"), "QUOTA/MAXSIZE", "100 bytes"},
		"put faulty": {put("b", "keep;\nfoo;\nbar;"), "", "line 2: unknown command 'foo'\nline 3: unknown command 'bar'"},
		"check":      {func() error { _, err := m.Check(ctx, alice, []byte("if")); return err }(), "", "line 1: "},
	} {
		var r *managesieve.Refusal
		if !errors.As(tt.err, &r) || r.Code != tt.code || !strings.Contains(r.Text, tt.text) {
			t.Errorf("%s: %#v, want %q and %q", name, tt.err, tt.code, tt.text)
		}
	}
	must(put("b", "keep;"))
	must(put("c", "keep;"))
	var r *managesieve.Refusal
	if err := put("d", "keep;"); !errors.As(err, &r) || r.Code != "QUOTA/MAXSCRIPTS" {
		t.Error(err)
	}
	if list, err := m.List(ctx, alice); err != nil || fmt.Sprint(list) != "[{a true} {b false} {c false}]" {
		t.Error(list, err)
	}
	h.Handle.Close()
	if err := put("c", "keep;"); err == nil || errors.As(err, &r) {
		t.Errorf("without the gateway: %v", err)
	}
}

func TestManageSieveWarnings(t *testing.T) {
	redirects := func(n int) string { return strings.Repeat("redirect \"a@example.org\";\n", n) }
	late := "line 5: one run may do 4 redirects: this may be one too many, which ends the script as an error does"
	for script, want := range map[string]string{
		"keep;":                              "",
		"keep; stop;":                        "",
		"stop;\nkeep;\nkeep;":                "line 2: this is never reached, after 'stop' in line 1",
		"if true { stop;\ndiscard; }\nkeep;": "line 2: this is never reached, after 'stop' in line 1",
		redirects(4):                         "",
		redirects(6):                         late,
		"if true {" + redirects(3) + "} elsif false {" + redirects(4) + "} else {" + redirects(2) + "}": "",
		"if true {" + redirects(3) + "} else {\n" + redirects(1) + "}" + redirects(2):                   "line 7: " + late[8:],
		"if true {" + redirects(4) + "stop; }" + redirects(4):                                           "",
		"if true {" + redirects(4) + "stop; } if true {" + redirects(4) + "stop; } " + redirects(4):     "",
		"if true {" + redirects(4) + "} redirect \"x@example.org\";":                                    late,
	} {
		if got := warningsOf([]byte(script), engine.Limits{Redirects: 4}); got != want {
			t.Errorf("%s\nwarns %q, want %q", script, got, want)
		}
	}
	if n := strings.Count(warningsOf([]byte(strings.Repeat("if true { stop; keep; }\n", 20)), engine.Limits{}), "\n"); n != maxWarnings-1 {
		t.Errorf("%d lines", n+1)
	}
}

// While the gateway starts, clients wait; then nobody asks again.
func TestManageSieveCertificate(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	c := &certificate{get: func(context.Context) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked < 3 {
			return nil, sdk.ErrNoHost
		}
		return &tls.Config{}, nil
	}}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := c.config(ended); got != nil || !errors.Is(err, sdk.ErrNoHost) {
		t.Errorf("at first there is %v, %v", got, err)
	}
	for range 3 {
		if got, err := c.config(t.Context()); got == nil || err != nil {
			t.Errorf("then there is %v, %v", got, err)
		}
	}
	if asked != 3 {
		t.Errorf("it was asked %d times", asked)
	}
}

func TestManageSieveSettings(t *testing.T) {
	for settings, good := range map[string]bool{
		``: true, `managesieve = ["127.0.0.1:4190", "[::]:4190", ":4190"]`: true, `managesieve = ["127.0.0.1:4190", "127.0.0.1:4190"]`: false,
		`managesieve = ["unix:/run/x"]`: false, `managesieve = ["localhost"]`: false, `managesieve = ["a:70000"]`: false, `managesieve = ["a:sieve"]`: false,
		`managesieve_connections = 1`: true, `managesieve_connections = 0`: false, `managesieve_per_client = 0`: false,
	} {
		if _, err := SettingsOf(sdk.Config{Settings: []byte(settings)}); (err == nil) != good {
			t.Errorf("%s: %v", settings, err)
		}
	}
}
