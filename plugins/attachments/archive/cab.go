package archive

import (
	"bytes"
	"compress/flate"
	"io"
	"strings"
)

// CAB reads the headers of a cabinet [MS-CAB]. Folders that are stored or packed with MSZIP
// are unpacked, those with LZX and Quantum are not.
func CAB(b []byte, maxFiles int) (*Archive, error) {
	h := fields{b: b}
	h.bytes(16) // signature, size
	first := h.u32()
	h.bytes(6)
	folders, files, flags := h.u16(), h.u16(), h.u16()
	h.bytes(4)
	var extraFolder, extraData uint64
	if flags&4 != 0 {
		n := h.u16()
		extraFolder, extraData = uint64(h.u8()), uint64(h.u8())
		h.bytes(n)
	}
	if flags&3 != 0 {
		for range 2 * (flags&1 + flags&2>>1) { // the cabinets before and behind it
			h.zeroEnded()
		}
	}
	a := &Archive{Opaque: flags&3 != 0}
	numbers := make([]int, folders)
	blocksLeft := len(b) / 8 // each has a header of its own
	for i := range numbers {
		at, blocks, method := h.u32(), h.u16(), h.u16()&15
		h.bytes(extraFolder)
		numbers[i] = -1
		if blocksLeft -= int(blocks); blocksLeft < 0 {
			return nil, ErrDamaged
		}
		if method > 1 {
			a.Opaque = true
			continue
		}
		data := fields{b: b}
		data.bytes(at)
		c := &cabinet{data: data.b, blocks: int(blocks), extra: extraData, zip: method == 1}
		s := stream{memory: 128 << 10, open: c.open}
		s.packed, s.size = c.sizes()
		a.streams = append(a.streams, s)
		numbers[i] = len(a.streams) - 1
	}
	list := fields{b: b}
	list.bytes(first)
	if h.bad || list.bad {
		return nil, ErrDamaged
	}
	for range files {
		size, offset, folder := list.u32(), list.u32(), list.u16()
		list.bytes(6)
		name := list.zeroEnded()
		if list.bad {
			a.Damaged = true
			break
		}
		if len(a.Files) >= maxFiles {
			return nil, ErrTooMany
		}
		f := File{Names: []string{strings.ToValidUTF8(name, "?")}, stream: -1, offset: int64(offset), size: int64(size)}
		if folder < uint64(len(numbers)) {
			f.stream = numbers[folder]
		} else { // it began in another cabinet, or ends in another
			a.Opaque = true
		}
		a.Files = append(a.Files, f)
	}
	return a, nil
}

// cabinet is a folder of a cabinet: blocks of at most 32 KiB.
type cabinet struct {
	data   []byte
	blocks int
	extra  uint64 // bytes of each header
	zip    bool
}

// next returns the next block.
func (c *cabinet) next(f *fields) (packed []byte, size uint64) {
	f.u32() // checksum
	n, size := f.u16(), f.u16()
	f.bytes(c.extra)
	return f.bytes(n), size
}

func (c *cabinet) sizes() (packed, unpacked int64) {
	f := fields{b: c.data}
	for range c.blocks {
		b, size := c.next(&f)
		packed += int64(len(b))
		unpacked += int64(size)
	}
	return packed, unpacked
}

func (c *cabinet) open(in func([]byte) io.Reader) (io.Reader, error) {
	return &cabReader{cabinet: *c, f: fields{b: c.data}, in: in}, nil
}

type cabReader struct {
	cabinet
	f     fields
	in    func([]byte) io.Reader
	flate io.Reader
	last  []byte // block, unpacked
	rest  []byte // of it
}

func (c *cabReader) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.blocks == 0 {
			return 0, io.EOF
		}
		c.blocks--
		b, size := c.next(&c.f)
		if c.f.bad {
			return 0, io.ErrUnexpectedEOF
		}
		r := c.in(b)
		if c.zip { // a deflate stream, which refers to the block before
			var ok bool
			if b, ok = bytes.CutPrefix(b, []byte("CK")); !ok {
				return 0, ErrDamaged
			}
			if r = c.in(b); c.flate == nil {
				c.flate = flate.NewReaderDict(r, c.last)
			} else if err := c.flate.(flate.Resetter).Reset(r, c.last); err != nil {
				return 0, err
			}
			r = c.flate
		}
		out := make([]byte, size)
		if _, err := io.ReadFull(r, out); err != nil {
			return 0, err
		}
		c.last, c.rest = out, out
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
