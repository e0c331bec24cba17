package attachments

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/postern-mail/postern/plugins/attachments/archive"
)

// zip looks at an archive of that kind, which is held in memory. What it is besides (a
// document, encrypted) it only knows then, so it tries the rules for the archive as well.
func (l *look) zip(f *file, r io.Reader) error {
	b, err := l.hold(r)
	if err != nil {
		return err
	}
	defer l.release(b)
	if n := bytes.Count(b, []byte("PK\x01\x02")); n > l.p.set.MaxFiles { // before they are all read
		return l.exceeded("more than %d files", l.p.set.MaxFiles)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if z == nil || err != nil && err != zip.ErrInsecurePath {
		f.types = append(f.types, "damaged", "opaque")
		z = &zip.Reader{}
	}
	f.types = append(f.types, zipTypes(z)...)
	stop, err := l.judge(f)
	if stop || err != nil {
		return err
	}
	if len(z.File) > 0 {
		if err := l.deeper(f); err != nil {
			return err
		}
	}
	if err := l.checkSizes(z); err != nil {
		return err
	}
	known := make(map[string]bool, len(z.File))
	for _, e := range z.File {
		known[e.Name] = true
		if err := l.zipEntry(f, e); err != nil {
			return err
		}
	}
	return l.hiddenEntries(f, b, known)
}

// zipTypes is what an archive is, by what is in it.
func zipTypes(z *zip.Reader) []string {
	var types []string
	add := func(t ...string) {
		for _, t := range t {
			if !strings.Contains(" "+strings.Join(types, " ")+" ", " "+t+" ") {
				types = append(types, t)
			}
		}
	}
	for _, e := range z.File {
		n := strings.ToLower(e.Name)
		switch {
		case n == "[content_types].xml":
			add("ooxml", "office")
		case n == "meta-inf/manifest.mf":
			add("java")
		case n == "mimetype" || n == "content.xml" || n == "meta-inf/manifest.xml":
			add("odf", "office")
		case strings.HasSuffix(n, "vbaproject.bin"), strings.Contains(n, "xl/macrosheets/"), strings.HasPrefix(n, "basic/") && strings.HasSuffix(n, ".xml"):
			add("macro")
		}
		if e.Flags&1 != 0 {
			add("encrypted")
		} else if e.Method != zip.Store && e.Method != zip.Deflate {
			add("opaque")
		}
	}
	return types
}

// checkSizes looks at the sizes that an archive declares, before anything is unpacked.
func (l *look) checkSizes(z *zip.Reader) error {
	var sizes sizes
	for _, e := range z.File {
		if err := sizes.add(l, e.CompressedSize64, e.UncompressedSize64); err != nil {
			return err
		}
	}
	return nil
}

func (l *look) zipEntry(f *file, e *zip.File) error {
	child := f.child(zipNames(e)...)
	if f.is("ooxml") || f.is("odf") {
		child.inOffice = true
	}
	if strings.HasSuffix(e.Name, "/") || e.Flags&1 != 0 || e.Method != zip.Store && e.Method != zip.Deflate {
		_, err := l.judge(child)
		return err
	}
	r, err := e.Open()
	if err != nil { // its header lies outside of the archive
		return l.broken(child)
	}
	defer r.Close()
	err = l.content(child, l.budget(r, int64(min(e.CompressedSize64, 1<<40))), nil)
	return l.outcome(child, err)
}

// broken tries the rules for a file that cannot be read.
func (l *look) broken(f *file) error {
	f.types = append(f.types, "damaged")
	_, err := l.judge(f)
	return err
}

// outcome passes limits on; whatever else ends reading is a damaged file.
func (l *look) outcome(f *file, err error) error {
	if err == nil || err == errLimit {
		return err
	}
	if errors.Is(err, archive.ErrMemory) {
		return l.tooLarge()
	}
	return l.broken(f)
}

// child is a file in f.
func (f *file) child(names ...string) *file {
	return &file{names: names, path: f.path + "/", depth: f.depth + 1, part: f.part, inOffice: f.inOffice}
}

// zipNames are the names of an entry: as written, in Latin-1 where that is not UTF-8, and
// the one in the Unicode path field (APPNOTE 4.6.9).
func zipNames(e *zip.File) []string {
	names := []string{text8(e.Name)}
	for x := e.Extra; len(x) >= 4; {
		n := int(binary.LittleEndian.Uint16(x[2:]))
		if n > len(x)-4 {
			break
		}
		if binary.LittleEndian.Uint16(x) == 0x7075 && n > 5 {
			names = append(names, text8(string(x[9:4+n])))
		}
		x = x[4+n:]
	}
	return names
}

// text8 makes UTF-8 of a name of unknown charset; of DOS names only what is ASCII matters.
func text8(s string) string { return strings.ToValidUTF8(s, "?") }

// hiddenEntries tries the rules for the names of files that the directory of the archive
// does not have: some programs do not look there.
func (l *look) hiddenEntries(f *file, b []byte, known map[string]bool) error {
	for {
		i := bytes.Index(b, []byte("PK\x03\x04"))
		if i < 0 || len(b)-i < 30 {
			return nil
		}
		b = b[i:]
		n := int(binary.LittleEndian.Uint16(b[26:]))
		if n > 0 && n <= 1024 && 30+n <= len(b) {
			if name := string(b[30 : 30+n]); !known[name] {
				child := f.child(text8(name))
				child.inOffice = f.is("ooxml") || f.is("odf")
				if _, err := l.judge(child); err != nil {
					return err
				}
			}
		}
		b = b[4:]
	}
}

// gunzip looks at what is compressed.
func (l *look) gunzip(f *file, r io.Reader) error {
	if err := l.deeper(f); err != nil {
		return err
	}
	in := &counter{r: r}
	z, err := gzip.NewReader(in)
	if err != nil {
		return l.broken(f)
	}
	names := unpackedNames(f.names, ".gz", ".tgz")
	if z.Name != "" {
		names = append(names, text8(z.Name))
	}
	return l.unpacked(f.child(names...), &budget{l: l, r: z, in: in})
}

func (l *look) bunzip2(f *file, r io.Reader) error {
	if err := l.deeper(f); err != nil {
		return err
	}
	in := &counter{r: r}
	return l.unpacked(f.child(unpackedNames(f.names, ".bz2", ".tbz")...), &budget{l: l, r: bzip2.NewReader(in), in: in})
}

// unpacked looks at the one file in a stream, and reads it to the end: a bomb shows by how
// much comes out.
func (l *look) unpacked(child *file, r io.Reader) error {
	err := l.content(child, r, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return l.outcome(child, err)
}

func unpackedNames(names []string, suffix, tarSuffix string) []string {
	var out []string
	for _, n := range names {
		low := strings.ToLower(n)
		if s, ok := strings.CutSuffix(low, suffix); ok {
			out = append(out, s)
		} else if s, ok := strings.CutSuffix(low, tarSuffix); ok {
			out = append(out, s+".tar")
		}
	}
	return out
}

// tar looks at an archive as it comes by.
func (l *look) tar(f *file, r io.Reader) error {
	if err := l.deeper(f); err != nil {
		return err
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if h == nil || err != nil && err != tar.ErrInsecurePath {
			return l.outcome(f.child(), err)
		}
		child := f.child(text8(h.Name))
		if h.Typeflag != tar.TypeReg { // a folder, a link: a name
			if _, err := l.judge(child); err != nil {
				return err
			}
			continue
		}
		if err := l.content(child, l.budget(t, h.Size), nil); err == errLimit {
			return err
		} else if err != nil {
			if err := l.broken(child); err != nil {
				return err
			}
		}
	}
}

// minRatio is how much may come out before the ratio counts, in bytes: small files of zeros
// are harmless.
const minRatio = 4 << 20

func (l *look) maxBytes() int64 { return int64(l.p.set.MaxUnpacked) << 20 }

// budget counts what is unpacked, and ends it at a limit.
type budget struct {
	l   *look
	r   io.Reader
	in  *counter // what is packed
	out int64
}

// budget wraps a file of which the packed size is known.
func (l *look) budget(r io.Reader, packed int64) *budget {
	return &budget{l: l, r: r, in: &counter{n: packed}}
}

func (b *budget) Read(p []byte) (int, error) {
	if err := b.l.inTime(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	b.out += int64(n)
	if b.l.bytes += int64(n); b.l.bytes > b.l.maxBytes() {
		return 0, b.l.exceeded("more than %d MiB unpacked", b.l.p.set.MaxUnpacked)
	}
	if b.out > minRatio && b.out/int64(b.l.p.set.MaxRatio) > b.in.n {
		return 0, b.l.exceeded("packed more than %d times smaller", b.l.p.set.MaxRatio)
	}
	return n, err
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
