package mail

import (
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestD18BodyInFile: a body that was altered on disk never reads to its end.
func TestD18BodyInFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "body")
	text := []byte("hello there\r\n")
	b := Body{Path: name, Offset: 3, Size: int64(len(text)), Summed: true, Sum: crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli))}
	read := func(content string) (string, error) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := b.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		return string(got), err
	}
	if got, err := read("abc" + string(text) + "tail"); got != string(text) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"abchello", "", "abcHello there\r\n", "ab" + string(text)} {
		if _, err := read(bad); !errors.Is(err, ErrBodyDamaged) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	b.Summed = false
	if _, err := read("abchello"); !errors.Is(err, ErrBodyDamaged) {
		t.Errorf("short, without a sum: %v", err)
	}
}
