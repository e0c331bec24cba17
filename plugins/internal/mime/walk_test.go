package mime

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

const (
	mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	text  = "Content-Type: text/plain\r\n\r\n"
)

// What readers do not agree about is said, and only that (M-03, M-06).
func TestM06Defects(t *testing.T) {
	for name, tt := range map[string]struct {
		msg  string
		want Defect
	}{
		"fine":                      {mixed + "--b\r\n" + text + "x\r\n--b--\r\n", 0},
		"preamble and epilogue":     {mixed + "pre\r\n--b\r\n" + text + "x\r\n--b--\r\nepi\r\n", 0},
		"padding":                   {mixed + "--b \t\r\n" + text + "x\r\n--b-- \r\n", 0},
		"not closed":                {mixed + "--b\r\n" + text + "x\r\n", 0},
		"header alone":              {mixed + "--b\r\nContent-Type: text/plain\r\n--b--\r\n", 0},
		"nothing":                   {"", 0},
		"no header":                 {"\r\ntext", 0},
		"no body":                   {mixed, 0},
		"same field twice":          {"Content-Type: text/plain\r\nContent-Type: text/plain\r\n\r\nx", 0},
		"another field twice":       {"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx", DuplicateField},
		"encoding twice":            {"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\nx", DuplicateField},
		"space before the colon":    {"Content-Type : text/html\r\n\r\nx", MalformedField},
		"no boundary":               {"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", NoBoundary},
		"empty boundary":            {"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n", NoBoundary},
		"boundary never comes":      {mixed + "text\r\n", NoBoundary},
		"two boundaries":            {"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", DuplicateBoundary},
		"boundary of RFC 2231":      {"Content-Type: multipart/mixed; boundary*0=\"b\"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", MalformedField},
		"boundary with a comment":   {"Content-Type: multipart/mixed (x); boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", MalformedField},
		"boundary and a word":       {"Content-Type: multipart/mixed; boundary=b x\r\n\r\n--b x\r\n\r\nx\r\n--b x--\r\n", MalformedField},
		"boundary is an encoded":    {"Content-Type: multipart/mixed; boundary=\"=?utf-8?q?b?=\"\r\n\r\n--=?utf-8?q?b?=\r\n\r\nx\r\n", MalformedField},
		"boundary ends in space":    {"Content-Type: multipart/mixed; boundary=\"b \"\r\n\r\n--b \r\n\r\nx\r\n", MalformedField},
		"boundary of the parent":    {mixed + "--b\r\n" + mixed + "--b\r\n\r\nx\r\n--b--\r\n--b--\r\n", DuplicateBoundary},
		"boundary in outer message": {mixed + "--b\r\nContent-Type: message/rfc822\r\n\r\n" + mixed + "--b\r\n\r\nx\r\n--b--\r\n", DuplicateBoundary},
		"prefix of a child's":       {mixed + "--b\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--bb--\r\n--b--\r\n", 0},
		"line goes on":              {mixed + "--b\r\n" + text + "x\r\n--bx\r\n\r\ny\r\n--b--\r\n", NearBoundary},
		"very long line":            {mixed + "--b\r\n" + text + "x\r\n--b" + strings.Repeat(" ", 100_000) + "\r\n\r\ny\r\n--b--\r\n", NearBoundary},
		"after the last":            {mixed + "--b\r\n" + text + "x\r\n--b--\r\n--b\r\n" + text + "y\r\n--b--\r\n", AfterClose},
		"no blank line":             {mixed + "--b\r\nContent-Type: text/plain\r\nno field\r\nContent-Disposition: attachment\r\n\r\nx\r\n--b--\r\n", NoBlankLine},
		"nothing but text":          {"text\r\nand more\r\n", 0},
		"text after fields":         {"Subject: x\r\ntext\r\nContent-Type: text/html\r\n", NoBlankLine},
		"encoded multipart":         {"Content-Transfer-Encoding: base64\r\n" + mixed + "--b\r\n" + text + "x\r\n--b--\r\n", EncodedContainer},
		"comment in the encoding":   {"Content-Transfer-Encoding: base64 (x)\r\n\r\nx", OddEncoding},
		"encoding in quotes":        {"Content-Transfer-Encoding: \"base64\"\r\n\r\nx", OddEncoding},
		"uuencode":                  {"Content-Transfer-Encoding: x-uuencode\r\n\r\nx", OddEncoding},
		"unknown encoding":          {"Content-Transfer-Encoding: 8-bit\r\n\r\nx", 0},
		"type without subtype":      {"Content-Type: text\r\n\r\nx", 0},
		"multipart without subtype": {"Content-Type: multipart; boundary=b\r\n\r\n--b\r\n", MalformedField},
	} {
		tree := walk(t, []byte(tt.msg))
		if tree.Defects != tt.want {
			t.Errorf("%s: %q, want %q\n%s", name, tree.Defects, tt.want, outline(tree))
		}
		invariants(t, name, tree, []byte(tt.msg))
	}
}

