package archive

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// wide is a property with the name of a file, as 7z writes it.
func wide(name string) []byte {
	var u []byte
	for _, c := range name + "\x00" {
		u = append(u, byte(c), 0)
	}
	return append([]byte{idNames, byte(len(u) + 1), 0}, u...)
}

// stored7z is what follows the size of the packed stream in the header of a 7z of one stored file.
func stored7z(size byte, name string) []byte {
	h := []byte{idEnd, idUnpack, idFolder, 1, 0, 1, 1, 0, idCodersSize, size, idEnd, idEnd, idFiles, 1}
	return append(append(h, wide(name)...), idEnd, idEnd)
}

// What 7-Zip 26.02 lists as x.js is that here.
func TestReadings7z(t *testing.T) {
	const text = "x = 1"
	begin := []byte{idHeader, idStreams, idPack, 0, 1, idSize, byte(len(text))}
	plain := append(slices.Clone(begin), stored7z(byte(len(text)), "x.js")...)
	lost := frame7z([]byte(text), plain)
	clear(lost[8:32])
	properties := append([]byte{idHeader, idProperties, 0x19, 1, 0, idEnd}, plain[1:]...)
	// Where the sizes come twice, the second ones are skipped as a property that is not known.
	other := stored7z(3, "x.txt")
	twice := append(append(append(slices.Clone(begin), idSize, byte(len(other))), other...), plain[len(begin):]...)
	for name, b := range map[string][]byte{
		"plain": frame7z([]byte(text), plain), "beginning lost": lost, "properties of the archive": frame7z([]byte(text), properties),
		"sizes twice": frame7z([]byte(text), twice),
	} {
		got, a := contents(t, b)
		if len(got) != 1 || got["x.js"] != text || a.Damaged {
			t.Errorf("%s: %q %+v", name, got, a)
		}
	}
	if _, a := contents(t, frame7z([]byte(text), append(slices.Clone(plain), "more"...))); !a.Damaged {
		t.Error("more behind the end of the header")
	}
}

func TestReadingsRAR(t *testing.T) {
	long := rar5Archive(rarEntry{name: "x.js", content: "x = 1"})
	i := bytes.Index(long, []byte("\x05\x20")) // the size, in ten bytes
	size := append([]byte{0x85}, bytes.Repeat([]byte{0x80}, 8)...)
	long = slices.Replace(long, i, i+1, append(size, 0)...)
	long[bytes.Index(long, []byte("\x02\x02\x05"))-1] += 9
	// A recovery record of RAR 2: its data ends the archive for those who do not skip it.
	end := []byte{0, 0, 0x7b, 0, 0, 7, 0}
	protect := append([]byte{0, 0, 0x78, 0, 0, 11, 0, byte(len(end)), 0, 0, 0}, end...)
	v4 := rar4Archive(rarEntry{name: "x.js", content: "x = 1", method: 0x30})
	v4 = slices.Insert(v4, len(rar4Mark)+13, protect...)
	for name, b := range map[string][]byte{"number of ten bytes": long, "recovery record": v4,
		"behind a program": append([]byte("MZ..."), rar5Archive(rarEntry{name: "x.js", content: "x = 1"})...)} {
		a, err := RAR(b, 10)
		if err != nil || len(a.Files) != 1 || a.Files[0].Names[0] != "x.js" {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
}

func TestReadingsISO(t *testing.T) {
	// Extended attributes, which Windows goes past and 7-Zip does not.
	b := fixture(t, "plain.iso.gz")
	file, sub := b[bytes.Index(b, []byte("\x0dINVOICE.EXE"))-32:], b[bytes.Index(b, []byte("\x03SUB"))-32:]
	file[1], sub[1] = 1, 1
	before, _ := contents(t, fixture(t, "plain.iso.gz"))
	binary.LittleEndian.PutUint32(sub[2:], binary.LittleEndian.Uint32(sub[2:])-1)
	got, _ := contents(t, b)
	for name, want := range before {
		if text, ok := got[name]; !ok || text != want && name == "INVOICE.EXE" {
			t.Errorf("%s: %q", name, text)
		}
	}
	// The fields of Rock Ridge begin behind something else.
	b = fixture(t, "joliet.iso.gz")
	b[17*sector] = 3 // no Joliet
	if i := bytes.Index(b, []byte("RR\x05\x01")); i < 0 {
		t.Fatal("no Rock Ridge")
	}
	b = bytes.ReplaceAll(b, []byte("RR\x05\x01"), []byte("RR\x00\x01"))
	if got, _ := contents(t, b); got["invoice.exe"] == "" {
		t.Errorf("Rock Ridge: %d names", len(got))
	}
	// As many descriptors before the one that counts as there is room for.
	b = append(fixture(t, "plain.iso.gz")[:17*sector], make([]byte, 60*sector)...)
	first := slices.Clone(b[16*sector : 17*sector])
	for at := 16; at < 70; at++ {
		copy(b[at*sector:], "\x00CD001\x01")
	}
	copy(b[70*sector:], first)
	binary.LittleEndian.PutUint32(b[70*sector+158:], 72)
	copy(b[72*sector:], []byte{44})
	copy(b[72*sector+32:], "\x07X.EXE;1")
	if got, _ := contents(t, b); len(got) != 1 {
		t.Errorf("descriptors: %q", got)
	}
}
