package archive

import (
	"io"
)

const xzMark = "\xfd7zXZ\x00"

// XZ reads the headers of an xz file: one file without a name. Dictionaries are no larger
// than what the chunks of the compressed data say that comes out.
func XZ(b []byte, maxBlocks int) (*Archive, error) {
	x := &xz{}
	a := &Archive{}
	if err := x.walk(b, maxBlocks); err == ErrTooMany {
		return nil, err
	} else if err == errOpaque {
		a.Opaque = true
	} else if err != nil {
		a.Damaged = true
	}
	if len(x.blocks) == 0 {
		return a, nil
	}
	s := stream{packed: int64(len(b)), open: x.open}
	for _, f := range x.blocks {
		memory, _ := f.coders[0].memory()
		s.memory = max(s.memory, memory+64<<10)
		s.size = min(s.size+f.coders[0].size, maxStream)
	}
	a.streams = []stream{s}
	a.Files = []File{{size: s.size}}
	return a, nil
}

// xz is a list of blocks, each with LZMA2 and perhaps BCJ around it.
type xz struct {
	blocks []*folder
	data   [][]byte
}

func (x *xz) walk(b []byte, maxBlocks int) error {
	for f := (fields{b: b}); len(f.b) > 0; {
		if f.b[0] == 0 && f.u32() == 0 && !f.bad { // padding between streams
			continue
		}
		if string(f.bytes(uint64(len(xzMark)))) != xzMark {
			return ErrDamaged
		}
		check := f.u16() >> 8 & 15
		f.u32()
		for !f.bad && len(f.b) > 0 && f.b[0] != 0 {
			if len(x.blocks) >= maxBlocks {
				return ErrTooMany
			}
			if err := x.block(&f, check); err != nil {
				return err
			}
		}
		f.u8() // the index: pairs of sizes of the blocks
		begin := len(f.b) + 1
		for n := f.leb(); n > 0 && !f.bad; n-- {
			f.leb()
			f.leb()
		}
		f.bytes(uint64(-(begin - len(f.b)) & 3))
		f.u32()
		f.bytes(12) // footer
		if f.bad {
			return ErrDamaged
		}
	}
	return nil
}

// block is one block: its header, its chunks, padding and a checksum.
func (x *xz) block(f *fields, check uint64) error {
	h := fields{b: f.bytes(4 * (uint64(f.b[0]) + 1))}
	h.u8()
	flags := h.u8()
	if flags&0x40 != 0 {
		h.leb()
	}
	if flags&0x80 != 0 {
		h.leb()
	}
	block := &folder{bound: make(map[int]int)}
	opaque := false
	for range flags&3 + 1 { // the last is LZMA2; the data comes out of the first
		id, props := h.leb(), h.bytes(h.leb())
		c := coder{method: id, props: props, inputs: 1}
		if id == 4 {
			c.method = methodBCJ
			opaque = opaque || len(props) > 0 && string(props) != "\x00\x00\x00\x00"
		}
		block.coders = append([]coder{c}, block.coders...)
	}
	if h.bad || f.bad || block.coders[0].method != methodLZMA2 || len(block.coders[0].props) != 1 {
		return ErrDamaged
	}
	for i, c := range block.coders {
		opaque = opaque || i > 0 && c.method != methodBCJ
	}
	if opaque || block.coders[0].props[0] > 40 {
		return errOpaque
	}
	data := f.b
	size, whole := lzma2Size(f)
	for i := range block.coders {
		block.coders[i].size = size
	}
	used := len(data) - len(f.b)
	x.blocks, x.data = append(x.blocks, block), append(x.data, data[:used])
	if !whole {
		return ErrDamaged
	}
	f.bytes(uint64(-used & 3))
	f.bytes([16]uint64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[check])
	return nil
}

// lzma2Size walks over the chunks of LZMA2 and adds up what they say that comes out.
func lzma2Size(f *fields) (size int64, whole bool) {
	for !f.bad {
		switch control := f.u8(); {
		case f.bad:
		case control == 0:
			return size, true
		case control < 0x80:
			n := f.big16() + 1
			size += int64(n)
			f.bytes(min(n, uint64(len(f.b))))
		default:
			size += int64(uint64(control&0x1f)<<16|f.big16()) + 1
			n := f.big16() + 1
			if control >= 0xc0 {
				f.u8()
			}
			f.bytes(min(n, uint64(len(f.b))))
		}
	}
	return size, false
}

func (f *fields) big16() uint64 { return uint64(f.u8())<<8 | uint64(f.u8()) }

// open returns a reader of all blocks, one after the other.
func (x *xz) open(in func([]byte) io.Reader) (io.Reader, error) {
	return &blocks{x: x, in: in}, nil
}

type blocks struct {
	x   *xz
	in  func([]byte) io.Reader
	now io.Reader
	n   int
}

func (b *blocks) Read(p []byte) (int, error) {
	for {
		if b.now == nil {
			if b.n == len(b.x.blocks) {
				return 0, io.EOF
			}
			r := b.in(b.x.data[b.n])
			for _, c := range b.x.blocks[b.n].coders {
				d, err := c.decoder([]io.Reader{r})
				if err != nil {
					return 0, err
				}
				r = d
			}
			b.now = r
			b.n++
		}
		n, err := b.now.Read(p)
		if err == io.EOF {
			b.now, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}
