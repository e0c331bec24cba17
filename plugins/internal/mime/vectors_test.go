package mime

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk/mail"
)

var update = flag.Bool("update", false, "write the golden file anew")

const vectors = "../../../testdata/vectors/mime"

// messages are all vectors by name, with the line ends of the wire.
func messages(t testing.TB) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	err := filepath.WalkDir(vectors, func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err != nil || d.IsDir() || ext != ".raw" && ext != ".txt" && ext != ".eml" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(vectors, path)
		all[filepath.ToSlash(name)] = crlf(b)
		return nil
	})
	if err != nil || len(all) < 100 {
		t.Fatalf("%d vectors, %v", len(all), err)
	}
	return all
}

func crlf(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

func walk(t testing.TB, msg []byte) *Tree {
	t.Helper()
	h, body := mail.SplitMessage(msg)
	tree, err := Walk(h, mail.InlineBody(body), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// outline is a tree as text, a line for each part.
func outline(tree *Tree) string {
	var b strings.Builder
	for p := range tree.All {
		fmt.Fprintf(&b, "%s%s %s %d-%d-%d", strings.Repeat("  ", p.Depth+1), p.Type, [...]string{"identity", "base64", "qp"}[p.Encoding], p.HeaderStart, p.BodyStart, p.End)
		if p.Disposition != "" {
			fmt.Fprintf(&b, " %s", p.Disposition)
		}
		names, d := p.Names()
		if len(names) > 0 {
			fmt.Fprintf(&b, " %q", names)
		}
		if p.Defects|d != 0 {
			fmt.Fprintf(&b, " (%s)", p.Defects|d)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// The vectors have the structure in the golden file, and what holds for all messages holds
// for them (M-06).
func TestM06Vectors(t *testing.T) {
	all := messages(t)
	var got strings.Builder
	for _, name := range sortedKeys(all) {
		tree := walk(t, all[name])
		fmt.Fprintf(&got, "%s\n%s", name, outline(tree))
		invariants(t, name, tree, all[name])
	}
	golden := filepath.Join(vectors, "structure.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("structure (-golden +now):\n%s", d)
	}
}

func sortedKeys(m map[string][]byte) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	for i := range keys { // few
		for j := i; j > 0 && keys[j] < keys[j-1]; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
	return keys
}

// invariants are what holds for the tree of every message.
func invariants(t testing.TB, name string, tree *Tree, msg []byte) {
	t.Helper()
	h, body := mail.SplitMessage(msg)
	n, union := 0, Defect(0)
	for p := range tree.All {
		n++
		union |= p.Defects
		if p.HeaderStart > p.BodyStart || p.BodyStart > p.End || p.End > p.follows || p.follows > int64(len(body)) {
			t.Fatalf("%s: ranges out of order: %s", name, outline(tree))
		}
		at := p.BodyStart
		for _, c := range p.Children {
			if c.Parent != p || c.Depth != p.Depth+1 || c.HeaderStart < at || c.End > p.End {
				t.Fatalf("%s: a child is not within its parent: %s", name, outline(tree))
			}
			at = c.End
		}
		if p != tree.Root && p.Defects&HeaderTooLarge == 0 {
			if raw := body[p.HeaderStart:p.BodyStart]; !bytes.HasPrefix(p.Header.Block(), raw) || len(p.Header.Block()) > len(raw)+2 {
				t.Fatalf("%s: header %q is not what stands there: %q", name, p.Header.Block(), raw)
			}
		}
		c, err := tree.Decoded(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || int64(len(got)) > p.Size() || p.Encoding == Identity && !bytes.Equal(got, body[p.BodyStart:p.End]) {
			t.Fatalf("%s: content of %d bytes for %d, %v", name, len(got), p.Size(), err)
		}
		c.Close()
		p.Names()
	}
	if n != tree.Parts || union != tree.Defects {
		t.Fatalf("%s: %d parts (%s), the tree says %d (%s)", name, n, union, tree.Parts, tree.Defects)
	}
	var same bytes.Buffer
	if err := tree.Rewrite(&same, nil); err != nil || !bytes.Equal(same.Bytes(), body) {
		t.Fatalf("%s: rewriting without a change changes: %v", name, err)
	}
	if tree.Defects == 0 {
		replaceEach(t, name, tree, h, body)
	}
}

// replaceEach replaces each part in turn and looks whether only it has changed.
func replaceEach(t testing.TB, name string, tree *Tree, h mail.Header, body []byte) {
	t.Helper()
	const with = "Content-Type: text/x-removed\r\n\r\nremoved"
	for p := range tree.All {
		if p == tree.Root || tree.Parts > 50 {
			continue
		}
		var out bytes.Buffer
		if err := tree.Rewrite(&out, []Replacement{tree.Replace(p, []byte(with))}); err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(out.Bytes(), []byte(with))
		if i < int(p.HeaderStart) || i > int(p.HeaderStart)+2 || !bytes.Equal(out.Bytes()[:p.HeaderStart], body[:p.HeaderStart]) || !bytes.HasSuffix(out.Bytes(), body[p.End:]) {
			t.Fatalf("%s: replacing a part changed others", name)
		}
		again, err := Walk(h, mail.InlineBody(out.Bytes()), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Count(outline(tree), "\n") - descendants(p)
		if got := strings.Count(outline(again), "\n"); got != want || strings.Count(outline(again), "text/x-removed") != 1 {
			t.Fatalf("%s: %d parts after the replacement of\n%s\n%s", name, got, outline(&Tree{Root: p}), outline(again))
		}
	}
}

func descendants(p *Part) int {
	n := 0
	for q := range (&Tree{Root: p}).All {
		if q != p {
			n++
		}
	}
	return n
}

func FuzzWalk(f *testing.F) {
	for _, m := range messages(f) {
		if len(m) < 8<<10 {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, body := mail.SplitMessage(msg)
		tree, err := Walk(h, mail.InlineBody(body), Limits{Depth: 8, Parts: 100})
		if err != nil {
			t.Fatal(err)
		}
		if tree.Parts > 100 {
			t.Fatal("too many parts")
		}
		invariants(t, "message", tree, msg)
	})
}
