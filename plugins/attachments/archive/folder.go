package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/ulikunitz/xz/lzma"
)

// folder is what 7z calls the coders that together unpack one stream.
type folder struct {
	coders  []coder
	bound   map[int]int // inputs of coders to the coders whose output they take
	packed  []int       // the inputs that take packed streams, in their order
	main    int         // the coder whose output is the unpacked stream
	first   int         // packed stream
	checked bool
}

type coder struct {
	method uint64
	props  []byte
	inputs int
	input  int   // the first, in the numbering of the folder
	size   int64 // of what comes out
}

const (
	methodCopy    = 0
	methodLZMA2   = 0x21
	methodLZMA    = 0x030101
	methodBCJ     = 0x03030103
	methodBCJ2    = 0x0303011b
	methodDeflate = 0x040108
	methodBzip2   = 0x040202
	methodAES     = 0x06f10701

	maxCoders = 8 // of one folder; 7-Zip writes up to 5
)

// errOpaque is the error of something that there is no decoder for.
var errOpaque = errors.New("no decoder")

func (f *fields) folder() (*folder, error) {
	n := f.number()
	if n == 0 || n > maxCoders {
		return nil, ErrDamaged
	}
	out := &folder{bound: make(map[int]int)}
	inputs := 0
	for range n {
		flags := f.u8()
		c := coder{inputs: 1, input: inputs}
		for _, b := range f.bytes(uint64(flags & 15)) {
			c.method = c.method<<8 | uint64(b)
		}
		if flags&0x10 != 0 {
			in, outputs := f.number(), f.number()
			if in == 0 || in > maxCoders || outputs != 1 {
				return nil, ErrDamaged
			}
			c.inputs = int(in)
		}
		if flags&0x20 != 0 {
			c.props = f.bytes(f.number())
		}
		if f.bad || flags&0x80 != 0 {
			return nil, ErrDamaged
		}
		inputs += c.inputs
		out.coders = append(out.coders, c)
	}
	taken := make([]bool, len(out.coders)) // outputs
	for range n - 1 {
		in, from := f.number(), f.number()
		if in >= uint64(inputs) || from >= n || taken[from] {
			return nil, ErrDamaged
		}
		taken[from] = true
		out.bound[int(in)] = int(from)
	}
	if len(out.bound) != int(n)-1 {
		return nil, ErrDamaged
	}
	out.main = slices.Index(taken, false)
	switch rest := inputs - len(out.bound); rest {
	case 1:
		for i := range inputs {
			if _, ok := out.bound[i]; !ok {
				out.packed = []int{i}
			}
		}
	default:
		for range rest {
			out.packed = append(out.packed, int(min(f.number(), maxStream)))
		}
	}
	return out, nil
}

func (f *folder) encrypted() bool {
	return slices.ContainsFunc(f.coders, func(c coder) bool { return c.method == methodAES })
}

// addFolder adds the stream of a folder, if it can be unpacked.
func (a *Archive) addFolder(f *folder, streams [][]byte) bool {
	s := stream{size: f.coders[f.main].size}
	for _, c := range f.coders {
		memory, ok := c.memory()
		if !ok {
			return false
		}
		s.memory += memory
	}
	for i := range f.packed {
		if n := f.first + i; n < len(streams) {
			s.packed += int64(len(streams[n]))
		}
	}
	s.open = func(in func([]byte) io.Reader) (io.Reader, error) {
		u := &unfolding{folder: f, streams: streams, in: in, used: make([]bool, len(f.coders))}
		return u.output(f.main)
	}
	a.streams = append(a.streams, s)
	return true
}

// unfolding puts the decoders of a folder together.
type unfolding struct {
	*folder
	streams [][]byte
	in      func([]byte) io.Reader
	used    []bool // coders, each of which is used once: there are no circles
}

func (u *unfolding) output(coder int) (io.Reader, error) {
	if u.used[coder] {
		return nil, ErrDamaged
	}
	u.used[coder] = true
	c := &u.coders[coder]
	var in []io.Reader
	for i := range c.inputs {
		r, err := u.input(c.input + i)
		if err != nil {
			return nil, err
		}
		in = append(in, r)
	}
	r, err := c.decoder(in)
	if err != nil {
		return nil, err
	}
	return io.LimitReader(r, c.size), nil
}

func (u *unfolding) input(i int) (io.Reader, error) {
	if from, ok := u.bound[i]; ok {
		return u.output(from)
	}
	n := u.first + slices.Index(u.packed, i)
	if n < u.first || n >= len(u.streams) {
		return nil, ErrDamaged
	}
	return u.in(u.streams[n]), nil
}

// memory is how much a decoder takes, in bytes; not ok if there is none.
func (c *coder) memory() (n int64, ok bool) {
	const more = 64 << 10 // tables and buffers
	switch c.method {
	case methodCopy, methodDeflate, methodBCJ:
		return more, c.inputs == 1
	case methodBzip2:
		return 4 << 20, c.inputs == 1
	case methodLZMA:
		if len(c.props) != 5 {
			return 0, false
		}
		// lc + lp of the first byte decide about the tables.
		lc, lp := c.props[0]%9, c.props[0]/9%5
		return more + 0x600<<(lc+lp) + c.dictionary(), c.inputs == 1
	case methodLZMA2:
		return more + c.dictionary(), c.inputs == 1 && len(c.props) == 1 && c.props[0] <= 40
	case methodBCJ2:
		return more, c.inputs == 4
	}
	return 0, false
}

// dictionary is how much of the dictionary that the header claims is ever used, in bytes: no
// more than comes out.
func (c *coder) dictionary() int64 {
	claimed := int64(1<<32 - 1)
	if c.method == methodLZMA {
		claimed = int64(binary.LittleEndian.Uint32(c.props[1:]))
	} else if len(c.props) == 1 && c.props[0] < 40 {
		claimed = int64(2|c.props[0]&1) << (c.props[0]/2 + 11)
	}
	return max(min(claimed, c.size), lzma.MinDictCap)
}

func (c *coder) decoder(in []io.Reader) (io.Reader, error) {
	switch c.method {
	case methodCopy:
		return in[0], nil
	case methodDeflate:
		return flate.NewReader(in[0]), nil
	case methodBzip2:
		return bzip2.NewReader(in[0]), nil
	case methodBCJ:
		return newBCJ(in[0]), nil
	case methodBCJ2:
		return newBCJ2(in), nil
	case methodLZMA2:
		return lzma.Reader2Config{DictCap: int(c.dictionary())}.NewReader2(bufio.NewReader(in[0]))
	case methodLZMA: // the header of an .lzma file: properties, dictionary, size
		h := binary.LittleEndian.AppendUint32([]byte{c.props[0]}, uint32(c.dictionary()))
		h = binary.LittleEndian.AppendUint64(h, uint64(c.size))
		return lzma.ReaderConfig{DictCap: int(c.dictionary())}.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(h), in[0])))
	}
	return nil, errOpaque
}
