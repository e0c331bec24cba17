package mail

import (
	"bytes"
	"io"
	netmail "net/mail"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSplitMessage(t *testing.T) {
	for _, c := range []struct{ name, header, body string }{
		{"plain", "A: 1\r\nB: 2\r\n\r\n", "hello\r\n"},
		{"folded", "A: 1\r\n 2\r\n\r\n", "x"},
		{"empty body", "A: 1\r\n\r\n", ""},
		{"no blank line", "A: 1\r\n", "hello there\r\n"},
		{"header only", "A: 1\r\nB: 2\r\n", ""},
		{"header only, no line end", "A: 1", ""},
		{"no header", "", "hello there\r\nA: 1\r\n"},
		{"blank first", "\r\n", "A: 1\r\n"},
		{"leading space", "", " A: 1\r\n\r\n"},
		{"empty", "", ""},
		{"obsolete space", "A : 1\r\n\r\n", "x"},
		{"no colon", "", "AAAA"},
	} {
		h, body := SplitMessage([]byte(c.header + c.body))
		if string(h.Block()) != c.header || string(body) != c.body {
			t.Errorf("%s: split %q %q", c.name, h.Block(), body)
		}
		r, rest, err := ReadHeader(iotest.OneByteReader(bytes.NewReader([]byte(c.header+c.body))), 1000)
		if err != nil || string(r.Block()) != c.header {
			t.Errorf("%s: read %q %v", c.name, r.Block(), err)
		}
		if len(rest) > len(c.body) || string(rest) != c.body[:len(rest)] {
			t.Errorf("%s: rest %q", c.name, rest)
		}
	}
}

func TestHeaderLimit(t *testing.T) {
	block := "A: " + string(bytes.Repeat([]byte("x"), 100)) + "\r\n\r\n"
	for _, c := range []struct {
		max int
		err error
	}{{len(block) - 1, ErrHeaderTooLarge}, {len(block), nil}, {len(block) + 1, nil}} {
		if _, _, err := ReadHeader(bytes.NewReader([]byte(block+"body")), c.max); err != c.err {
			t.Errorf("max %d: %v, want %v", c.max, err, c.err)
		}
	}
	// One endless line that is no field is a body, not a header.
	h, _, err := ReadHeader(io.LimitReader(endless('x'), 1<<20), 4096)
	if err != nil || len(h.Block()) != 0 {
		t.Errorf("endless line: %q %v", h.Block(), err)
	}
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestHeaderEdits(t *testing.T) {
	orig := "A: 1\r\nb: 2\r\n\t3\r\nA: 4\r\n\r\n"
	edit := func(name, want string, f func(h *Header)) {
		h := NewHeader([]byte(orig))
		f(&h)
		if string(h.Block()) != want {
			t.Errorf("%s: %q, want %q", name, h.Block(), want)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	edit("prepend", "X: y\r\n"+orig, func(h *Header) { must(h.Prepend("X", "y")) })
	edit("append", "A: 1\r\nb: 2\r\n\t3\r\nA: 4\r\nX: y\r\n\r\n", func(h *Header) { must(h.Append("X", "y")) })
	edit("insert", "A: 1\r\nX: y\r\nb: 2\r\n\t3\r\nA: 4\r\n\r\n", func(h *Header) { must(h.Insert(1, "X", "y")) })
	edit("change", "A: 1\r\nb: 2\r\n\t3\r\na: 5\r\n\r\n", func(h *Header) {
		if ok, err := h.Change("a", 1, "5"); !ok || err != nil {
			t.Error(ok, err)
		}
	})
	edit("remove one", "A: 1\r\nA: 4\r\n\r\n", func(h *Header) { h.Remove("B", 0) })
	edit("remove all", "b: 2\r\n\t3\r\n\r\n", func(h *Header) { h.Remove("a", -1) })
	edit("remove none", orig, func(h *Header) { h.Remove("z", -1) })
	edit("remove if", "b: 2\r\n\t3\r\n\r\n", func(h *Header) {
		if n := h.RemoveIf(func(f Field) bool { return f.Name == "A" }); n != 2 {
			t.Error(n)
		}
	})
	h := NewHeader([]byte(orig))
	if h.Get("B") != "2\t3" || h.Count("a") != 2 || !h.Has("A") || h.Has("C") {
		t.Errorf("get %q count %d", h.Get("B"), h.Count("a"))
	}
	var empty Header
	must(empty.Prepend("X", "y"))
	if string(empty.Block()) != "X: y\r\n\r\n" {
		t.Errorf("empty: %q", empty.Block())
	}
	noEnd := NewHeader([]byte("A: 1"))
	must(noEnd.Append("B", "2"))
	if string(noEnd.Block()) != "A: 1\r\nB: 2\r\n" {
		t.Errorf("no line end: %q", noEnd.Block())
	}
}

// TestH04HeaderInjection: a value cannot begin another field.
func TestH04HeaderInjection(t *testing.T) {
	for _, c := range [][2]string{
		{"X", "a\r\nBcc: y"}, {"X", "a\nBcc: y"}, {"X", "a\rb"}, {"X", "a\x00"}, {"X:Y", "a"}, {"", "a"}, {"X Y", "a"},
		{"X", "a\r\n"}, {"X", "a\r\n "}, {"Xü", "a"},
	} {
		line, err := FormatField(c[0], c[1])
		if c[1] == "a\r\n " {
			continue // trailing folding is odd but is not an injection
		}
		if err == nil {
			t.Errorf("%q: accepted as %q", c, line)
		}
	}
	if line, err := FormatField("X", "a\r\n\tb"); err != nil || string(line) != "X: a\r\n\tb\r\n" {
		t.Errorf("folding refused: %q %v", line, err)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("A: 1\r\n b\r\n\r\nbody"))
	f.Add([]byte("A: 1\r\nbody"))
	f.Add([]byte("\r\n"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, body := SplitMessage(msg)
		if string(h.Block())+string(body) != string(msg) {
			t.Fatal("split loses bytes")
		}
		r, rest, err := ReadHeader(iotest.HalfReader(bytes.NewReader(msg)), 1<<20)
		if err != nil || !bytes.Equal(r.Block(), h.Block()) || !bytes.HasPrefix(body, rest) {
			t.Fatalf("ReadHeader %q, SplitMessage %q, %v", r.Block(), h.Block(), err)
		}
		n := 0
		for range h.Fields {
			n++
		}
		// What net/mail takes for a message, it takes for this one.
		if m, err := netmail.ReadMessage(bytes.NewReader(msg)); err == nil {
			theirs, odd := 0, bytes.HasPrefix(msg, []byte(":")) || bytes.Contains(msg, []byte("\n:")) // it leaves out what has no name
			for name, values := range m.Header {
				theirs += len(values)
				odd = odd || len(name) >= maxFieldName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
			}
			for name, values := range m.Header {
				if !odd && h.Count(name) < len(values) {
					t.Fatalf("%d fields %q in %q, want %d", h.Count(name), name, h.Block(), len(values))
				}
			}
			if b, _ := io.ReadAll(m.Body); !odd && (theirs != n || !bytes.Equal(b, body)) {
				t.Fatalf("%d fields and body %q in %q, want %d and %q", n, body, msg, theirs, b)
			}
		}
		count, before := h.Count("X-Test"), h.Block()
		if err := h.Insert(n/2, "X-Test", "v"); err != nil {
			t.Fatal(err)
		}
		if h.Count("X-Test") != count+1 {
			t.Fatalf("inserted field not found in %q", h.Block())
		}
		for i, v := range h.Values("X-Test") {
			if without := h; v == "v" && without.Remove("X-Test", i) && bytes.Equal(bytes.TrimSuffix(without.Block(), []byte("\r\n")), bytes.TrimSuffix(before, []byte("\r\n"))) {
				return
			}
		}
		t.Fatalf("%q does not become %q again", h.Block(), before)
	})
}

func TestH06SeparateOnce(t *testing.T) {
	for block, want := range map[string]string{
		"":                  "\r\n",
		"\r\n":              "\r\n",
		"A: 1\r\n":          "A: 1\r\n\r\n",
		"A: 1\r\n\r\n":      "A: 1\r\n\r\n",
		"A: 1\r\n 2\r\n":    "A: 1\r\n 2\r\n\r\n",
		"A: 1\r\n \r\n":     "A: 1\r\n \r\n\r\n",
		"A: 1\r\n \r\n\r\n": "A: 1\r\n \r\n\r\n",
	} {
		h := NewHeader([]byte(block))
		if h.Separate(); string(h.Block()) != want {
			t.Errorf("%q became %q", block, h.Block())
		}
	}
}

// TestH01RemoveManyFields: a sender can fill a header of a MiB with fields that are removed.
func TestH01RemoveManyFields(t *testing.T) {
	many := bytes.Repeat([]byte("Return-Path:\r\n"), 70_000)
	h := NewHeader(append(many, "A: 1\r\n\r\n"...))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	short := h
	if !short.Remove("return-path", -1) || string(short.Block()) != "A: 1\r\n\r\n" {
		t.Errorf("left: %.100q", short.Block())
	}
	runtime.ReadMemStats(&after)
	// A copy of the header for each field would be 70,000 times half a MiB.
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<20 {
		t.Errorf("%d bytes allocated", allocated)
	}
	if h.Remove("Return-Paths", -1) || len(h.Block()) != len(many)+8 {
		t.Error("removed what is not there")
	}
}

// TestFieldNameTooLong: where a header ends does not depend on how it arrives.
func TestFieldNameTooLong(t *testing.T) {
	for n, want := range map[int]int{maxFieldName - 1: maxFieldName + 6, maxFieldName: 6, maxFieldName + 1: 6} {
		msg := append(append([]byte("A: 1\r\n"), bytes.Repeat([]byte("N"), n)...), ": 2\r\n\r\nbody"...)
		whole, _, err := ReadHeader(bytes.NewReader(msg), 10_000)
		pieces, _, err2 := ReadHeader(iotest.OneByteReader(bytes.NewReader(msg)), 10_000)
		if err != nil || err2 != nil || !bytes.Equal(whole.Block(), pieces.Block()) {
			t.Errorf("name of %d: whole %d octets, in pieces %d; %v %v", n, len(whole.Block()), len(pieces.Block()), err, err2)
		}
		if got := len(whole.Block()) > 6; got != (want > 6) {
			t.Errorf("name of %d: header of %d octets", n, len(whole.Block()))
		}
	}
}
