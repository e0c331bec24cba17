package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz/lzma"
)

// fixtures are all archives in testdata that this package lists.
func fixtures(t testing.TB) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, pattern := range []string{"*.7z*", "*.xz", "*.cab", "*.iso.gz"} {
		names, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, n := range names {
			all[filepath.Base(n)] = fixture(t, filepath.Base(n))
		}
	}
	all["4.rar"] = rar4Archive(rarEntry{name: "a.txt", content: "stored", method: 0x30}, rarEntry{name: "b.exe", content: "packed", method: 0x33})
	all["5.rar"] = rar5Archive(rarEntry{name: "a.txt", content: "stored"}, rarEntry{name: "b.exe", content: "packed", method: 3})
	return all
}

// unpackAll reads everything in an archive, within the limits of l.
func unpackAll(b []byte, most int, l *allowance) (files int, err error) {
	a, err := read(b, most, l)
	if err != nil {
		return 0, err
	}
	err = a.Each(l, func(_ *File, r io.Reader) error {
		files++
		if r == nil {
			return nil
		}
		if _, err := io.Copy(io.Discard, r); err == errLimit {
			return err
		}
		return nil
	})
	return files, err
}

// Every beginning of an archive, and every archive with one byte changed, is read to an end:
// without a panic that gets out, within the memory, and with all of that returned.
func TestDamaged(t *testing.T) {
	for name, b := range fixtures(t) {
		step := 1 + len(b)/4000 // images are mostly zeros
		try := func(what string, b []byte) {
			l := newAllowance(t)
			l.memory, l.bytes = 5<<20, 256<<10
			n, err := unpackAll(b, 100, l)
			if n > 100 || l.taken != 0 || l.used > 5<<20 || l.bytes < -64<<10 {
				t.Fatalf("%s, %s: %d files, %v, %d bytes taken, %d at most", name, what, n, err, l.taken, l.used)
			}
		}
		for i := 0; i < len(b); i += step {
			try(fmt.Sprint("the first ", i), b[:i:i])
		}
		for i := 0; i < len(b); i += step {
			for _, x := range []byte{0x01, 0xff} {
				b[i] ^= x
				try(fmt.Sprint("byte ", i, " ^ ", x), b)
				b[i] ^= x
			}
		}
	}
}

// number7z is a number as 7z writes it, in its longest form.
func number7z(n uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{0xff}, n) }

// archive7z is an archive of one folder with one coder, which holds one file.
func archive7z(method, props, packed []byte, size uint64, name string) []byte {
	h := []byte{idHeader, idStreams, idPack, 0, 1, idSize}
	h = append(h, number7z(uint64(len(packed)))...)
	h = append(h, idEnd, idUnpack, idFolder, 1, 0, 1, byte(len(method))|0x20)
	h = append(append(h, method...), byte(len(props)))
	h = append(append(h, props...), idCodersSize)
	h = append(append(h, number7z(size)...), idEnd, idEnd, idFiles, 1, idNames)
	var u []byte
	for _, c := range name + "\x00" {
		u = append(u, byte(c), 0)
	}
	h = append(append(h, byte(len(u)+1), 0), u...)
	h = append(h, idEnd, idEnd)
	return frame7z(packed, h)
}

func frame7z(packed, header []byte) []byte {
	b := append([]byte("7z\xbc\xaf\x27\x1c\x00\x04"), 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(packed)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(header)))
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(header))
	return append(append(b, packed...), header...)
}

// A dictionary of 4 GiB is taken for as much of it as the content can use, and where that is
// too much it is refused before it exists.
func TestDictionaries(t *testing.T) {
	var packed bytes.Buffer
	w, err := lzma.WriterConfig{Size: int64(len(readme))}.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, readme)
	w.Close()
	huge := []byte{packed.Bytes()[0], 0xff, 0xff, 0xff, 0xff}
	raw := packed.Bytes()[13:]
	l := newAllowance(t)
	if n, err := unpackAll(archive7z([]byte{3, 1, 1}, huge, raw, uint64(len(readme)), "a"), 10, l); n != 1 || err != nil || l.used > 1<<20 {
		t.Errorf("%d files, %v, %d bytes", n, err, l.used)
	}
	got, _ := contents(t, archive7z([]byte{3, 1, 1}, huge, raw, uint64(len(readme)), "a"))
	if got["a"] != readme {
		t.Errorf("%q", got)
	}
	for name, b := range map[string][]byte{
		"LZMA":  archive7z([]byte{3, 1, 1}, huge, raw, 4<<30, "a"),
		"LZMA2": archive7z([]byte{0x21}, []byte{40}, []byte("\x01\x00\x00a\x00"), 4<<30, "a"),
	} {
		l := newAllowance(t)
		if n, err := unpackAll(b, 10, l); n != 1 || err != errLimit || l.used > 0 {
			t.Errorf("%s: %d files, %v, %d bytes", name, n, err, l.used)
		}
	}
	// xz: the chunks say how much there is. Byte 17 is the dictionary of the first block.
	b := fixture(t, "two.xz")
	if b[14] != 0x21 {
		t.Fatalf("% x", b[:20])
	}
	b[16] = 40
	l = newAllowance(t)
	if n, err := unpackAll(b, 10, l); n != 1 || err != nil || l.used > 1<<20 {
		t.Errorf("xz: %d files, %v, %d bytes", n, err, l.used)
	}
	if got, _ := contents(t, b); got[""] != readme+readme {
		t.Errorf("xz: %q", got)
	}
	z, err := os.ReadFile("testdata/window.zst")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Zstd(bytes.NewReader(z))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, ErrMemory) {
		t.Errorf("zstd: %v", err)
	}
}