func TestDigestAndRelatives(t *testing.T) {
	tree := walk(t, []byte("Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\nbody\r\n--b--\r\n"))
	if got := outline(tree); got != "  multipart/digest identity 0-0-34\n    message/rfc822 identity 5-7-25\n      text/plain identity 7-21-25\n" {
		t.Errorf("\n%s", got)
	}
	tree = walk(t, []byte(mixed+"--b\r\nContent-Type: message/rfc822\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: only this\r\n--b--\r\n"))
	if got := outline(tree); got != "  multipart/mixed identity 0-0-99\n    message/rfc822 identity 5-33-33\n    message/rfc822 identity 40-72-90\n      text/plain identity 72-90-90\n" {
		t.Errorf("\n%s", got)
	}
}

func nested(depth int) []byte {
	var b, end strings.Builder
	b.WriteString("Content-Type: multipart/mixed; boundary=b0\r\n\r\n")
	for i := range depth {
		fmt.Fprintf(&b, "--b%d\r\n", i)
		if i < depth-1 {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n", i+1)
		}
		b.WriteString("\r\n")
	}
	b.WriteString("x\r\n")
	for i := depth - 1; i >= 0; i-- {
		fmt.Fprintf(&end, "--b%d--\r\n", i)
	}
	return []byte(b.String() + end.String())
}

// Depth: n-1, n, n+1 of the limit, and far beyond (M-01).
func TestM01Depth(t *testing.T) {
	for depth, want := range map[int]Defect{1: 0, 99: 0, 100: 0, 101: TooDeep, 10_000: TooDeep} {
		tree := walk(t, nested(depth))
		if tree.Defects&TooDeep != want || tree.Parts != min(depth, 100)+1 {
			t.Errorf("%d: %d parts, %q", depth, tree.Parts, tree.Defects)
		}
	}
	for depth, want := range map[int]Defect{99: 0, 100: 0, 101: TooDeep, 10_000: TooDeep} {
		tree := walk(t, []byte(strings.Repeat("Content-Type: message/rfc822\r\n\r\n", depth)+"Subject: x\r\n\r\nx"))
		if tree.Defects != want || tree.Parts != min(depth, 100)+1 {
			t.Errorf("messages, %d: %d parts, %q", depth, tree.Parts, tree.Defects)
		}
	}
}

// Parts: n-1, n, n+1 of the limit (the root is one), and a million (M-02).
func TestM02Parts(t *testing.T) {
	for n, want := range map[int]Defect{9_998: 0, 9_999: 0, 10_000: TooMany, 100_000: TooMany} {
		tree := walk(t, []byte(mixed+strings.Repeat("--b\r\n\r\n", n)+"--b--\r\n"))
		if tree.Defects != want || tree.Parts != min(n+1, 10_000) {
			t.Errorf("%d: %d parts, %q", n, tree.Parts, tree.Defects)
		}
	}
}

