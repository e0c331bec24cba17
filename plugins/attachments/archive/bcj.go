package archive

import (
	"bufio"
	"encoding/binary"
	"io"
)

// bcj turns the absolute addresses of calls and jumps of x86 programs back into relative
// ones, as the encoder found them: it takes what follows 0xE8 and 0xE9 for an address if its
// highest byte is 0 or 0xFF, and if no other such byte just before makes that unlikely.
type bcj struct {
	r    io.Reader
	buf  []byte
	done int    // bytes of buf that are converted
	end  int    // bytes in buf
	at   uint32 // of buf in the stream
	mask uint32 // which of the three bytes before were 0xE8 or 0xE9 that stand for no address
	err  error
}

func newBCJ(r io.Reader) io.Reader { return &bcj{r: r, buf: make([]byte, 32<<10)} }

func (f *bcj) Read(p []byte) (int, error) {
	for f.done == 0 {
		if f.err != nil && f.end == 0 {
			return 0, f.err
		}
		if f.err == nil {
			var n int
			n, f.err = f.r.Read(f.buf[f.end:])
			f.end += n
		}
		f.done = f.convert(f.buf[:f.end])
		if f.err != nil {
			f.done = f.end // fewer than five bytes are no address
		}
	}
	n := copy(p, f.buf[:f.done])
	f.at += uint32(n)
	f.end = copy(f.buf, f.buf[n:f.end])
	f.done -= n
	return n, nil
}

func extreme(b byte) bool { return b == 0 || b == 0xff }

// convert converts b in place, and returns how much of it is done.
func (f *bcj) convert(b []byte) int {
	// By the mask: whether an address may follow, and which byte has to be looked at.
	allowed := [8]bool{true, true, true, false, true, false, false, false}
	number := [8]int{0, 1, 2, 2, 3, 3, 3, 3}
	last, i := -1, 0
	for ; i+4 < len(b); i++ {
		if b[i]&0xfe != 0xe8 {
			continue
		}
		if gap := i - last; gap > 3 {
			f.mask = 0
		} else if f.mask = f.mask << (gap - 1) & 7; f.mask != 0 {
			if !allowed[f.mask] || extreme(b[i+4-number[f.mask]]) {
				last, f.mask = i, f.mask<<1&7|1
				continue
			}
		}
		last = i
		if !extreme(b[i+4]) {
			f.mask = f.mask<<1&7 | 1
			continue
		}
		address := binary.LittleEndian.Uint32(b[i+1:])
		for {
			address -= f.at + uint32(i) + 5
			if f.mask == 0 {
				break
			}
			shift := number[f.mask] * 8
			if !extreme(byte(address >> (24 - shift))) {
				break
			}
			address ^= 1<<(32-shift) - 1
		}
		// 25 bits count, the highest of them is the sign.
		binary.LittleEndian.PutUint32(b[i+1:], uint32(int32(address<<7)>>7))
		i += 4
		f.mask = 0
		last = i
	}
	if gap := i - last; gap > 3 {
		f.mask = 0
	} else {
		f.mask = f.mask << (gap - 1) & 7
	}
	return min(i, len(b))
}

// bcj2 puts x86 programs together from four streams: the program without addresses, those of
// calls, those of jumps, and a range-coded one that says where they belong.
type bcj2 struct {
	main        io.ByteReader
	call, jump  io.Reader
	coded       io.ByteReader
	width, code uint32
	odds        [258]uint16
	begun       bool
	last        byte
	at          uint32
	rest        []byte // of an address
}

func newBCJ2(in []io.Reader) io.Reader {
	f := &bcj2{main: bufio.NewReader(in[0]), call: in[1], jump: in[2], coded: bufio.NewReader(in[3]), width: 1<<32 - 1}
	for i := range f.odds {
		f.odds[i] = 1 << 10
	}
	return f
}

func (f *bcj2) Read(p []byte) (n int, err error) {
	for ; !f.begun; f.begun = true {
		for range 5 {
			if err := f.shift(); err != nil {
				return 0, err
			}
		}
	}
	for n < len(p) {
		if len(f.rest) > 0 {
			c := copy(p[n:], f.rest)
			f.rest = f.rest[c:]
			n += c
			continue
		}
		b, err := f.main.ReadByte()
		if err != nil {
			return n, err
		}
		p[n] = b
		n++
		f.at++
		before := f.last
		f.last = b
		if b&0xfe != 0xe8 && (before != 0x0f || b&0xf0 != 0x80) {
			continue
		}
		if err := f.address(b, before); err != nil {
			return n, err
		}
	}
	return n, nil
}

// address takes an address for the opcode b, if there is one.
func (f *bcj2) address(b, before byte) error {
	odds, from := &f.odds[257], f.jump
	switch b {
	case 0xe8:
		odds, from = &f.odds[before], f.call
	case 0xe9:
		odds = &f.odds[256]
	}
	moved, err := f.bit(odds)
	if err != nil || !moved {
		return err
	}
	var a [4]byte
	if _, err := io.ReadFull(from, a[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	f.at += 4
	f.rest = binary.LittleEndian.AppendUint32(nil, binary.BigEndian.Uint32(a[:])-f.at)
	f.last = f.rest[3]
	return nil
}

func (f *bcj2) shift() error {
	b, err := f.coded.ReadByte()
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	f.code = f.code<<8 | uint32(b)
	return nil
}

// bit decodes one bit, of which odds of 2048 say how likely it is 0.
func (f *bcj2) bit(odds *uint16) (bool, error) {
	bound := f.width >> 11 * uint32(*odds)
	one := f.code >= bound
	if one {
		f.code -= bound
		f.width -= bound
		*odds -= *odds >> 5
	} else {
		f.width = bound
		*odds += (1<<11 - *odds) >> 5
	}
	if f.width < 1<<24 {
		f.width <<= 8
		return one, f.shift()
	}
	return one, nil
}
