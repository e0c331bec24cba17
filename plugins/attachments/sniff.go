package attachments

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// typeWords are what types in rules may say.
var typeWords = strings.Fields(`executable pe elf macho java dex msi script shortcut
	office ole ooxml odf macro rtf pdf archive zip gzip bzip2 xz zstd tar rar 7z cab arj lzh ace tnef
	disk-image encrypted opaque damaged disguised`)

// headSize is how much of a file is looked at for its type: an ISO image says what it is
// behind its first 32 KiB.
const headSize = 33 << 10

// magic are beginnings of files.
var magic = []struct {
	at    int
	bytes string
	types string
}{
	{0, "\x7fELF", "elf executable"},
	{0, "\xfe\xed\xfa\xce", "macho executable"},
	{0, "\xfe\xed\xfa\xcf", "macho executable"},
	{0, "\xce\xfa\xed\xfe", "macho executable"},
	{0, "\xcf\xfa\xed\xfe", "macho executable"},
	{0, "dex\n", "dex executable"},
	{0, "\x4c\x00\x00\x00\x01\x14\x02\x00", "shortcut"},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole office"},
	{0, "{\\rt", "rtf"},
	{0, "PK\x03\x04", "zip archive"},
	{0, "PK\x05\x06", "zip archive"},
	{0, "PK\x07\x08", "zip archive"},
	{0, "\x1f\x8b", "gzip archive"},
	{0, "BZh", "bzip2 archive"},
	{0, "\xfd7zXZ\x00", "xz archive"},
	{0, "\x28\xb5\x2f\xfd", "zstd archive"},
	{0, "Rar!\x1a\x07", "rar archive"},
	{0, "7z\xbc\xaf\x27\x1c", "7z archive"},
	{0, "MSCF", "cab archive"},
	{0, "\x60\xea", "arj archive opaque"},
	{0, "MSWIM\x00\x00\x00", "archive opaque"},
	{0, "\x1f\x9d", "archive opaque"},         // compress
	{0, "\x04\x22\x4d\x18", "archive opaque"}, // LZ4
	{0, "LZIP", "archive opaque"},
	{0, "xar!", "archive opaque"},
	{2, "-lh", "lzh archive opaque"},
	{7, "**ACE**", "ace archive opaque"},
	{0, "\x78\x9f\x3e\x22", "tnef archive opaque"},
	{257, "ustar", "tar archive"},
	{0x8001, "CD001", "disk-image"},
	{0x8001, "BEA01", "disk-image opaque"}, // UDF alone
	{0, "conectix", "disk-image opaque"},
	{0, "vhdxfile", "disk-image opaque"},
	{0, "#@~^", "script"}, // encoded by Microsoft's Script Encoder
}

// sniff says what a file is by its beginning.
func sniff(head []byte) []string {
	var types []string
	for _, m := range magic {
		if len(head) >= m.at+len(m.bytes) && string(head[m.at:m.at+len(m.bytes)]) == m.bytes {
			types = append(types, strings.Fields(m.types)...)
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")) && len(head) >= 8:
		if binary.BigEndian.Uint32(head[4:]) < 40 { // architectures; a class has its version there
			types = append(types, "macho", "executable")
		} else {
			types = append(types, "java", "executable")
		}
	case bytes.HasPrefix(head, []byte("MZ")) || bytes.HasPrefix(head, []byte("ZM")):
		if bytes.IndexFunc(head[:min(len(head), 64)], func(r rune) bool { return r < '\t' }) >= 0 {
			types = append(types, "pe", "executable")
		}
	}
	if isTar(head) && !slices.Contains(types, "tar") {
		types = append(types, "tar", "archive")
	}
	if isLZMA(head) {
		types = append(types, "archive", "opaque")
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" { // a frame to skip comes first (RFC 8878 §3.1.2)
		types = append(types, "zstd", "archive")
	}
	if i := bytes.Index(head[:min(len(head), 1024)], []byte("%PDF-")); i >= 0 {
		types = append(types, "pdf")
	}
	if isScript(head) {
		types = append(types, "script")
	}
	if t := text(head, 512); strings.HasPrefix(t, "[internetshortcut]") {
		types = append(types, "shortcut")
	}
	return types
}

// isTar knows archives of before POSIX, which have no mark, by the checksum of the first header:
// the sum of its octets, those of the checksum taken as blanks.
func isTar(head []byte) bool {
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	sum, err := strconv.ParseUint(strings.Trim(string(head[148:156]), " \x00"), 8, 32)
	if err != nil {
		return false
	}
	n := 8 * uint64(' ')
	for i, c := range head[:512] {
		if i < 148 || i >= 156 {
			n += uint64(c)
		}
	}
	return n == sum
}

// isLZMA knows the format of before xz, which has no mark: the usual properties, a size that may
// be or none, and the octet that all of its data begins with.
func isLZMA(head []byte) bool {
	if len(head) < 14 || string(head[:3]) != "\x5d\x00\x00" || head[13] != 0 {
		return false
	}
	size := binary.LittleEndian.Uint64(head[5:])
	return size == 1<<64-1 || size < 1<<40
}

// text is the beginning of a text in lower case, whatever its byte order mark and UTF.
func text(head []byte, n int) string {
	head = head[:min(len(head), 2*n)]
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		head = bytes.ReplaceAll(head[2:], []byte{0}, nil) // UTF-16, for what is ASCII
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		head = head[3:]
	}
	return strings.ToLower(strings.TrimLeft(string(head), " \t\r\n"))
}

// isScript knows scripts that say what they are; others are known by their names only.
func isScript(head []byte) bool {
	if bytes.HasPrefix(head, []byte("#!")) {
		return true
	}
	t := text(head, 2048)
	for _, p := range []string{"@echo off", "<job", "<?php", "<hta:", "<scriptlet"} {
		if strings.HasPrefix(t, p) {
			return true
		}
	}
	return strings.Contains(t, "<hta:application")
}

// Names in the directory of a compound file, in UTF-16, and the class of Windows Installer.
var oleMarks = []struct {
	mark  []byte
	types []string
}{
	{utf16("_VBA_PROJECT"), []string{"macro"}},
	{utf16("VBA\x00"), []string{"macro"}},
	{utf16("EncryptedPackage"), []string{"encrypted"}},
	{[]byte("\x84\x10\x0c\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46"), []string{"msi", "executable"}},
}

func utf16(s string) []byte {
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = append(b, s[i], 0)
	}
	return b
}