// Boundaries: n-1, n, n+1 of the limit; the same message always has the same tree (M-03).
func TestM03Boundaries(t *testing.T) {
	for n, want := range map[int]Defect{70: 0, 2047: 0, 2048: 0, 2049: LongBoundary, 50_000: LongBoundary} {
		b := strings.Repeat("b", n)
		msg := []byte("Content-Type: multipart/mixed; boundary=" + b + "\r\n\r\n--" + b + "\r\n\r\nx\r\n--" + b + "--\r\n")
		if tree := walk(t, msg); tree.Defects != want {
			t.Errorf("%d: %q", n, tree.Defects)
		}
	}
	msg := []byte("Content-Type: multipart/mixed" + strings.Repeat("; boundary=b", 10_000) + "\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n")
	if a, b := outline(walk(t, msg)), outline(walk(t, msg)); a != b || !strings.Contains(a, "malformed") {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestHeaderLimits(t *testing.T) {
	for n, want := range map[int]Defect{64<<10 - 1: 0, 64 << 10: 0, 64<<10 + 1: HeaderTooLarge} {
		msg := mixed + "--b\r\nX: " + strings.Repeat("x", n-7) + "\r\n\r\nbody\r\n--b--\r\n"
		tree := walk(t, []byte(msg))
		if tree.Defects != want || tree.Root.Children[0].Size() != 4 {
			t.Errorf("%d: %q %s", n, tree.Defects, outline(tree))
		}
	}
	one := "--b\r\nX: " + strings.Repeat("x", 60<<10) + "\r\n\r\nbody\r\n"
	tree := walk(t, []byte(mixed+strings.Repeat(one, 100)+"--b--\r\n"))
	kept := 0
	for p := range tree.All {
		kept += len(p.Header.Block())
	}
	if tree.Defects != HeaderTooLarge || kept > 5<<20 || tree.Parts != 101 {
		t.Errorf("%d bytes of headers kept, %d parts, %q", kept, tree.Parts, tree.Defects)
	}
}

// shapes are messages whose size grows with n (M-01 to M-06, M-09).
var shapes = map[string]func(n int) []byte{
	"nested multiparts": func(n int) []byte { return nested(n) },
	"nested messages":   func(n int) []byte { return []byte(strings.Repeat("Content-Type: message/rfc822\r\n\r\n", n)) },
	"siblings":          func(n int) []byte { return []byte(mixed + strings.Repeat("--b\r\n\r\n", n)) },
	"boundaries that are almost one": func(n int) []byte {
		return append(nested(100)[:4000], strings.Repeat("--b"+strings.Repeat("0", 500)+"\r\n", n/100)...)
	},
	"one long line":        func(n int) []byte { return []byte(mixed + strings.Repeat("-", n)) },
	"parameters":           func(n int) []byte { return []byte("Content-Type: a/b" + strings.Repeat("; a=b", n) + "\r\n\r\nx") },
	"pieces of RFC 2231":   func(n int) []byte { return pieces(n, "a") },
	"encoded-words":        func(n int) []byte { return named(strings.Repeat("=?utf-8?q?a?= ", n)) },
	"words without an end": func(n int) []byte { return named(strings.Repeat("=?u?q?a", n)) },
	"openings of words":    func(n int) []byte { return named(strings.Repeat("=?", n)) },
	"charset toggles": func(n int) []byte {
		return named("=?iso-2022-jp?q?" + strings.Repeat("=1B$B=1B(B", n) + "?=")
	},
	"comments": func(n int) []byte { return []byte("Content-Type: " + strings.Repeat("(", n) + "\r\n\r\nx") },
	"quotes":   func(n int) []byte { return named(strings.Repeat(`\"`, n)) },
	"fields":   func(n int) []byte { return []byte(strings.Repeat("Content-Type: text/plain\r\n", n) + "\r\nx") },
	"folded lines": func(n int) []byte {
		return []byte("Content-Type: text/plain;\r\n" + strings.Repeat(" x\r\n", n) + "\r\nx")
	},
	"part headers": func(n int) []byte { return []byte(mixed + "--b\r\n" + strings.Repeat("A: b\r\n", n) + "\r\nx") },
	"escapes of qp": func(n int) []byte {
		return []byte("Content-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat("= \t", n))
	},
	"base64": func(n int) []byte {
		return []byte("Content-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat("QQ==*", n))
	},
}

func named(s string) []byte {
	return []byte("Content-Disposition: attachment; filename=\"" + s + "\"\r\n\r\nx")
}

func pieces(n int, v string) []byte {
	var b strings.Builder
	b.WriteString("Content-Disposition: attachment")
	for i := range n {
		fmt.Fprintf(&b, ";\r\n filename*%d*=%s", n-i, v)
	}
	return []byte(b.String() + "\r\n\r\nx")
}

// Twice the size takes at most about twice the steps and twice the memory, for every shape.
func TestM01ToM09Linear(t *testing.T) {
	const n = 20_000 // the limit on a value is beyond it, or far below
	for name, shape := range shapes {
		w1, a1 := cost(t, shape(n))
		w2, a2 := cost(t, shape(2*n))
		if w2 > 2.5*w1+10_000 || a2 > 2.5*a1+1<<20 {
			t.Errorf("%s: %.0f steps and %.0f bytes, for twice the size %.0f and %.0f", name, w1, a1, w2, a2)
		}
		consume(t, shape(30*n)) // n² steps that are not counted would not end in the time of a test
	}
}

// cost is what a message takes: steps, and bytes allocated.
func cost(t testing.TB, msg []byte) (steps, allocated float64) {
	tree := consume(t, msg)
	var before, after runtimeStats
	before.read()
	consume(t, msg)
	after.read()
	return float64(tree.work), float64(after.TotalAlloc - before.TotalAlloc)
}

// consume walks a message and reads all that is in it.
func consume(t testing.TB, msg []byte) *Tree {
	tree := walk(t, msg)
	for p := range tree.All {
		p.Names()
		if len(p.Children) > 0 {
			continue
		}
		c, _, err := tree.Text(p)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, c)
		c.Close()
	}
	return tree
}

// A large message is read in pieces, from a file.
func TestLargeBodyFromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body")
	const before = "something before it\r\n"
	attachment := strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAx\r\n", 300_000)
	body := "--b\r\n" + text + "hello\r\n--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + attachment + "--b--\r\n"
	if err := os.WriteFile(file, []byte(before+body), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := mail.Body{Path: file, Offset: int64(len(before)), Size: int64(len(body))}
	var m0, m1 runtimeStats
	m0.read()
	tree, err := Walk(mail.NewHeader([]byte(mixed)), ref, Limits{})
	if err != nil || tree.Parts != 3 {
		t.Fatal(err, outline(tree))
	}
	c, err := tree.Decoded(tree.Root.Children[1])
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, c)
	c.Close()
	if m1.read(); err != nil || n != int64(len(attachment)-2*300_000)/4*3 || c.Defects() != 0 {
		t.Error(n, err, c.Defects())
	}
	if used := m1.TotalAlloc - m0.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes of memory for %d of message", used, len(body))
	}
	var out bytes.Buffer
	if err := tree.Rewrite(&out, []Replacement{tree.Replace(tree.Root.Children[1], []byte(text+"gone"))}); err != nil || out.String() != "--b\r\n"+text+"hello\r\n--b\r\n"+text+"gone\r\n--b--\r\n" {
		t.Errorf("%v %.300q", err, out.String())
	}
	// A file that is damaged is an error, before and after the walk.
	if err := os.Truncate(file, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := Walk(mail.NewHeader([]byte(mixed)), ref, Limits{}); err != mail.ErrBodyDamaged {
		t.Error(err)
	}
	if err := tree.Rewrite(io.Discard, nil); err != mail.ErrBodyDamaged {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Walk(mail.NewHeader([]byte(mixed)), ref, Limits{}); err == nil {
		t.Error("no error without the file")
	}
}
