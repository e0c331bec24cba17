package attachments

import (
	"bufio"
	"bytes"
	"io"
	"regexp"

	"github.com/postern-mail/postern/plugins/attachments/archive"
)

// markOLE looks for the names of streams in a compound file [MS-CFB]: a directory entry is
// never split, so that reading the file through is enough.
func markOLE(f *file, r io.Reader) error {
	longest := 0
	for _, m := range oleMarks {
		longest = max(longest, len(m.mark))
	}
	return windows(r, longest, func(b []byte) {
		for _, m := range oleMarks {
			if !f.is(m.types[0]) && bytes.Contains(b, m.mark) {
				f.types = append(f.types, m.types...)
			}
		}
	})
}

// hidden lists the archives that programs find in a file though it begins with something else:
// a zip archive by its directory near the end (APPNOTE 4.3.16: a comment of at most 64 KiB
// follows it), a RAR archive by its mark, which they look for in the first 2 MiB. A disk image
// of fixed size (VHD) has its mark in the last 512 bytes only.
func hidden(r io.Reader) (kinds []string, err error) {
	const zipMark, vhdMark, rarRange = "PK\x05\x06", "conectix", 2 << 20
	var zipAt, rarAt, vhdAt, n int64 = -1, -1, -1, 0
	const width = len(vhdMark) // of the longest mark
	err = windows(r, width, func(b []byte) {
		if i := bytes.LastIndex(b, []byte(vhdMark)); i >= 0 {
			vhdAt = n + int64(i)
		}
		if i := bytes.LastIndex(b, []byte(zipMark)); i >= 0 {
			zipAt = n + int64(i)
		}
		if i := bytes.Index(b, []byte(archive.RARMark)); i >= 0 && rarAt < 0 {
			rarAt = n + int64(i)
		}
		n += int64(max(0, len(b)-width+1))
	})
	if vhdAt >= 0 && n-vhdAt <= 512 {
		kinds = append(kinds, "disk-image")
	}
	if zipAt >= 0 && n-zipAt < 65536+22+8 {
		kinds = append(kinds, "zip")
	}
	if rarAt >= 0 && rarAt < rarRange {
		kinds = append(kinds, "rar")
	}
	return kinds, err
}

// windows calls see with pieces of r that overlap, so that whatever is at most width bytes
// long is whole in one of them.
func windows(r io.Reader, width int, see func([]byte)) error {
	buf := make([]byte, 32<<10)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		if n > 0 {
			b := buf[:kept+n]
			see(b)
			kept = copy(buf, b[max(0, len(b)-width+1):])
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var uuBegin = regexp.MustCompile(`^begin(?:-base64)? +[0-7]{3,4} +(\S.*)`)

// uuencoded tries the rules for the names of files in a text that some programs show as
// attachments: uuencode, of before MIME.
func (l *look) uuencoded(f *file, r *bufio.Reader) error {
	for first := true; ; {
		line, err := r.ReadSlice('\n')
		if first && bytes.HasPrefix(line, []byte("begin")) {
			if m := uuBegin.FindSubmatch(bytes.TrimRight(line, "\r\n")); m != nil {
				if _, err := l.judge(f.child(text8(string(m[1][:min(len(m[1]), 1000)])))); err != nil {
					return err
				}
			}
		}
		first = err == nil // else this was a piece of a line
		if err == io.EOF {
			return nil
		}
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
	}
}
