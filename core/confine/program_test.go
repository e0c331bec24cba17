package confine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A program is opened only if it is the one whose checksum is known and nobody else can
// change it.
func TestOpenProgram(t *testing.T) {
	t.Parallel()
	text := []byte("#!/bin/sh\nexit 0\n")
	sum := sha256.Sum256(text)
	good := hex.EncodeToString(sum[:])
	file := func(name string, mode os.FileMode, uid int) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if uid >= 0 {
			require(t, os.Geteuid() == 0, "not root")
			if err := os.Chown(path, uid, -1); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	for _, tt := range []struct{ path, sum, want string }{
		{file("good", 0o755, -1), good, ""},
		{file("good", 0o755, -1), strings.ToUpper(good), ""},
		{file("other", 0o755, -1), strings.Repeat("00", 32), "its SHA-256 is " + good},
		{file("group", 0o775, -1), good, "others may write to it (mode 0775)"},
		{file("world", 0o757, -1), good, "others may write to it (mode 0757)"},
		{file("foreign", 0o755, 64321), good, "belongs to user 64321"},
		{filepath.Dir(file("folder", 0o755, -1)), good, "not a regular file"},
		{"/nonexistent/program", good, "no such file"},
	} {
		f, err := OpenProgram(tt.path, tt.sum)
		if f != nil {
			f.Close()
		}
		if (err == nil) != (tt.want == "") || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: %v, want %q", tt.path, err, tt.want)
		}
	}
	// What is opened stays what was checked, whatever its name stands for later.
	path := file("renamed", 0o755, -1)
	f, err := OpenProgram(path, good)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(file("evil", 0o755, -1), path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != string(text) {
		t.Errorf("%q, %v", b, err)
	}
}
