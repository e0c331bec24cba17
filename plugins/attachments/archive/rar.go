package archive

import (
	"bytes"
	"encoding/binary"
	"strings"
)

const (
	// RARMark is how archives of all versions begin.
	RARMark  = "Rar!\x1a\x07"
	rar4Mark = RARMark + "\x00"
	rar5Mark = RARMark + "\x01\x00"
)

// RAR reads the headers of a RAR archive of version 4 or 5. What is compressed is not
// unpacked: in the one Go decoder, github.com/nwaples/rardecode, an archive may let thousands
// of filters work on the whole window within one Read, and take 340 MiB for PPMd, whatever
// limits are set. An archive may begin behind something else, a program that unpacks it, say.
func RAR(b []byte, maxFiles int) (*Archive, error) {
	if at := bytes.Index(b, []byte(RARMark)); at >= 0 {
		b = b[at:]
	}
	if v5, ok := bytes.CutPrefix(b, []byte(rar5Mark)); ok {
		return rar5(v5, maxFiles)
	}
	if v4, ok := bytes.CutPrefix(b, []byte(rar4Mark)); ok {
		return rar4(v4, maxFiles)
	}
	return nil, ErrDamaged
}

// rarFile is what both versions say of a file.
type rarFile struct {
	names                            []string
	folder, encrypted, split, stored bool
	data                             []byte // packed, as much of it as is there
}

func (a *Archive) addRAR(f rarFile) {
	file := File{Names: f.names, stream: -1}
	a.Encrypted = a.Encrypted || f.encrypted
	switch {
	case f.folder:
	case f.stored && !f.encrypted && !f.split:
		file.stream, file.size = a.stored(f.data), int64(len(f.data))
	default:
		a.Opaque = true
	}
	a.Files = append(a.Files, file)
}

// rar4 walks the blocks of RAR 1.5 to 4.
func rar4(b []byte, maxFiles int) (*Archive, error) {
	const (
		main, file, end = 0x73, 0x74, 0x7b
		comment, old    = 0x75, 0x79 // blocks of before RAR 3
		service         = 0x77       // of them, with data whatever the flag says
		protect         = 0x78       // the same
		long            = 0x8000     // the block has data behind it
	)
	a := new(Archive)
	for len(b) > 0 {
		h := fields{b: b}
		h.u16() // checksum
		kind, flags, size := h.u8(), h.u16(), h.u16()
		if h.bad || size < 7 || size > uint64(len(b)) {
			a.Damaged = true
			return a, nil
		}
		h.b = b[7:size]
		b = b[size:]
		switch {
		case kind == end:
			return a, nil
		case kind == main && flags&0x80 != 0:
			a.Encrypted, a.Opaque = true, true
			return a, nil
		case kind == main:
			a.Opaque = a.Opaque || flags&1 != 0 // one of several volumes
		case kind == file:
			f, packed := rar4File(&h, flags)
			if h.bad {
				a.Damaged = true
				return a, nil
			}
			f.data = b[:min(packed, uint64(len(b)))]
			a.Damaged = a.Damaged || packed > uint64(len(b)) && !f.split
			if len(a.Files) >= maxFiles {
				return nil, ErrTooMany
			}
			a.addRAR(f)
			b = b[len(f.data):]
		case kind >= comment && kind <= old:
			a.Damaged = true // programs do not agree about where their data ends
			if kind == service || kind == protect {
				b = b[min(h.u32(), uint64(len(b))):]
			}
		case flags&long != 0:
			b = b[min(h.u32(), uint64(len(b))):]
		}
	}
	return a, nil
}

