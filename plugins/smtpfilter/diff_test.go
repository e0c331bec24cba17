package smtpfilter

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func header(lines ...string) mail.Header {
	return mail.NewHeader([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n"))
}

// apply makes the edits, as the gateway does.
func apply(t *testing.T, h mail.Header, edits []sdk.Edit) mail.Header {
	t.Helper()
	if err := sdktest.Apply(&sdk.Verdict{Edits: edits}, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// What is the same costs no edit, and what the filter does costs what it did.
func TestDifferences(t *testing.T) {
	was := header("Received: a", "Subject: s", "X: 1", "x: 2", "X: 1", "To:\r\n folded")
	for name, c := range map[string]struct {
		is    mail.Header
		edits int
	}{
		"nothing":        {was, 0},
		"on top":         {header("New: n", "Received: a", "Subject: s", "X: 1", "x: 2", "X: 1", "To:\r\n folded"), 1},
		"at the end":     {header("Received: a", "Subject: s", "X: 1", "x: 2", "X: 1", "To:\r\n folded", "New: n"), 1},
		"changed":        {header("Received: a", "Subject: [spam] s", "X: 1", "x: 2", "X: 1", "To:\r\n folded"), 2},
		"one of two":     {header("Received: a", "Subject: s", "x: 2", "X: 1", "To:\r\n folded"), 1},
		"the middle one": {header("Received: a", "Subject: s", "X: 1", "X: 1", "To:\r\n folded"), 1},
		"moved":          {header("To:\r\n folded", "Received: a", "Subject: s", "X: 1", "x: 2", "X: 1"), 2},
		"all gone":       {header(), 6},
	} {
		edits, err := differences(was, c.is, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(edits) != c.edits {
			t.Errorf("%s: %d edits", name, len(edits))
		}
		got := apply(t, was, edits)
		if g, w := names(got), names(c.is); g != w {
			t.Errorf("%s: got\n%s\nwant\n%s", name, g, w)
		}
	}
	edits, err := differences(was, header("Received: a", "X-Postern-Unscanned: no", "Subject: s", "X: 1", "x: 2", "X: 1", "To:\r\n folded", "New: n"), nil)
	if err != nil || len(edits) != 1 {
		t.Errorf("a field of ours was taken over: %+v, %v", edits, err)
	}
}

// names lists fields, with what does not matter to anybody made alike.
func names(h mail.Header) string {
	var b strings.Builder
	for _, f := range h.Fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value())
	}
	return b.String()
}

// Whatever two headers are like, the edits make one of the other.
func TestDifferencesOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	any := func() mail.Header {
		lines := make([]string, 1+r.IntN(12))
		for i := range lines {
			lines[i] = []string{"A", "a", "B", "C", "Subject"}[r.IntN(5)] + ": " + []string{"", "1", "2", "x\r\n y", "\xff"}[r.IntN(5)]
		}
		return header(lines...)
	}
	for range 5_000 {
		was, is := any(), any()
		edits, err := differences(was, is, nil)
		if err != nil {
			t.Fatal(err)
		}
		if g, w := names(apply(t, was, edits)), names(is); g != w {
			t.Fatalf("from\n%s\ngot\n%s\nwant\n%s", names(was), g, w)
		}
	}
}

// Fields that were hidden from the filter, and which the gateway removes, neither stand for what it
// has put in nor move it.
func TestDifferencesBesideHidden(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5_000 {
		var was, is []string
		for i := range r.IntN(12) {
			switch r.IntN(4) {
			case 0:
				was = append(was, "X-Spam: yes")
			case 1:
				is = append(is, "X-Spam: yes")
			case 2:
				was = append(was, "Removed: 1")
			case 3:
				line := fmt.Sprintf("Kept-%d: 1", i)
				was, is = append(was, line), append(is, line)
			}
		}
		hidden := func(f mail.Field) bool { return f.Name == "X-Spam" }
		edits, err := differences(header(was...), header(is...), hidden)
		if err != nil {
			t.Fatal(err)
		}
		marked := header(strings.Split(strings.ReplaceAll(strings.Join(was, "|"), "X-Spam: yes", "X-Spam: forged"), "|")...)
		got := apply(t, marked, edits)
		got.RemoveIf(func(f mail.Field) bool { return f.Value() == "forged" })
		if g, w := names(got), names(header(is...)); g != w {
			t.Fatalf("from\n%q\ngot\n%s\nwant\n%s", was, g, w)
		}
	}
}

// No order of the fields takes long: these are so many that n² steps would not end in the time
// of a test.
func TestDifferencesLinear(t *testing.T) {
	const n = 300_000
	var was, is []string
	for i := range n {
		was = append(was, fmt.Sprintf("A:%d", i))
		is = append(is, fmt.Sprintf("A:%d", i*7919%n))
	}
	if _, err := differences(header(was...), header(is...), nil); err == nil {
		t.Error("more edits than a verdict may have")
	}
	if _, err := differences(header("A: 1"), header("A: 1", "B: "+strings.Repeat("x", maxValue+1)), nil); err == nil {
		t.Error("a field that is too large")
	}
}

// What a filter makes of a header is what the message gets, but for fields that are ours.
func FuzzDifferences(f *testing.F) {
	f.Add("A: 1\r\nB: 2\r\nA: 1\r\n\r\n", "B: 2\r\nA:1\r\nA : 1\r\n b\r\nX-Postern-Spam: no\r\n\r\n")
	f.Add("A:\r\n\r\n", "A:\r\n \r\nB: \xff\r\n\tx")
	// Listeners take nothing but whole line ends, and no NUL.
	onWire := func(s string) []byte {
		return []byte(strings.ReplaceAll(strings.NewReplacer("\r", "", "\x00", "").Replace(s), "\n", "\r\n"))
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		was, _ := mail.SplitMessage(onWire(a))
		is, _ := mail.SplitMessage(onWire(b))
		edits, err := differences(was, is, nil)
		if err == errTooDifferent && len(a)+len(b) > maxName {
			return
		}
		got := was
		if err == nil {
			err = sdktest.Apply(&sdk.Verdict{Edits: edits}, &got)
		}
		want := is
		want.RemoveIf(func(f mail.Field) bool { return ours(f) && !was.Has(f.Name) })
		if err != nil || names(got) != names(want) {
			t.Fatalf("%q with edits for %q is %q: %v", a, b, got.Block(), err)
		}
	})
}
