package managesieve

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func reading(b []byte, r func(io.Reader) io.Reader) (*input, *budget) {
	m := &budget{}
	m.left.Store(1 << 20)
	return &input{r: bufio.NewReaderSize(r(bytes.NewReader(b)), 16), memory: m, skip: 100_000,
		keep: func(verb string, i int) int {
			if verb == "PUTSCRIPT" && i == 1 {
				return 10_000
			}
			return 1024
		}}, m
}

// all reads everything, as text.
func all(t *testing.T, b []byte, r func(io.Reader) io.Reader) string {
	in, m := reading(b, r)
	var out strings.Builder
	for {
		c, err := in.command()
		var fault syntaxError
		switch {
		case errors.As(err, &fault):
			fmt.Fprintln(&out, "fault:", err)
		case err != nil:
			in.release(c)
			if m.left.Load() != 1<<20 {
				t.Fatal("memory is lost")
			}
			fmt.Fprintln(&out, "end:", err)
			return out.String()
		default:
			if len(c.args) > maxArgs || len(c.verb) > maxVerb || c.verb == "" {
				t.Fatalf("command %+v", c)
			}
			fmt.Fprintln(&out, c.verb, c.more)
			for i, a := range c.args {
				if len(a.text) > max(in.keep(c.verb, i), maxLine) || a.kind == 0 {
					t.Fatalf("argument %+v", a)
				}
				fmt.Fprintf(&out, " %d %q %d %t\n", a.kind, a.text, a.number, a.long)
			}
		}
		in.release(c)
	}
}

// However what is sent is cut into pieces, it is read in the same way, within bounds.
func FuzzInput(f *testing.F) {
	f.Add([]byte("PUTSCRIPT \"a\" {5+}\r\nkeep;\r\nNOOP\r\n"))
	f.Add([]byte("AUTHENTICATE \"PLAIN\" \"AAAA\"\r\nHAVESPACE {1+}\r\na 42\r\n\r\nLOGOUT\r\n"))
	f.Add([]byte("X \"a\\\"\\\\\" b 0 {0+}\r\n {2+}\r\n\r\n\r\nX \"\r\nX {2}\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := all(t, b, func(r io.Reader) io.Reader { return r })
		if pieces := all(t, b, iotest.OneByteReader); pieces != whole {
			t.Errorf("whole:\n%s\nin pieces:\n%s", whole, pieces)
		}
	})
}

// What quote writes is read as what it was, also if it is full of commands.
func FuzzQuote(f *testing.F) {
	f.Add("a", "b\"\r\nLOGOUT\r\n")
	f.Add("\\\"", "{5+}\r\n")
	f.Fuzz(func(t *testing.T, name, script string) {
		if len(name) > 512 || len(script) > 10_000 {
			return
		}
		client := func(s string) string { // literals of clients have a +
			q := quote(s)
			if q[0] == '{' {
				q = strings.Replace(q, "}", "+}", 1)
			}
			return q
		}
		in, _ := reading([]byte("PUTSCRIPT "+client(name)+" "+client(script)+"\r\nNOOP\r\n"), func(r io.Reader) io.Reader { return r })
		c, err := in.command()
		if err != nil || !c.has(stringArg, stringArg) || string(c.args[0].text) != name || string(c.args[1].text) != script {
			t.Fatalf("%+v, %v", c, err)
		}
		in.release(c)
		if c, err := in.command(); err != nil || c.verb != "NOOP" {
			t.Fatalf("%+v, %v", c, err)
		}
	})
}
