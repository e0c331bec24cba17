package archive

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
)

// The properties of 7z headers (7zFormat.txt of the 7-Zip sources).
const (
	idEnd            = 0x00
	idHeader         = 0x01
	idProperties     = 0x02
	idMoreStreams    = 0x03
	idStreams        = 0x04
	idFiles          = 0x05
	idPack           = 0x06
	idUnpack         = 0x07
	idSubstreams     = 0x08
	idSize           = 0x09
	idCRC            = 0x0a
	idFolder         = 0x0b
	idCodersSize     = 0x0c
	idUnpackStreams  = 0x0d
	idEmptyStream    = 0x0e
	idNames          = 0x11
	idEncodedHeader  = 0x17
	maxHeader        = 16 << 20 // bytes; 10,000 names of 500 characters fit
	maxHeaderPacking = 4        // times that a header may be packed again
)

// SevenZip reads the headers of a 7z archive, which may be packed themselves.
func SevenZip(b []byte, maxFiles int, l Limits) (*Archive, error) {
	z := &sevenZip{data: b[min(len(b), 32):], max: maxFiles, l: l}
	start := fields{b: b}
	start.bytes(12) // signature, version, checksum
	offset, size := start.u64(), start.u64()
	if start.bad {
		return nil, ErrDamaged
	}
	header := fields{b: z.data}
	if size > 0 {
		header.bytes(offset)
		header = fields{b: header.bytes(size)}
	} else if len(z.data) == 0 {
		return new(Archive), nil
	} else {
		header.b = lostHeader(z.data)
	}
	for range maxHeaderPacking {
		switch kind := header.u8(); {
		case kind == idHeader:
			a, err := z.header(&header)
			if err == nil && header.bad {
				err = ErrDamaged
			}
			return a, err
		case kind != idEncodedHeader || header.bad:
			return nil, ErrDamaged
		}
		b, err := z.unpackHeader(&header)
		if err == errOpaque {
			return &Archive{Opaque: true, Encrypted: z.encrypted}, nil
		}
		if err != nil {
			return nil, err
		}
		defer l.Give(int64(len(b)))
		header = fields{b: b}
	}
	return nil, ErrDamaged
}

// lostHeader is the header of an archive whose beginning does not say where it is: 7-Zip looks
// for it in the last 512 bytes.
func lostHeader(b []byte) []byte {
	b = b[max(0, len(b)-512):]
	return b[max(0, bytes.LastIndex(b, []byte{idEncodedHeader, idPack}), bytes.LastIndex(b, []byte{idHeader, idStreams})):]
}

type sevenZip struct {
	data      []byte // behind the start header
	max       int
	l         Limits
	encrypted bool
}

// packed is what the headers say about the streams.
type packed struct {
	streams [][]byte // packed
	folders []*folder
	pieces  []piece // in the order of the files
}

type piece struct {
	folder       int
	offset, size int64
}

// unpackHeader unpacks a header, and takes the memory for it.
func (z *sevenZip) unpackHeader(h *fields) ([]byte, error) {
	p, err := z.streams(h)
	if err != nil {
		return nil, err
	}
	if h.bad || len(p.folders) != 1 {
		return nil, ErrDamaged
	}
	a := new(Archive)
	if a.Opaque = !a.addFolder(p.folders[0], p.streams); a.Opaque {
		z.encrypted = p.folders[0].encrypted()
		return nil, errOpaque
	}
	n := a.streams[0].size
	if n > maxHeader {
		return nil, ErrTooMany
	}
	if err := z.l.Take(n); err != nil {
		return nil, err
	}
	a.Files = []File{{size: n}}
	b := make([]byte, n)
	err = a.Each(z.l, func(_ *File, r io.Reader) error {
		_, err := io.ReadFull(r, b)
		return err
	})
	if err != nil {
		z.l.Give(n)
		return nil, err
	}
	return b, nil
}

