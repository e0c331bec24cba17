package arcchain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/postern-mail/postern/sdk/mail"
)

// zone is a DNS with texts by name.
type zone map[string]string

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	if v, ok := z[name]; ok {
		return []string{v}, nil
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

func parsed(wire string) *mail.Message {
	h, body := mail.SplitMessage([]byte(wire))
	return &mail.Message{Header: h, Body: mail.InlineBody(body)}
}

func validate(t testing.TB, z zone, wire string) *Chain {
	t.Helper()
	v, err := New(Options{Resolver: z})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Validate(t.Context(), parsed(wire))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// entries are the pairs of a mapping. Names may be there twice, so a map will not do.
func entries(n *yaml.Node, yield func(name string, value *yaml.Node) bool) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !yield(n.Content[i].Value, n.Content[i+1]) {
			return
		}
	}
}

// TestVectors runs the public suite of ARC validation tests.
func TestVectors(t *testing.T) {
	file, err := os.ReadFile("../../../testdata/vectors/arc/arc-draft-validation-tests.yml")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for d := yaml.NewDecoder(bytes.NewReader(file)); ; {
		var doc yaml.Node
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var tests *yaml.Node
		z := make(zone)
		for name, value := range func(yield func(string, *yaml.Node) bool) { entries(doc.Content[0], yield) } {
			switch name {
			case "tests":
				tests = value
			case "txt-records":
				for name, value := range func(yield func(string, *yaml.Node) bool) { entries(value, yield) } {
					z[name] = value.Value
				}
			}
		}
		for name, value := range func(yield func(string, *yaml.Node) bool) { entries(tests, yield) } {
			var c struct{ Description, Message, CV string }
			if err := value.Decode(&c); err != nil {
				t.Fatal(err)
			}
			n++
			got := validate(t, z, strings.ReplaceAll(c.Message, "\n", "\r\n"))
			want := CV(strings.ToLower(strings.TrimSpace(c.CV)))
			if want == "" {
				want = Fail // these have a seal that says cv=fail, and the suite wants no new one
			}
			if got.State != want {
				t.Errorf("%s (%s): %s, want %s (%s)", name, c.Description, got.State, want, got.Reason)
			}
		}
	}
	if n < 171 {
		t.Errorf("%d tests", n)
	}
	t.Logf("%d tests", n)
}
