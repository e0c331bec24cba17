package archive

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program is what testdata/README calls invoice.exe: something with many calls and jumps, as
// the filters for programs want it.
func program() []byte {
	x := uint32(1)
	rnd := func() uint32 {
		x = x*1103515245 + 12345
		return x >> 16
	}
	out := []byte("MZ\x90\x00\x03\x00\x00\x00\x04\x00")
	for len(out) < 1000 {
		switch r := rnd() % 8; {
		case r < 2:
			out = append(out, 0xe8+byte(r))
			out = binary.LittleEndian.AppendUint32(out, rnd()%40*64-1000)
		case r == 2:
			out = append(out, 0x0f, 0x80|byte(rnd()%16))
			out = binary.LittleEndian.AppendUint32(out, rnd()%30*32-500)
		case r == 3:
			out = append(out, []byte{0xe8, 0xe9, 0xe8}[:min(rnd()%4, 3)]...)
		default:
			out = append(out, byte(rnd()%4), 0x55)
		}
	}
	return out
}

const (
	readme = "just a text\n"
	inSub  = "in a folder\n"
)

// allowance is the Limits of tests: it counts, and fails when something is not given back.
type allowance struct {
	t      testing.TB
	memory int64 // left
	bytes  int64 // left
	used   int64 // at most, of memory
	taken  int64
}

func newAllowance(t testing.TB) *allowance {
	return &allowance{t: t, memory: 48 << 20, bytes: 64 << 20}
}

var errLimit = errors.New("limit")

func (l *allowance) Take(n int64) error {
	if n < 0 || n > l.memory {
		return errLimit
	}
	l.memory -= n
	l.taken += n
	l.used = max(l.used, l.taken)
	return nil
}

func (l *allowance) Give(n int64) {
	l.memory += n
	l.taken -= n
}

func (l *allowance) InTime() error { return nil }

func (l *allowance) Unpacked(r io.Reader, packed int64) io.Reader { return &counted{l, r} }

type counted struct {
	l *allowance
	r io.Reader
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.l.bytes -= int64(n); c.l.bytes < 0 {
		return 0, errLimit
	}
	return n, err
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

func read(b []byte, most int, l Limits) (*Archive, error) {
	switch {
	case bytes.HasPrefix(b, []byte("Rar!")):
		return RAR(b, most)
	case bytes.HasPrefix(b, []byte("7z")):
		return SevenZip(b, most, l)
	case bytes.HasPrefix(b, []byte(xzMark)):
		return XZ(b, most)
	case bytes.HasPrefix(b, []byte("MSCF")):
		return CAB(b, most)
	}
	return ISO(b, most)
}

// contents are the files of an archive by their names: "" for those without content, the
// error for those that cannot be unpacked.
func contents(t testing.TB, b []byte) (map[string]string, *Archive) {
	t.Helper()
	l := newAllowance(t)
	a, err := read(b, 1000, l)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	err = a.Each(l, func(f *File, r io.Reader) error {
		var text []byte
		if r != nil {
			var err error
			if text, err = io.ReadAll(r); err != nil {
				text = []byte(err.Error())
			}
		}
		for _, n := range append(slices.Clone(f.Names), "")[:max(1, len(f.Names))] {
			got[n] = string(text)
		}
		return nil
	})
	if err != nil || l.taken != 0 {
		t.Errorf("%v, %d bytes of memory not returned", err, l.taken)
	}
	return got, a
}

// Archives that the real programs made: see testdata/README.
func TestRealArchives(t *testing.T) {
	exe := string(program())
	both := map[string]string{"readme.txt": readme, "invoice.exe": exe}
	all := map[string]string{"readme.txt": readme, "invoice.exe": exe, "empty": "", "sub": "", "sub/ünï.txt": inSub}
	names := map[string]string{"readme.txt": "", "invoice.exe": "", "empty": "", "sub": "", "sub/ünï.txt": ""}
	for name, tt := range map[string]struct {
		want  map[string]string
		types string
	}{
		"lzma.7z":      {all, ""},
		"lzma2.7z":     {all, ""},
		"plain.7z":     {all, ""},
		"deflate.7z":   {all, ""},
		"bzip2.7z":     {all, ""},
		"bcj.7z":       {both, ""},
		"bcj2.7z":      {map[string]string{"invoice.exe": exe}, ""},
		"ppmd.7z":      {names, "opaque"},
		"aes.7z":       {map[string]string{"readme.txt": "", "invoice.exe": ""}, "encrypted opaque"},
		"aesheader.7z": {map[string]string{}, "encrypted opaque"},
		"two.xz":       {map[string]string{"": readme + readme}, ""},
		"bcj.xz":       {map[string]string{"": exe}, ""},
		"blocks.xz":    {map[string]string{"": exe}, ""},
		"delta.xz":     {map[string]string{}, "opaque"},
		"mszip.cab":    {both, ""},
		"none.cab":     {both, ""},
		"plain.iso.gz": {map[string]string{"SUB": "", "INVOICE.EXE": exe, "A_LONG_N.TXT": readme, "X.TXT": exe}, ""},
		"joliet.iso.gz": {map[string]string{"SUB": "", "INVOICE.EXE": exe, "A_LONG_N.TXT": readme, "X.TXT": exe,
			"sub": "", "invoice.exe": exe, "a long name of a text.txt": readme, "x.txt": exe}, ""},
		"bridge.iso.gz": {map[string]string{"SUB": "", "INVOICE.EXE": exe, "A_LONG_N.TXT": readme, "X.TXT": exe}, "opaque"},
	} {
		got, a := contents(t, fixture(t, name))
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s:\n%.500q\nwant\n%.500q", name, got, tt.want)
		}
		if types := strings.TrimSpace(types(a)); types != tt.types {
			t.Errorf("%s: %s, want %s", name, types, tt.types)
		}
	}
}

func types(a *Archive) string {
	var s string
	for _, t := range []struct {
		is   bool
		word string
	}{{a.Damaged, "damaged "}, {a.Encrypted, "encrypted "}, {a.Opaque, "opaque"}} {
		if t.is {
			s += t.word
		}
	}
	return s
}