func (z *sevenZip) header(h *fields) (*Archive, error) {
	p := new(packed)
	var err error
	a := new(Archive)
	kind := h.u8()
	if kind == idProperties {
		for kind = h.u8(); kind != idEnd && !h.bad; kind = h.u8() {
			h.skip()
		}
		kind = h.u8()
	}
	if kind == idMoreStreams { // names may be there, which no program writes
		if _, err = z.streams(h); err != nil {
			return nil, err
		}
		a.Opaque = true
		kind = h.u8()
	}
	if kind == idStreams {
		if p, err = z.streams(h); err != nil {
			return nil, err
		}
		kind = h.u8()
	}
	// A folder that cannot be unpacked has no stream.
	numbers := make([]int, len(p.folders))
	for i, f := range p.folders {
		numbers[i] = -1
		if a.addFolder(f, p.streams) {
			numbers[i] = len(a.streams) - 1
		} else {
			a.Opaque = true
			a.Encrypted = a.Encrypted || f.encrypted()
		}
	}
	if kind != idFiles {
		a.Damaged = kind != idEnd || len(h.b) > 0
		return a, nil
	}
	n := h.number()
	if n > uint64(z.max) {
		return nil, ErrTooMany
	}
	a.Files = slices.Repeat([]File{{stream: -1}}, int(n))
	empty := make([]bool, n)
	for !h.bad {
		kind := h.u8()
		if kind == idEnd {
			break
		}
		property := fields{b: h.bytes(h.number())}
		switch kind {
		case idEmptyStream:
			copy(empty, property.bits(len(empty)))
		case idNames:
			if property.u8() != 0 { // elsewhere, which no program writes
				a.Opaque = true
				break
			}
			for i := range a.Files {
				a.Files[i].Names = []string{property.zeroEnded16()}
			}
			a.Damaged = a.Damaged || property.bad
		}
	}
	// What reads otherwise than by us is in another place at the end.
	a.Damaged = a.Damaged || h.u8() != idEnd || len(h.b) > 0
	for i := range a.Files {
		f := &a.Files[i]
		if empty[i] {
			continue
		}
		if len(p.pieces) == 0 {
			a.Damaged = true
			break
		}
		piece := p.pieces[0]
		p.pieces = p.pieces[1:]
		f.stream, f.offset, f.size = numbers[piece.folder], piece.offset, piece.size
	}
	return a, nil
}

// streams reads where the packed streams are, what unpacks them, and what the unpacked ones
// are cut into.
func (z *sevenZip) streams(h *fields) (*packed, error) {
	p := new(packed)
	var counts []uint64 // files of each folder
	var sizes []uint64  // of the files, without the last of each folder
	var err error
	kind := h.u8()
	if kind == idPack {
		if err = z.packInfo(h, p); err != nil {
			return nil, err
		}
		kind = h.u8()
	}
	if kind == idUnpack {
		if err = z.folders(h, p); err != nil {
			return nil, err
		}
		kind = h.u8()
	}
	counts = slices.Repeat([]uint64{1}, len(p.folders))
	if kind == idSubstreams {
		if sizes, err = z.substreams(h, p, counts); err != nil {
			return nil, err
		}
		kind = h.u8()
	}
	if kind != idEnd || h.bad {
		return nil, ErrDamaged
	}
	return p, p.cut(counts, sizes)
}

// count is a number of files, folders, or packed streams, of which a folder has up to four.
func (z *sevenZip) count(h *fields, each int) (uint64, error) {
	n := h.number()
	if n > uint64(z.max*each) {
		return 0, ErrTooMany
	}
	return n, nil
}

func (z *sevenZip) packInfo(h *fields, p *packed) error {
	at := h.number()
	n, err := z.count(h, 4)
	if err != nil {
		return err
	}
	p.streams = make([][]byte, n)
	if !h.find(idSize) {
		return ErrDamaged
	}
	for i := range p.streams {
		f := fields{b: z.data}
		f.bytes(at)
		size := h.number()
		p.streams[i] = f.bytes(min(size, uint64(len(f.b)))) // as much as is there
		at += min(size, maxStream)
	}
	for !h.bad {
		switch h.u8() {
		case idEnd:
			return nil
		case idCRC:
			h.checksums(int(n))
		default:
			h.skip()
		}
	}
	return ErrDamaged
}

