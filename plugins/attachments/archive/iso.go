package archive

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// sector is the unit that volume descriptors come in, in bytes.
const sector = 2048

// ISO reads the directories of an ISO 9660 image, those of Joliet, and the names of Rock
// Ridge in them. With UDF besides, other files may be seen in the image than those: it is
// Opaque then.
func ISO(b []byte, maxFiles int) (*Archive, error) {
	a := new(Archive)
	i := &iso{a: a, b: b, max: maxFiles, seen: make(map[place]bool)}
	at := 16
	for ; ; at++ { // ECMA-119 §7.1: from sector 16 on
		d := i.at(uint64(at)*sector, sector)
		if len(d) < sector || string(d[1:6]) != "CD001" {
			break
		}
		if d[0] != 1 && d[0] != 2 {
			continue
		}
		block := uint64(binary.LittleEndian.Uint16(d[128:]))
		if block != 512 && block != 1024 && block != 2048 {
			a.Damaged = true
			continue
		}
		// Joliet: UCS-2, one of three levels (§ 8.5.6 and the Joliet specification).
		i.wide = d[0] == 2 && bytes.HasPrefix(d[88:], []byte("%/")) && strings.IndexByte("@CE", d[90]) >= 0
		i.block = block
		if err := i.tree(d[156:190]); err != nil {
			return nil, err
		}
	}
	for end := at + 32; at < end; at++ { // ECMA-167 part 2: descriptors of the same form follow
		if d := i.at(uint64(at)*sector, 6); len(d) == 6 && string(d[1:4]) == "NSR" {
			a.Opaque = true
		}
	}
	return a, nil
}

type iso struct {
	a     *Archive
	b     []byte
	max   int
	block uint64 // size, in bytes
	wide  bool
	seen  map[place]bool // folders
	steps int            // records looked at
}

type place struct {
	offset, size uint64
	wide         bool
}

// at is a piece of the image, as much of it as there is.
func (i *iso) at(offset, size uint64) []byte {
	n := uint64(len(i.b))
	if offset > n {
		return nil
	}
	return i.b[offset : offset+min(size, n-offset)]
}

// tree lists the folder that a record is about, and those in it. A folder that comes again is
// not listed again: an image may have it in itself.
func (i *iso) tree(root []byte) error {
	for folders := [][]byte{root}; len(folders) > 0; folders = folders[1:] {
		for _, offset := range i.places(folders[0]) {
			p := place{offset, uint64(binary.LittleEndian.Uint32(folders[0][10:])), i.wide}
			if i.seen[p] {
				continue
			}
			i.seen[p] = true
			more, err := i.folder(p)
			if err != nil {
				return err
			}
			folders = append(folders, more...)
		}
	}
	return nil
}

// places are the offsets at which the content of a record may begin: some programs go past the
// extended attributes before it (§9.1.3), others do not look for any.
func (i *iso) places(r []byte) []uint64 {
	first := uint64(binary.LittleEndian.Uint32(r[2:]))
	if r[1] == 0 {
		return []uint64{first * i.block}
	}
	return []uint64{(first + uint64(r[1])) * i.block, first * i.block}
}

// folder lists one folder, and returns the records of those in it.
func (i *iso) folder(p place) (folders [][]byte, err error) {
	dir := i.at(p.offset, p.size)
	i.a.Damaged = i.a.Damaged || uint64(len(dir)) < p.size
	for whole := len(dir); len(dir) > 0; {
		if i.steps++; i.steps > 100*i.max {
			return nil, ErrTooMany
		}
		n := int(dir[0])
		if n == 0 { // records do not cross sectors (§6.8.1.1): the rest of this one is empty
			block := int(i.block)
			dir = dir[min(len(dir), block-(whole-len(dir))%block):]
			continue
		}
		if n < 34 || n > len(dir) || 33+int(dir[32]) > n {
			i.a.Damaged = true
			break
		}
		record := dir[:n]
		dir = dir[n:]
		if record[32] == 1 && record[33] <= 1 { // itself, and the one above
			continue
		}
		if len(i.a.Files) >= i.max {
			return nil, ErrTooMany
		}
		i.add(record)
		if record[25]&2 != 0 {
			folders = append(folders, record)
		}
	}
	return folders, nil
}

// add is about one record (§9.1).
func (i *iso) add(r []byte) {
	name, system := r[33:33+int(r[32])], r[33+int(r[32]):]
	f := File{stream: -1}
	if i.wide {
		f.Names = []string{utf16Text(name, binary.BigEndian)}
	} else {
		f.Names = []string{strings.ToValidUTF8(string(name), "?")}
	}
	f.Names[0], _, _ = strings.Cut(f.Names[0], ";") // its version
	// Where these fields begin is said elsewhere, not always in the same way.
	for at := range system {
		if n := rockRidge(system[at:]); n != "" && !slices.Contains(f.Names, n) {
			f.Names = append(f.Names, n)
		}
	}
	if r[25]&2 != 0 {
		i.a.Files = append(i.a.Files, f)
		return
	}
	i.a.Opaque = i.a.Opaque || r[26] != 0 // interleaved with others, which no system writes
	size := uint64(binary.LittleEndian.Uint32(r[10:]))
	for _, offset := range i.places(r) {
		content := i.at(offset, size)
		i.a.Damaged = i.a.Damaged || uint64(len(content)) < size
		f.stream, f.size = i.a.stored(content), int64(len(content))
		i.a.Files = append(i.a.Files, f)
	}
}

// rockRidge is the name at the beginning of a system use field (IEEE P1282 §4.1.4), in one piece
// or several; "" if there is none.
func rockRidge(system []byte) string {
	if !bytes.HasPrefix(system, []byte("NM")) {
		return ""
	}
	var name []byte
	for len(system) >= 5 {
		n := int(system[2])
		if n < 4 || n > len(system) {
			break
		}
		if string(system[:2]) == "NM" && n > 5 {
			name = append(name, system[5:n]...)
		}
		system = system[n:]
	}
	return strings.ToValidUTF8(string(name), "?")
}
