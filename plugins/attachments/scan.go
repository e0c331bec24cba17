package attachments

import (
	"bufio"
	"bytes"
	"io"
	"regexp"
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

// endsInZip reports whether the directory of a zip archive is near the end of a file
// (APPNOTE 4.3.16: a comment of at most 64 KiB follows it).
func endsInZip(r io.Reader) (bool, error) {
	const mark = "PK\x05\x06"
	var at, n int64 = -1, 0
	err := windows(r, len(mark), func(b []byte) {
		if i := bytes.LastIndex(b, []byte(mark)); i >= 0 {
			at = n + int64(i)
		}
		n += int64(max(0, len(b)-len(mark)+1))
	})
	return at >= 0 && n-at < 65536+22+8, err
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
