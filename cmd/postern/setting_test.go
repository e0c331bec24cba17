package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A setting that the plugin which reads it could not use is refused, and the one before it stays; of one
// that nobody reads the command says so.
func TestAccountSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "postern.toml")
	if err := os.WriteFile(file, []byte("hostname = \"mx.example.org\"\ndata_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:2525\"\nrole = \"mx\"\n[[domain]]\nname = \"example.org\"\ndeliver = \"maildir\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, dir: dir, file: file}
	g.account("alice@example.org")
	for _, tt := range []struct {
		key, value string
		code       int
		says       string
	}{
		{"sieve", "off", 0, "sieve of alice@example.org set\n"},
		{"sieve", "Off", 1, `sieve is on or off, not "Off"`},
		{"sieve", "on", 0, ""},
		{"trash_expiry", "30d", 0, ""},
		{"trash_expiry", "30 days", 1, `trash_expiry is a number of days (30d) or never, not "30 days"`},
		{"junk_expiry", "soon", 1, "junk_expiry is"},
		{"junk_expiry", "never", 0, ""},
		{"junk_expiry", "", 0, "junk_expiry of alice@example.org is no longer set"},
		{"seive", "off", 0, "no plugin that comes with Postern reads it"},
	} {
		args := []string{"account", "set", "alice@example.org", tt.key}
		if tt.value != "" {
			args = append(args, tt.value)
		}
		if out, code := g.run(args...); code != tt.code || !strings.Contains(out, tt.says) {
			t.Errorf("%s %q: exit code %d\n%s", tt.key, tt.value, code, out)
		}
	}
	if out := g.must("account", "show", "alice@example.org"); !strings.Contains(out, "sieve = on") || !strings.Contains(out, "trash_expiry = 30d") || strings.Contains(out, "junk_expiry") {
		t.Errorf("%s", out)
	}
}
