package directory

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "directory.db")
	if err := Copy(t.Context(), from, filepath.Join(dir, "none.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy of nothing: %v", err)
	}
	options := func(path string) Options {
		return Options{Path: path, Hostname: mail.MustDomain("mx.test"), Postmaster: mail.MustPath("postmaster@mx.test")}
	}
	d, err := Open(options(from))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.AddDomain(t.Context(), Domain{Name: mail.MustDomain("a.test")}); err != nil {
		t.Fatal(err)
	}
	if err := d.AddAlias(t.Context(), mail.MustPath("x@a.test"), mail.MustPath("y@b.test")); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"open", "closed"} {
		if state == "closed" {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		before, _ := os.ReadFile(from)
		to := filepath.Join(dir, state+".db")
		if err := Copy(t.Context(), from, to); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		after, _ := os.ReadFile(from)
		if !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed", state)
		}
		if fi, err := os.Stat(to); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", state, fi, err)
		}
		c, err := Open(options(to))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Resolve(t.Context(), mail.MustPath("x@a.test"))
		if err != nil || len(got) != 1 || got[0] != mail.MustPath("y@b.test") {
			t.Errorf("%s: %v, %v", state, got, err)
		}
		if err := c.AddAlias(t.Context(), mail.MustPath("new@a.test"), mail.MustPath("y@b.test")); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}
