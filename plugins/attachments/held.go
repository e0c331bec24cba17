package attachments

import (
	"io"

	"github.com/postern-mail/postern/plugins/attachments/archive"
)

// directory reads the directory of an archive that is held in memory; nil where the file is
// of no such kind.
func (l *look) directory(f *file, head []byte) func(b []byte) (*archive.Archive, error) {
	most := l.p.set.MaxFiles
	switch {
	case f.is("rar"):
		return func(b []byte) (*archive.Archive, error) { return archive.RAR(b, most) }
	case f.is("7z"):
		return func(b []byte) (*archive.Archive, error) { return archive.SevenZip(b, most, l) }
	case f.is("xz"):
		return func(b []byte) (*archive.Archive, error) { return archive.XZ(b, most) }
	case f.is("disk-image") && isImage(head):
		return func(b []byte) (*archive.Archive, error) { return archive.ISO(b, most) }
	case f.is("cab"):
		return func(b []byte) (*archive.Archive, error) { return archive.CAB(b, most) }
	}
	return nil
}

func (l *look) held(f *file, r io.Reader, read func([]byte) (*archive.Archive, error)) error {
	b, err := l.hold(r)
	if err != nil {
		return err
	}
	defer l.release(b)
	return l.listed(f, b, read)
}

// listed looks at an archive by its directory. What it is besides (encrypted, damaged) is only
// known then, so it tries the rules for the archive as well. Beyond a limit, the names in the
// directory still count.
func (l *look) listed(f *file, b []byte, read func([]byte) (*archive.Archive, error)) error {
	a, err := read(b)
	switch {
	case err == archive.ErrTooMany:
		return l.exceeded("more than %d files", l.p.set.MaxFiles)
	case err == errLimit:
		return err
	case err != nil:
		a = &archive.Archive{Damaged: true}
	}
	for _, t := range []struct {
		is   bool
		word string
	}{{a.Encrypted, "encrypted"}, {a.Damaged, "damaged"}, {a.Opaque || a.Damaged, "opaque"}} {
		if t.is {
			f.types = append(f.types, t.word)
		}
	}
	stop, err := l.judge(f)
	if stop || err != nil || len(a.Files) == 0 {
		return err
	}
	if err := l.deeper(f); err != nil {
		return err
	}
	var sizes sizes
	a.Sizes(func(packed, unpacked uint64) {
		if err == nil {
			err = sizes.add(l, packed, unpacked)
		}
	})
	limit := err
	err = a.Each(l, func(e *archive.File, r io.Reader) error {
		child := f.child(e.Names...)
		if f.is("xz") {
			child.names = unpackedNames(f.names, ".xz", ".txz")
		}
		if r != nil && limit == nil {
			err := l.content(child, r, nil)
			if limit = l.outcome(child, err); limit == nil || child.judged {
				return nil
			}
		}
		_, err := l.judge(child)
		return err
	})
	if err != nil {
		return err
	}
	return limit
}

// unzstd looks at what is compressed.
func (l *look) unzstd(f *file, r io.Reader) error {
	if err := l.deeper(f); err != nil {
		return err
	}
	if err := l.Take(archive.ZstdMemory); err != nil {
		return err
	}
	defer l.Give(archive.ZstdMemory)
	in := &counter{r: r}
	z, err := archive.Zstd(in)
	if err != nil {
		return l.broken(f)
	}
	return l.unpacked(f.child(unpackedNames(f.names, ".zst", ".tzst")...), &budget{l: l, r: z, in: in})
}

// Take reserves memory; it is one of [archive.Limits].
func (l *look) Take(n int64) error {
	if err := l.begin(); err != nil {
		return err
	}
	if n > maxMemory-l.memory {
		return l.tooLarge()
	}
	l.memory += n
	return nil
}

// Give returns memory.
func (l *look) Give(n int64) { l.memory -= n }

// InTime is an error when the time for this message is over.
func (l *look) InTime() error { return l.inTime() }

// Unpacked counts what comes out of r.
func (l *look) Unpacked(r io.Reader, packed int64) io.Reader { return l.budget(r, packed) }

// sizes adds up what archives declare, before anything is unpacked.
type sizes struct{ sum uint64 }

func (s *sizes) add(l *look, packed, unpacked uint64) error {
	if unpacked > minRatio && unpacked/uint64(l.p.set.MaxRatio) > packed {
		return l.exceeded("packed more than %d times smaller", l.p.set.MaxRatio)
	}
	if s.sum += unpacked; s.sum > uint64(l.maxBytes()) || unpacked > uint64(l.maxBytes()) {
		return l.exceeded("more than %d MiB unpacked", l.p.set.MaxUnpacked)
	}
	return nil
}

// isImage knows images of CDs, ISO 9660, from other disk images.
func isImage(head []byte) bool {
	return len(head) >= 0x8006 && string(head[0x8001:0x8006]) == "CD001"
}