// Counts and sizes that lie.
func TestLies(t *testing.T) {
	many := func(n int) []rarEntry {
		list := make([]rarEntry, n)
		for i := range list {
			list[i].name = fmt.Sprint(i)
		}
		return list
	}
	files := append([]byte{idHeader, idFiles}, number7z(1<<60)...)
	folders := append([]byte{idHeader, idStreams, idUnpack, idFolder}, number7z(1<<60)...)
	streams := append(append([]byte{idHeader, idStreams, idPack}, number7z(1<<63)...), number7z(1<<60)...)
	packedHeader := append([]byte{idEncodedHeader}, archive7z(nil, nil, nil, 1<<39, "")[32+2:]...)
	cab := fixture(t, "none.cab")
	binary.LittleEndian.PutUint16(cab[36+4:], 0xffff) // blocks of the first folder
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"files of 7z":          {frame7z(nil, files), ErrTooMany},
		"folders of 7z":        {frame7z(nil, folders), ErrTooMany},
		"streams of 7z":        {frame7z(nil, streams), ErrTooMany},
		"packed header of 7z":  {frame7z(nil, packedHeader), ErrTooMany},
		"header of 7z outside": {frame7z(nil, files)[:40], ErrDamaged},
		"10,001 in rar 4":      {rar4Archive(many(10_001)...), ErrTooMany},
		"10,001 in rar 5":      {rar5Archive(many(10_001)...), ErrTooMany},
		"10,000 in rar 5":      {rar5Archive(many(10_000)...), nil},
		"blocks of cab":        {cab, ErrDamaged},
	} {
		if _, err := unpackAll(tt.b, 10_000, newAllowance(t)); err != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	// A packed header in a packed header in a packed header...
	header := []byte{idHeader, idEnd}
	var packed []byte
	for range maxHeaderPacking + 1 {
		at := len(packed)
		packed = append(packed, header...)
		h := append([]byte{idEncodedHeader, idPack}, number7z(uint64(at))...)
		h = append(append(h, 1, idSize), number7z(uint64(len(header)))...)
		h = append(h, idEnd, idUnpack, idFolder, 1, 0, 1, 1, 0, idCodersSize)
		header = append(append(h, number7z(uint64(len(header)))...), idEnd, idEnd)
	}
	if _, err := unpackAll(frame7z(packed, header), 10, newAllowance(t)); err != ErrDamaged {
		t.Errorf("headers in headers: %v", err)
	}
}

// Images whose folders are in themselves, or are all over the image.
func TestISOCircles(t *testing.T) {
	b := fixture(t, "plain.iso.gz")
	i := bytes.Index(b, []byte("\x03SUB")) - 32
	root := b[16*sector+156:]
	copy(b[i+2:i+10], root[2:10]) // SUB is the root
	got, a := contents(t, b)
	if a.Damaged || len(a.Files) != 3 || got["INVOICE.EXE"] != string(program()) {
		t.Errorf("%d files, %v", len(a.Files), a.Damaged)
	}
	// Folders that are larger than the image, each of another size, full of nothing.
	big := make([]byte, 18*sector, 64*sector)
	copy(big, b[:18*sector])
	dir := make([]byte, 46*sector)
	for at, n := 0, 0; at+36 < len(dir); at += 36 {
		if at%sector+36 > sector {
			continue
		}
		r := dir[at:]
		r[0], r[25], r[32], r[33] = 36, 2, 1, byte('A'+n%20)
		binary.LittleEndian.PutUint32(r[2:], 18)
		binary.LittleEndian.PutUint32(r[10:], uint32(46*sector-n))
		n++
	}
	big = append(big, dir...)
	binary.LittleEndian.PutUint32(big[16*sector+158:], 18)
	binary.LittleEndian.PutUint32(big[16*sector+166:], 46*sector)
	if _, err := ISO(big, 1000); err != ErrTooMany {
		t.Error(err)
	}
}

// Whatever a decoder does, a panic of it is a damaged archive.
func TestPanic(t *testing.T) {
	a := &Archive{Files: []File{{size: 1}}, streams: []stream{{size: 1, open: func(func([]byte) io.Reader) (io.Reader, error) { panic("oops") }}}}
	err := a.Each(newAllowance(t), func(_ *File, r io.Reader) error {
		_, err := io.ReadAll(r)
		return err
	})
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "oops") {
		t.Error(err)
	}
}

func FuzzArchive(f *testing.F) {
	for _, b := range fixtures(f) {
		if len(b) < 8000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newAllowance(t)
		l.bytes = 4 << 20
		if n, err := unpackAll(b, 100, l); n > 100 || l.taken != 0 {
			t.Fatalf("%d files, %v, %d bytes taken", n, err, l.taken)
		}
	})
}
