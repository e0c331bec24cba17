package attachments

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/postern-mail/postern/sdk"
)

// made is an archive of the directory archive/testdata; see the README there.
func made(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("archive", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if b, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func xzOf(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zstdOf(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// rarOf is an archive of version 5 with one file; method 0 is stored.
func rarOf(name string, method byte, content []byte) []byte {
	h := binary.AppendUvarint([]byte{2, 2}, uint64(len(content)))
	h = append(h, 0)
	h = binary.AppendUvarint(h, uint64(len(content)))
	h = binary.AppendUvarint(append(h, 0), uint64(method)<<7)
	h = append(append(h, 0, byte(len(name))), name...)
	b := append([]byte("Rar!\x1a\x07\x01\x00\x00\x00\x00\x00\x03\x01\x00\x00\x00\x00\x00\x00"), byte(len(h)))
	return append(append(append(b, h...), content...), "\x00\x00\x00\x00\x03\x05\x00\x00"...)
}

// What is in rar, 7z, xz, zstd, cab and ISO files counts as what is in a zip does.
func TestHeldArchives(t *testing.T) {
	p := configured(t, "")
	byName := configured(t, "[[rule]]\nnames = [\"x.txt\"]\naction = \"reject\"")
	types := configured(t, "[[rule]]\ntypes = [\"encrypted\"]\naction = \"reject\"\n[[rule]]\ntypes = [\"opaque\"]\naction = \"quarantine\"")
	accepted := configured(t, "[[rule]]\nnames = [\"iso\"]\naction = \"accept\"\n[[rule]]\ntypes = [\"executable\"]\naction = \"reject\"")
	image := made(t, "joliet.iso.gz")
	prefixed := func(b []byte) []byte { return append(b, image[len(b):]...) }
	for name, tt := range map[string]struct {
		p       *Plugin
		content []byte
		want    sdk.Action
		path    string
	}{
		"7z":                     {p, made(t, "lzma2.7z"), sdk.ActionReject, "a/invoice.exe"},
		"7z, a program":          {p, made(t, "bcj2.7z"), sdk.ActionReject, "a/invoice.exe"},
		"7z, packed by PPMd":     {p, made(t, "ppmd.7z"), sdk.ActionReject, "a/invoice.exe"},
		"7z, encrypted":          {p, made(t, "aes.7z"), sdk.ActionReject, "a/invoice.exe"},
		"7z, encrypted, held":    {types, made(t, "aes.7z"), sdk.ActionReject, "type encrypted"},
		"7z, names encrypted":    {types, made(t, "aesheader.7z"), sdk.ActionReject, "type encrypted"},
		"7z, not to be looked":   {types, made(t, "ppmd.7z"), sdk.ActionQuarantine, "type opaque"},
		"7z, looked into":        {types, made(t, "lzma.7z"), sdk.ActionContinue, ""},
		"7z, a volume":           {types, made(t, "volume.7z.001"), sdk.ActionQuarantine, "type opaque"},
		"tar.xz":                 {p, made(t, "a.tar.xz"), sdk.ActionReject, "a//invoice.exe"},
		"tar.zst":                {p, made(t, "a.tar.zst"), sdk.ActionReject, "a//invoice.exe"},
		"xz":                     {p, xzOf(t, pe), sdk.ActionReject, "type executable"},
		"xz of a text":           {types, xzOf(t, plain), sdk.ActionContinue, ""},
		"xz, another filter":     {types, made(t, "delta.xz"), sdk.ActionQuarantine, "type opaque"},
		"zstd":                   {p, zstdOf(t, pe), sdk.ActionReject, "type executable"},
		"zstd, not whole":        {configured(t, "[[rule]]\ntypes = [\"damaged\"]\naction = \"reject\""), zstdOf(t, pe)[:10], sdk.ActionReject, "type damaged"},
		"cab":                    {p, made(t, "mszip.cab"), sdk.ActionReject, "a/invoice.exe"},
		"ISO":                    {p, image, sdk.ActionReject, "INVOICE.EXE"},
		"ISO, by the long name":  {byName, made(t, "joliet.iso.gz"), sdk.ActionReject, "named x.txt"},
		"ISO, by content":        {configured(t, "[[rule]]\nnames = [\"*.exe\"]\naction = \"accept\"\n[[rule]]\ntypes = [\"executable\"]\naction = \"reject\""), made(t, "plain.iso.gz"), sdk.ActionReject, "X.TXT"},
		"ISO with UDF":           {types, made(t, "bridge.iso.gz"), sdk.ActionQuarantine, "type opaque"},
		"ISO without UDF":        {types, made(t, "plain.iso.gz"), sdk.ActionContinue, ""},
		"ISO, not accepted":      {accepted, image, sdk.ActionReject, ""},
		"ISO behind a zip":       {p, prefixed(zipped(t, entry{"b.txt", plain})), sdk.ActionReject, "INVOICE.EXE"},
		"ISO behind a 7z":        {types, prefixed(made(t, "ppmd.7z")), sdk.ActionQuarantine, "type opaque"},
		"rar by name":            {p, rarOf("a.exe", 3, []byte("packed")), sdk.ActionReject, "a/a.exe"},
		"rar by content":         {p, rarOf("a.txt", 0, pe), sdk.ActionReject, "a/a.txt"},
		"rar, packed":            {types, rarOf("a.txt", 3, []byte("packed")), sdk.ActionQuarantine, "type opaque"},
		"rar, stored":            {types, rarOf("a.txt", 0, plain), sdk.ActionContinue, ""},
		"zip in 7z... in a rar":  {p, rarOf("b", 0, xzOf(t, zstdOf(t, zipped(t, entry{"c.js", plain})))), sdk.ActionReject, "c.js"},
		"7z in a zip":            {p, zipped(t, entry{"b", made(t, "lzma.7z")}), sdk.ActionReject, "a/b/invoice.exe"},
		"rar, a name to its NUL": {p, rarOf("a.js\x00.txt", 3, []byte("packed")), sdk.ActionReject, "a.js"},
		"a disk of fixed size":   {types, append(make([]byte, 66<<10), append([]byte("conectix"), make([]byte, 504)...)...), sdk.ActionQuarantine, "type opaque"},
		"a text about disks":     {types, append([]byte("about conectix"), make([]byte, 600)...), sdk.ActionContinue, ""},
		"WIM":                    {types, []byte("MSWIM\x00\x00\x00..."), sdk.ActionQuarantine, "type opaque"},
		"LZ4":                    {types, []byte("\x04\x22\x4d\x18..."), sdk.ActionQuarantine, "type opaque"},
		"rar behind junk":        {p, append([]byte("%PDF-1.4 and so on"), rarOf("a.js", 3, []byte("packed"))...), sdk.ActionReject, "a.js"},
		"zip behind a rar":       {p, append(rarOf("a.txt", 0, plain), zipped(t, entry{"b.js", plain})...), sdk.ActionReject, "b.js"},
		"zip behind gzip":        {p, append([]byte("\x1f\x8b"), zipped(t, entry{"b.js", plain})...), sdk.ActionReject, "b.js"},
		"zip behind a document":  {p, append(oleWith("Workbook"), zipped(t, entry{"b.js", plain})...), sdk.ActionReject, "b.js"},
		"zip behind junk in zip": {p, zipped(t, entry{"b.zip", append([]byte("junk"), zipped(t, entry{"c.js", plain})...)}), sdk.ActionReject, "b.zip/c.js"},
		"tar without a mark":     {p, oldTar(t, "b.js"), sdk.ActionReject, "b.js"},
		"LZMA":                   {types, []byte("\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x3c"), sdk.ActionQuarantine, "type opaque"},
		"tar, as rar":            {p, tarred(entry{"Rar!\x1a\x07\x01", nil}, entry{"b.js", plain}), sdk.ActionReject, "b.js"},
		"tar, as gzip":           {p, tarred(entry{"\x1f\x8b", nil}, entry{"b.js", plain}), sdk.ActionReject, "b.js"},
		"zstd, skipped first":    {p, append([]byte("\x51\x2a\x4d\x18\x02\x00\x00\x00.."), zstdOf(t, pe)...), sdk.ActionReject, "type executable"},
		"six deep":               {p, rarOf("1", 0, rarOf("2", 0, rarOf("3", 0, rarOf("4", 0, rarOf("5", 0, rarOf("6", 0, plain)))))), sdk.ActionUnscanned, ""},
		"names beyond a limit":   {configured(t, "max_unpacked = 1"), claiming(4<<30, "b.exe"), sdk.ActionReject, "a/b.exe"},
		"a dictionary too large": {configured(t, "max_unpacked = 1000000\nmax_ratio = 1000000000"), claiming(4<<30, "b.txt"), sdk.ActionUnscanned, ""},
		"zeros in xz":            {p, xzOf(t, make([]byte, 8<<20)), sdk.ActionUnscanned, ""},
		"zeros in zstd":          {p, zstdOf(t, make([]byte, 8<<20)), sdk.ActionUnscanned, ""},
		"a window of 128 MiB":    {p, made(t, "window.zst"), sdk.ActionUnscanned, ""},
	} {
		v := run(t, tt.p, wrap("a", tt.content))
		if v.Action != tt.want || !strings.Contains(v.Notes["found"], tt.path) {
			t.Errorf("%s: %v %v %v, want %v %s", name, v.Action, v.Status, v.Notes, tt.want, tt.path)
		}
	}
	// A message as a file, which is a tar archive for others.
	eml := "Content-Type: application/octet-stream; name=b.js\r\nX: "
	eml += strings.Repeat("x", 257-len(eml)) + "ustar\r\n\r\nx\r\n"
	if v := run(t, p, wrap("a.eml", []byte(eml))); v.Action != sdk.ActionReject {
		t.Errorf("a message: %v %v", v.Action, v.Notes)
	}
	if v := run(t, accepted, wrap("a.iso", image)); v.Action != sdk.ActionContinue {
		t.Errorf("accepted: %v %v", v.Action, v.Notes)
	}
}

// oldTar is a tar of before POSIX.
func oldTar(t testing.TB, name string) []byte {
	b := tarred(entry{name, plain})
	sum, err := strconv.ParseInt(string(b[148:154]), 8, 32)
	if err != nil {
		t.Fatal(err)
	}
	for i := 257; i < 512; i++ {
		sum -= int64(b[i])
		b[i] = 0
	}
	copy(b[148:], fmt.Sprintf("%06o", sum))
	return b
}

// claiming is a 7z of one file which is said to need a dictionary of 4 GiB.
func claiming(size uint64, name string) []byte {
	h := []byte{1, 4, 6, 0, 1, 9, 6, 0, 7, 11, 1, 0, 1, 0x23, 3, 1, 1, 5, 0x5d, 0xff, 0xff, 0xff, 0xff, 12, 0xff}
	h = binary.LittleEndian.AppendUint64(h, size)
	h = append(h, 0, 0, 5, 1, 0x11, byte(2*len(name)+3), 0)
	h = append(append(h, utf16(name+"\x00")...), 0, 0)
	b := append([]byte("7z\xbc\xaf\x27\x1c\x00\x04\x00\x00\x00\x00\x06"), make([]byte, 7)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(h)))
	return append(append(b, "\x00\x00\x00\x00packed"...), h...)
}
