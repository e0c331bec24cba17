package attachments

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// Limits at n-1, n and n+1, and bombs (M-07); nothing of it takes long.
func TestM07Limits(t *testing.T) {
	nest := func(n int) []byte {
		b := plain
		for i := range n {
			b = zipped(t, entry{fmt.Sprint(i, ".zip"), b})
		}
		return b
	}
	many := func(n int) []entry {
		list := make([]entry, n)
		for i := range list {
			list[i] = entry{fmt.Sprint(i), nil}
		}
		return list
	}
	// The root, the text and the attachment are files too.
	for name, tt := range map[string]struct {
		settings string
		content  []byte
		want     string
	}{
		"4 deep":         {"max_depth = 5", nest(4), ""},
		"5 deep":         {"max_depth = 5", nest(5), ""},
		"6 deep":         {"max_depth = 5", nest(6), "nested more than 5"},
		"20 deep":        {"", nest(20), "nested more than 5"},
		"96 files":       {"max_files = 100", zipped(t, many(96)...), ""},
		"97 files":       {"max_files = 100", zipped(t, many(97)...), ""},
		"98 files":       {"max_files = 100", zipped(t, many(98)...), "more than 100 files"},
		"101 in a zip":   {"max_files = 100", zipped(t, many(101)...), "more than 100 files"},
		"98 in a tar":    {"max_files = 100", tarred(many(98)...), "more than 100 files"},
		"a million":      {"", gzipped("", tarred(many(30_000)...)), "more than 10000 files"},
		"zeros":          {"", gzipped("", make([]byte, 8<<20)), "packed more than 250 times"},
		"zeros in a zip": {"", zipped(t, entry{"z", make([]byte, 8<<20)}), "packed more than 250 times"},
		"zeros, allowed": {"max_ratio = 10000", gzipped("", make([]byte, 2<<20)), ""},
		"1 MiB":          {"max_unpacked = 1\nmax_ratio = 100000", gzipped("", make([]byte, 1<<20)), ""},
		"1 MiB and more": {"max_unpacked = 1\nmax_ratio = 100000", gzipped("", make([]byte, 1<<20+1)), "more than 1 MiB"},
		"sizes of a lie": {"", lyingZip(t), "MiB unpacked"},
		"time":           {"max_time = \"1ms\"\nmax_ratio = 1000000", gzipped("", bytes.Repeat(gzipped("", make([]byte, 1<<20)), 20_000)), "more than 1ms"},
	} {
		v := run(t, configured(t, tt.settings), wrap("a", tt.content))
		if (v.Action == sdk.ActionUnscanned) != (tt.want != "") || !strings.Contains(v.Reason, tt.want) {
			t.Errorf("%s: %v %q %v", name, v.Action, v.Reason, v.Notes)
		}
	}
	bomb := wrap("a", nest(20))
	for policy, want := range map[string]sdk.Action{"reject": sdk.ActionReject, "quarantine": sdk.ActionQuarantine, "accept": sdk.ActionContinue, "unscanned": sdk.ActionUnscanned} {
		if v := run(t, configured(t, "limits = \""+policy+"\""), bomb); v.Action != want || !strings.Contains(v.Notes["limit"], "nested") {
			t.Errorf("%s: %v %v", policy, v.Action, v.Notes)
		}
	}
	// A bomb does not hide what lies beside it.
	both := strings.Replace(bomb, "--b--", "--b\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nx\r\n--b--", 1)
	if v := run(t, configured(t, ""), both); v.Action != sdk.ActionReject {
		t.Errorf("beside a bomb: %v", v.Action)
	}
}

// lyingZip declares that its files are larger than everything, and all of them share the
// same bytes (as in overlapping bombs).
func lyingZip(t testing.TB) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range 100 {
		f, err := w.CreateRaw(&zip.FileHeader{Name: fmt.Sprint(i), Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(nil), UncompressedSize64: 3 << 20, CompressedSize64: 1 << 10})
		if err != nil {
			t.Fatal(err)
		}
		f.Write(make([]byte, 1<<10))
	}
	w.Close()
	return b.Bytes()
}

// Names that lead elsewhere are names, and nothing is written anywhere (M-08).
func TestM08Traversal(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	p := configured(t, "")
	for _, name := range []string{"../../x.exe", "/etc/x.exe", `C:\x.exe`, "..\\x.exe"} {
		if v := run(t, p, wrap("a.zip", zipped(t, entry{name, plain}))); v.Action != sdk.ActionReject {
			t.Errorf("zip %s: %v", name, v.Action)
		}
		if v := run(t, p, wrap("a.tar", tarred(entry{name, plain}))); v.Action != sdk.ActionReject {
			t.Errorf("tar %s: %v", name, v.Action)
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	w.Close()
	if v := run(t, p, wrap("a.tar", b.Bytes())); v.Action != sdk.ActionContinue {
		t.Errorf("a link: %v", v.Action)
	}
}

// A stored body that is damaged is a failure of the plugin, which on_failure answers, and
// no verdict.
func TestDamagedBody(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := message(t, "Subject: x\r\n\r\n")
	m.Body = mail.Body{Path: file, Size: 1000}
	for _, p := range []*Plugin{configured(t, ""), configured(t, "limits = \"accept\"\nambiguous = \"accept\"")} {
		if v, err := sdktest.Filter(t, p, Manifest(), m); !errors.Is(err, mail.ErrBodyDamaged) {
			t.Errorf("%v, %v", v, err)
		}
	}
}

// What was too large is not counted against the archives after it.
func TestMemoryReturned(t *testing.T) {
	l := newLook(t.Context(), configured(t, ""))
	defer l.end()
	if _, err := l.hold(bytes.NewReader(make([]byte, maxMemory+1))); err != errLimit {
		t.Error(err)
	}
	b, err := l.hold(strings.NewReader("small"))
	if err != nil || string(b) != "small" || l.memory != 5 {
		t.Errorf("%q, %v, %d bytes held", b, err, l.memory)
	}
}