func (z *sevenZip) folders(h *fields, p *packed) error {
	if !h.find(idFolder) {
		return ErrDamaged
	}
	n, err := z.count(h, 1)
	if err != nil {
		return err
	}
	if h.u8() != 0 { // elsewhere
		return ErrDamaged
	}
	next := 0
	for range n {
		f, err := h.folder()
		if err != nil {
			return err
		}
		f.first = next
		next += len(f.packed)
		p.folders = append(p.folders, f)
	}
	if !h.find(idCodersSize) {
		return ErrDamaged
	}
	for _, f := range p.folders {
		for i := range f.coders {
			f.coders[i].size = int64(min(h.number(), maxStream))
		}
	}
	for !h.bad {
		switch h.u8() {
		case idEnd:
			return nil
		case idCRC:
			for i, known := range h.checksums(len(p.folders)) {
				p.folders[i].checked = known
			}
		default:
			h.skip()
		}
	}
	return ErrDamaged
}

func (z *sevenZip) substreams(h *fields, p *packed, counts []uint64) (sizes []uint64, err error) {
	kind := h.u8()
	for ; kind != idCRC && kind != idSize && kind != idEnd && !h.bad; kind = h.u8() {
		if kind != idUnpackStreams {
			h.skip()
			continue
		}
		var sum uint64
		for i := range counts {
			if counts[i], err = z.count(h, 1); err != nil {
				return nil, err
			}
			if sum += counts[i]; sum > uint64(z.max) {
				return nil, ErrTooMany
			}
		}
	}
	if kind == idSize {
		for _, n := range counts {
			for range max(n, 1) - 1 {
				sizes = append(sizes, min(h.number(), maxStream))
			}
		}
		kind = h.u8()
	}
	for ; kind != idEnd && !h.bad; kind = h.u8() {
		if kind != idCRC {
			h.skip()
			continue
		}
		n := 0
		for i, c := range counts {
			if c != 1 || !p.folders[i].checked {
				n += int(c)
			}
		}
		h.checksums(n)
	}
	return sizes, nil
}

// cut makes the pieces of all folders.
func (p *packed) cut(counts, sizes []uint64) error {
	for i, f := range p.folders {
		whole := f.coders[f.main].size
		var at int64
		for n := range counts[i] {
			size := whole - at
			if n+1 < counts[i] {
				if len(sizes) == 0 {
					return ErrDamaged
				}
				size, sizes = int64(sizes[0]), sizes[1:]
			}
			if size < 0 || size > whole-at {
				return ErrDamaged
			}
			p.pieces = append(p.pieces, piece{folder: i, offset: at, size: size})
			at += size
		}
	}
	return nil
}

// skip passes a property that is not known: programs do, and so must we to see what they see.
func (f *fields) skip() { f.bytes(f.number()) }

// find skips all before a property, and reports whether it is there.
func (f *fields) find(id byte) bool {
	for !f.bad {
		switch f.u8() {
		case id:
			return !f.bad
		case idEnd:
			return false
		default:
			f.skip()
		}
	}
	return false
}

// number is a number of 1 to 9 bytes: as many bits as are set at the top of the first byte
// say how many bytes follow, the rest of it is the highest part.
func (f *fields) number() uint64 {
	first := f.u8()
	mask := byte(0x80)
	for n := range uint64(8) {
		if first&mask == 0 {
			return f.uint(n) | uint64(first&(mask-1))<<(8*n)
		}
		mask >>= 1
	}
	return f.u64()
}

// bits is a vector of n bits, as much of it as there is.
func (f *fields) bits(n int) []bool {
	out := make([]bool, n)
	b := f.bytes(min(uint64(n+7)/8, uint64(len(f.b))))
	for i := range min(n, 8*len(b)) {
		out[i] = b[i/8]&(0x80>>(i%8)) != 0
	}
	return out
}

// checksums skips n checksums, and says which there are.
func (f *fields) checksums(n int) []bool {
	known := make([]bool, n)
	if f.u8() != 0 {
		known = slices.Repeat([]bool{true}, n)
	} else {
		copy(known, f.bits(n))
	}
	for _, k := range known {
		if k {
			f.u32()
		}
	}
	return known
}

func (f *fields) zeroEnded16() string {
	for i := 0; i+1 < len(f.b); i += 2 {
		if f.b[i] == 0 && f.b[i+1] == 0 {
			return utf16Text(f.bytes(uint64(i) + 2)[:i], binary.LittleEndian)
		}
	}
	f.b, f.bad = nil, true
	return ""
}
