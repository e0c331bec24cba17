package trial

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestDiffLines: as few lines as there are that differ, in order, and in long texts too.
func TestDiffLines(t *testing.T) {
	for range 2000 {
		a, b := someLines(), someLines()
		out := diffLines(a, b)
		if want := len(a) + len(b) - 2*inCommon(a, b); len(out) != want {
			t.Fatalf("%q, %q: %q, want %d lines", a, b, out, want)
		}
		var removed, inserted []string
		for _, l := range out {
			if text, ok := strings.CutPrefix(l, "- "); ok {
				removed = append(removed, text)
			} else {
				inserted = append(inserted, l[2:])
			}
		}
		if inCommon(a, removed) != len(removed) || inCommon(b, inserted) != len(inserted) {
			t.Fatalf("%q, %q: %q", a, b, out)
		}
	}
	long := slices.Repeat([]string{"x", "y"}, 30000)
	other := slices.Clone(long)
	other[0], other[40000], other[59999] = "first", "middle", "last"
	if got := diffLines(long, other); !slices.Equal(got, []string{"- x", "+ first", "- x", "+ middle", "- y", "+ last"}) {
		t.Errorf("%.300q", got)
	}
	if got := diffLines(long, slices.Repeat([]string{"z"}, 5)); len(got) != 60005 {
		t.Errorf("%d lines of nothing in common", len(got))
	}
}

func someLines() []string {
	lines := make([]string, rand.IntN(9))
	for i := range lines {
		lines[i] = string(rune('a' + rand.IntN(3)))
	}
	return lines
}

// inCommon is the length of the longest common subsequence.
func inCommon(a, b []string) int {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	if a[0] == b[0] {
		return 1 + inCommon(a[1:], b[1:])
	}
	return max(inCommon(a[1:], b), inCommon(a, b[1:]))
}
