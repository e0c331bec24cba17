package wire

import (
	"strings"
	"testing"
)

// TestDecoder checks the decoder for every way to cut its input and output.
func TestDecoder(t *testing.T) {
	for _, c := range []struct {
		in, out string
		done    bool
		err     error
	}{
		{"a\r\n.\r\n", "a\r\n", true, nil},
		{".\r\nx", "", true, nil},
		{"..\r\n.a.\r\n.\r\n", ".\r\na.\r\n", true, nil},
		{"a\r\n", "a\r\n", false, nil},
		{"a\nb", "", false, ErrBareLF},
		{".\nb", "", false, ErrBareLF},
		{"a\rb", "a\r", false, ErrBareCR},
		{".\rb", "", false, ErrBareCR},
		{"\r\r\n", "\r", false, ErrBareCR},
		{"a\x00", "", false, ErrNUL},
		{".\x00\r\n", "", false, ErrNUL},
	} {
		for step := 1; step <= len(c.in); step++ {
			for room := 1; room <= 4; room++ {
				d := decoder{dots: true}
				var out []byte
				var err error
				in, end := c.in, min(step, len(c.in))
				for err == nil && !d.done && end > 0 {
					buf := make([]byte, room)
					var n, used int
					n, used, err = d.decode(buf, []byte(in[:end]))
					out = append(out, buf[:n]...)
					in = in[used:]
					if end = end - used; end == 0 {
						end = min(step, len(in))
					}
				}
				if err != c.err || d.done != c.done || err == nil && string(out) != c.out {
					t.Fatalf("%q, %d octets at a time into %d: %q %v %v", c.in, step, room, out, d.done, err)
				}
			}
		}
	}
}

// FuzzDecoder: whatever comes in, what goes out has CRLF line ends only, and is the same
// however it is cut.
func FuzzDecoder(f *testing.F) {
	for i, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\rx", "\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n.\x00\r\n"} {
		f.Add([]byte("a"+end+"b\r\n.\r\n"), uint8(i))
	}
	f.Fuzz(func(t *testing.T, input []byte, room uint8) {
		decode := func(room int) (string, error, bool) {
			d := decoder{dots: true}
			buf := make([]byte, room)
			var out []byte
			for in := input; ; {
				n, used, err := d.decode(buf, in[:min(len(in), room)])
				out = append(out, buf[:n]...)
				in = in[used:]
				if err != nil || d.done || len(in) == 0 {
					return string(out), err, d.done
				}
				if n == 0 && used == 0 {
					t.Fatal("no progress")
				}
			}
		}
		whole, err, done := decode(len(input) + 1)
		cut, err2, done2 := decode(int(room) + 1)
		if (err == nil) != (err2 == nil) || done != done2 || err == nil && whole != cut { // which fault comes first may differ
			t.Fatalf("%q %v %v, in pieces %q %v %v", whole, err, done, cut, err2, done2)
		}
		if done && strings.ContainsAny(strings.ReplaceAll(whole, "\r\n", ""), "\r\n\x00") {
			t.Fatalf("%q", whole)
		}
	})
}
