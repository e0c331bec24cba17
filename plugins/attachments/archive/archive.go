// Package archive reads the directories of archives that are held in memory, and unpacks what
// is in them: rar (names, and what is stored), 7z, xz, cab and images of CDs (ISO 9660).
//
// Archives are hostile. What a header claims is compared with the bytes that are there before
// anything is allocated, dictionaries are taken from the caller's memory first, whatever is
// unpacked passes the caller's counter, and a decoder that panics is a damaged archive.
// Nothing is written anywhere.
package archive

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf16"
)

// Limits is what archives are unpacked within.
type Limits interface {
	// Take reserves memory for a dictionary, in bytes, or says that there is not so much.
	Take(n int64) error
	// Give returns what was taken.
	Give(n int64)
	// InTime is an error when the time is over.
	InTime() error
	// Unpacked counts what comes out of r, which is packed in so many bytes, and ends it at
	// a limit.
	Unpacked(r io.Reader, packed int64) io.Reader
}

var (
	// ErrDamaged is the error of an archive that cannot be read.
	ErrDamaged = errors.New("damaged archive")
	// ErrTooMany is the error of an archive with more files than asked for.
	ErrTooMany = errors.New("too many files")
)

// Archive is what is known of an archive by its headers.
type Archive struct {
	Files     []File
	Encrypted bool // names, or contents
	Opaque    bool // there are contents, or names, that cannot be read here
	Damaged   bool // the headers end early, or are wrong
	streams   []stream
}

// File is an entry of an archive: a file or a folder.
type File struct {
	Names  []string // in every reading, UTF-8; none where the format has none
	stream int      // that it is in; -1 if there is no content, or none that can be read
	offset int64
	size   int64
}

// stream is a sequence of bytes that files are pieces of.
type stream struct {
	packed int64
	size   int64
	memory int64 // of its decoders
	open   func(in func([]byte) io.Reader) (io.Reader, error)
}

// maxStream is the greatest size that is believed, in bytes: sums of them do not overflow.
const maxStream = 1 << 40

// Sizes calls see with the packed and unpacked size of everything that can be unpacked.
func (a *Archive) Sizes(see func(packed, unpacked uint64)) {
	for _, s := range a.streams {
		see(uint64(s.packed), uint64(s.size))
	}
}

// stored adds content that is not compressed, and returns the number of its stream.
func (a *Archive) stored(b []byte) int {
	a.streams = append(a.streams, stream{packed: int64(len(b)), size: int64(len(b)),
		open: func(in func([]byte) io.Reader) (io.Reader, error) { return in(b), nil }})
	return len(a.streams) - 1
}

// Each calls see for each file, in the order of the content, with a reader of it that is valid
// during the call; nil where there is none. It ends with the first error of see.
func (a *Archive) Each(l Limits, see func(f *File, r io.Reader) error) error {
	slices.SortStableFunc(a.Files, func(x, y File) int {
		return cmp.Or(cmp.Compare(x.stream, y.stream), cmp.Compare(x.offset, y.offset))
	})
	var s *section
	defer func() { s.close(l) }()
	for i := range a.Files {
		f := &a.Files[i]
		if f.stream < 0 {
			if err := see(f, nil); err != nil {
				return err
			}
			continue
		}
		if s == nil || s.stream != &a.streams[f.stream] {
			s.close(l)
			s = open(l, &a.streams[f.stream])
		}
		s.seek(f.offset, f.size)
		if err := see(f, s); err != nil {
			return err
		}
	}
	return nil
}

// section reads one file of a stream after the other.
type section struct {
	stream *stream
	r      io.Reader
	at     int64
	end    int64 // of the file
	err    error
}

func open(l Limits, s *stream) *section {
	sec := &section{stream: s}
	if err := l.Take(s.memory); err != nil {
		sec.err = err
		return sec
	}
	sec.r = l.Unpacked(&decoder{limits: l, stream: s}, s.packed)
	return sec
}

func (s *section) close(l Limits) {
	if s != nil && s.r != nil {
		l.Give(s.stream.memory)
	}
}

func (s *section) seek(offset, size int64) {
	s.end = offset + size
	if s.err != nil {
		return
	}
	if offset < s.at { // files do not overlap in any archive that a program made
		s.err = ErrDamaged
		return
	}
	n, err := io.CopyN(io.Discard, s.r, offset-s.at)
	s.at += n
	s.err = err
	if err == io.EOF {
		s.err = io.ErrUnexpectedEOF
	}
}

func (s *section) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.at >= s.end {
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.end-s.at)])
	s.at += int64(n)
	if err == io.EOF && s.at < s.end {
		err = io.ErrUnexpectedEOF
	}
	if err != io.EOF {
		s.err = err
	}
	return n, err
}

// recovered makes a damaged archive of a panic of a decoder.
func recovered(n *int, err *error) {
	if v := recover(); v != nil {
		*n, *err = 0, fmt.Errorf("%w: %v", ErrDamaged, v)
	}
}

// decoder opens a stream when it is first read.
type decoder struct {
	limits Limits
	stream *stream
	r      io.Reader
}

func (d *decoder) Read(p []byte) (n int, err error) {
	defer recovered(&n, &err)
	if d.r == nil {
		d.r, err = d.stream.open(func(b []byte) io.Reader { return &input{d.limits, b} })
		if err != nil {
			return 0, err
		}
	}
	return d.r.Read(p)
}

// input is what a decoder reads. A decoder may work for long before it has something to
// return, so the time counts here too.
type input struct {
	limits Limits
	b      []byte
}

func (in *input) Read(p []byte) (int, error) {
	if len(in.b) == 0 {
		return 0, io.EOF
	}
	if err := in.limits.InTime(); err != nil {
		return 0, err
	}
	n := copy(p[:min(len(p), 4096)], in.b)
	in.b = in.b[n:]
	return n, nil
}

// fields reads the fields of a header. Behind the end, everything is 0 and bad is set.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) bytes(n uint64) []byte {
	if n > uint64(len(f.b)) {
		f.b, f.bad = nil, true
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) uint(n uint64) uint64 {
	var v [8]byte
	copy(v[:], f.bytes(n))
	return binary.LittleEndian.Uint64(v[:])
}

func (f *fields) u8() byte    { return byte(f.uint(1)) }
func (f *fields) u16() uint64 { return f.uint(2) }
func (f *fields) u32() uint64 { return f.uint(4) }
func (f *fields) u64() uint64 { return f.uint(8) }

// leb is a number in groups of 7 bits, the low ones first (RAR 5, which allows ten of them, xz).
func (f *fields) leb() uint64 {
	var v uint64
	for shift := 0; shift < 70; shift += 7 {
		c := f.u8()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	f.bad = true
	return 0
}

// zeroEnded is a text up to a NUL.
func (f *fields) zeroEnded() string {
	i := bytes.IndexByte(f.b, 0)
	if i < 0 {
		f.b, f.bad = nil, true
		return ""
	}
	return string(f.bytes(uint64(i) + 1)[:i])
}

// utf16Text decodes UTF-16 in the given order of bytes.
func utf16Text(b []byte, order binary.ByteOrder) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = order.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}
