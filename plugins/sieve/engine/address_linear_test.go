package engine

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// H-02, M-04: a list of addresses as large as a header may be takes its length, whatever it looks like. What
// costs its square looks at 10^12 bytes here; the limit is on the time that the process itself has used.
func TestH02AddressesLinear(t *testing.T) {
	const size = 4 << 20 // four times the largest header
	for name, part := range map[string]string{
		"addresses": "a@b.c,", "comments": "(c) a@b.c (d),", "open comments": "((((", "comments in comments": "()(", "literals without an end": "a@[,",
		"routes without an end": "<@,", "angles": "<", "angles in angles": "<a<", "quotes": "\"a\" ", "escapes": "\\\\\"", "groups": "g:", "ends of groups": "g:;",
		"words": "word ", "atoms": "a", "dots": "a.", "ats": "@", "domains": "@a.", "commas": ",", "encoded words": "=?utf-8?q?a?= ",
	} {
		s := strings.Repeat(part, size/len(part))
		begun := used(t)
		for _, whole := range []string{s, "a@[" + s + "]", "Ann " + s + " <a@b.c>", "a@b.c " + s} {
			parseAddresses(whole)
		}
		if d := used(t) - begun; d > 10*time.Second { // half a second if linear
			t.Errorf("%s: %v", name, d)
		}
	}
	long := strings.Repeat("x", 1<<20)
	for from, want := range map[string]string{
		"a@[" + long + "]": "a@[" + long + "]",
		long + " <a@b.c>":  "a@b.c",
		"<@, a@b.c":        "a@b.c",
	} {
		list := parseAddresses(from)
		if got := list[len(list)-1]; got.full != want || got.invalid {
			t.Errorf("%.20q: %d, the last is %.20q", from, len(list), got.full)
		}
	}
}

// used is what the process has used of the CPU, whatever else the machine does.
func used(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