func rar4File(h *fields, flags uint64) (f rarFile, packed uint64) {
	packed = h.u32()
	h.bytes(4 + 1 + 4 + 4 + 1) // unpacked size, system, checksum, time, version
	method, n := h.u8(), h.u16()
	h.bytes(4) // attributes
	if flags&0x100 != 0 {
		packed |= h.u32() << 32
		h.bytes(4)
	}
	name := h.bytes(n)
	f = rarFile{split: flags&3 != 0, encrypted: flags&4 != 0, folder: flags&0xe0 == 0xe0, stored: method == 0x30}
	short, wide, two := bytes.Cut(name, []byte{0})
	f.names = []string{strings.ToValidUTF8(string(short), "?")}
	if two && flags&0x200 != 0 {
		f.names = append(f.names, rar4Name(short, fields{b: wide}))
	}
	return f, packed
}

// rar4Name decodes the second name of a file: UTF-16, of which the first name and one common
// high byte give a part.
func rar4Name(short []byte, w fields) string {
	high := uint16(w.u8()) << 8
	var out []uint16
	var flags byte
	for left := 0; len(w.b) > 0 && len(out) <= len(short)+len(w.b)+1024; left-- {
		if left == 0 {
			flags, left = w.u8(), 4
		}
		switch flags >> 6 {
		case 0:
			out = append(out, uint16(w.u8()))
		case 1:
			out = append(out, uint16(w.u8())|high)
		case 2:
			out = append(out, uint16(w.u16()))
		case 3: // as in the first name, perhaps shifted
			n := w.u8()
			var add byte
			var top uint16
			if n&0x80 != 0 {
				add, top = w.u8(), high
			}
			for n := int(n&0x7f) + 2; n > 0 && len(out) < len(short); n-- {
				out = append(out, uint16(short[len(out)]+add)|top)
			}
		}
		flags <<= 2
	}
	b := make([]byte, 0, 2*len(out))
	for _, u := range out {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return utf16Text(b, binary.LittleEndian)
}

// rar5 walks the blocks of RAR 5 and later.
func rar5(b []byte, maxFiles int) (*Archive, error) {
	const main, file, encryption, end = 1, 2, 4, 5
	a := new(Archive)
	for r := (fields{b: b}); len(r.b) > 0; {
		r.u32() // checksum
		h := fields{b: r.bytes(r.leb())}
		kind, flags := h.leb(), h.leb()
		var extra, packed uint64
		if flags&1 != 0 {
			extra = h.leb()
		}
		if flags&2 != 0 {
			packed = h.leb()
		}
		data := r.bytes(min(packed, uint64(len(r.b))))
		switch {
		case h.bad || r.bad:
			a.Damaged = true
			return a, nil
		case kind == end:
			return a, nil
		case kind == encryption:
			a.Encrypted, a.Opaque = true, true
			return a, nil
		case kind == main:
			a.Opaque = a.Opaque || h.leb()&1 != 0 // one of several volumes
		case kind == file:
			f := rar5File(&h, extra)
			if h.bad {
				a.Damaged = true
				return a, nil
			}
			f.split, f.data = flags&0x18 != 0, data
			a.Damaged = a.Damaged || packed > uint64(len(data)) && !f.split
			if len(a.Files) >= maxFiles {
				return nil, ErrTooMany
			}
			a.addRAR(f)
		}
	}
	return a, nil
}

func rar5File(h *fields, extra uint64) (f rarFile) {
	flags := h.leb()
	h.leb() // unpacked size
	h.leb() // attributes
	if flags&2 != 0 {
		h.u32() // time
	}
	if flags&4 != 0 {
		h.u32() // checksum
	}
	f.folder, f.stored = flags&1 != 0, h.leb()>>7&7 == 0
	h.leb() // system
	f.names = []string{strings.ToValidUTF8(string(h.bytes(h.leb())), "?")}
	if extra > uint64(len(h.b)) {
		h.bad = true
		return f
	}
	for x := (fields{b: h.b[uint64(len(h.b))-extra:]}); len(x.b) > 0; {
		record := fields{b: x.bytes(x.leb())}
		f.encrypted = f.encrypted || record.leb() == 1
	}
	return f
}
