package archive

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"strings"
	"testing"
)

// rarEntry is a file of an archive that a test makes by the format's description.
type rarEntry struct {
	name, wide string
	content    string
	method     byte
	flags      uint16 // of the file in RAR 4, of the block in RAR 5
	encrypted  bool
}

func rar4Archive(entries ...rarEntry) []byte {
	block := func(kind byte, flags uint16, rest []byte) []byte {
		b := binary.LittleEndian.AppendUint16([]byte{kind}, flags)
		b = binary.LittleEndian.AppendUint16(b, uint16(7+len(rest)))
		b = append(b, rest...)
		return append(binary.LittleEndian.AppendUint16(nil, uint16(crc32.ChecksumIEEE(b))), b...)
	}
	b := append([]byte(rar4Mark), block(0x73, 0, make([]byte, 6))...)
	for _, e := range entries {
		name := e.name
		if e.wide != "" {
			name += "\x00" + e.wide
			e.flags |= 0x200
		}
		if e.encrypted {
			e.flags |= 4
		}
		h := binary.LittleEndian.AppendUint32(nil, uint32(len(e.content)))
		h = binary.LittleEndian.AppendUint32(h, uint32(len(e.content)))
		h = append(h, 2)
		h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE([]byte(e.content)))
		h = append(h, 0, 0, 0x21, 0x58, 29, e.method)
		h = binary.LittleEndian.AppendUint16(h, uint16(len(name)))
		h = append(append(h, 0x20, 0, 0, 0), name...)
		b = append(append(b, block(0x74, e.flags|0x8000, h)...), e.content...)
	}
	return append(b, block(0x7b, 0, nil)...)
}

func rar5Archive(entries ...rarEntry) []byte {
	block := func(h []byte) []byte {
		b := append(binary.AppendUvarint(nil, uint64(len(h))), h...)
		return append(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)), b...)
	}
	b := append([]byte(rar5Mark), block([]byte{1, 0, 0})...)
	for _, e := range entries {
		var extra []byte
		if e.encrypted {
			extra = append([]byte{36, 1, 0, 0, 15}, make([]byte, 32)...)
		}
		h := []byte{2, byte(e.flags) | 2}
		if extra != nil {
			h[1] |= 1
			h = append(h, byte(len(extra)))
		}
		h = binary.AppendUvarint(h, uint64(len(e.content)))
		h = append(h, 4)
		h = binary.AppendUvarint(h, uint64(len(e.content)))
		h = append(h, 0x20)
		h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE([]byte(e.content)))
		h = binary.AppendUvarint(h, uint64(e.method)<<7)
		h = append(append(h, 0, byte(len(e.name))), e.name...)
		b = append(append(b, block(append(h, extra...))...), e.content...)
	}
	return append(b, block([]byte{5, 0, 0})...)
}

func TestRAR(t *testing.T) {
	const stored4, packed4 = 0x30, 0x33
	for name, tt := range map[string]struct {
		b     []byte
		want  map[string]string
		types string
	}{
		"4":             {rar4Archive(rarEntry{name: "a.txt", content: "x", method: stored4}, rarEntry{name: "b", method: stored4}), map[string]string{"a.txt": "x", "b": ""}, ""},
		"4, packed":     {rar4Archive(rarEntry{name: "a.txt", content: "x", method: packed4}), map[string]string{"a.txt": ""}, "opaque"},
		"4, encrypted":  {rar4Archive(rarEntry{name: "a.txt", content: "x", method: stored4, encrypted: true}), map[string]string{"a.txt": ""}, "encrypted opaque"},
		"4, folder":     {rar4Archive(rarEntry{name: "a", method: stored4, flags: 0xe0}), map[string]string{"a": ""}, ""},
		"4, split":      {rar4Archive(rarEntry{name: "a", method: stored4, content: "x", flags: 2}), map[string]string{"a": ""}, "opaque"},
		"4, two names":  {rar4Archive(rarEntry{name: "?bc.exe", wide: "\x04\x70\x31\x04", method: stored4}), map[string]string{"?bc.exe": "", "бbc.exe": ""}, ""},
		"4, high byte":  {rar4Archive(rarEntry{name: "???.exe", wide: "\x04\x57\x31\x32\x33\x02", method: stored4}), map[string]string{"???.exe": "", "бвг.exe": ""}, ""},
		"5":             {rar5Archive(rarEntry{name: "ä.txt", content: "x"}), map[string]string{"ä.txt": "x"}, ""},
		"5, packed":     {rar5Archive(rarEntry{name: "a.txt", content: "x", method: 3}), map[string]string{"a.txt": ""}, "opaque"},
		"5, encrypted":  {rar5Archive(rarEntry{name: "a.txt", content: "x", encrypted: true}), map[string]string{"a.txt": ""}, "encrypted opaque"},
		"5, split":      {rar5Archive(rarEntry{name: "a.txt", content: "x", flags: 0x10}), map[string]string{"a.txt": ""}, "opaque"},
		"5, truncated":  {rar5Archive(rarEntry{name: "a.txt", content: strings.Repeat("x", 100)})[:80], map[string]string{"a.txt": strings.Repeat("x", 41)}, "damaged "},
		"headers of 4":  {[]byte(rar4Mark + "\x00\x00\x73\x80\x00\x0d\x00\x00\x00\x00\x00\x00\x00encrypted"), map[string]string{}, "encrypted opaque"},
		"headers of 5":  {[]byte(rar5Mark + "\x00\x00\x00\x00\x21\x04\x00" + strings.Repeat("x", 40)), map[string]string{}, "encrypted opaque"},
		"5, a volume":   {[]byte(rar5Mark + "\x00\x00\x00\x00\x03\x01\x00\x01"), map[string]string{}, "opaque"},
		"4, no end":     {[]byte(rar4Mark + "\x00\x00\x73"), map[string]string{}, "damaged "},
		"5, empty head": {[]byte(rar5Mark + "\x00\x00\x00\x00\x00"), map[string]string{}, "damaged "},
	} {
		got, a := contents(t, tt.b)
		if !maps.Equal(got, tt.want) || types(a) != tt.types {
			t.Errorf("%s: %q %s, want %q %s", name, got, types(a), tt.want, tt.types)
		}
	}
}
