package draft

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// TestS15 (new bodies): whatever the pieces in which it is read, only the wire form passes,
// and passes unchanged.
func TestS15StrictReader(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", ".", "\r\n", "\r\n", "\r\n", "\r", "\n", "\x00", strings.Repeat("x", 100)}
	passed := 0
	for range 20_000 {
		var s string
		for range rnd.IntN(12) {
			s += alphabet[rnd.IntN(len(alphabet))*rnd.IntN(2)] // mostly harmless
		}
		passed += strictly(t, s)
	}
	if passed < 1000 || passed > 19_000 {
		t.Errorf("%d of 20,000 are in wire form: the test looks at one side only", passed)
	}
	for n, want := range map[int64]error{2: errBodySize, 3: nil, 4: nil} {
		if _, err := io.ReadAll(NewReader(strings.NewReader("abc"), n)); !errors.Is(err, want) {
			t.Errorf("3 bytes, limit %d: %v", n, err)
		}
	}
}

func strictly(t *testing.T, s string) int {
	t.Helper()
	n := strings.Count(s, "\r\n")
	ok := strings.Count(s, "\r") == n && strings.Count(s, "\n") == n && !strings.Contains(s, "\x00")
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(s), "bytes": iotest.OneByteReader(strings.NewReader(s)), "halves": iotest.HalfReader(strings.NewReader(s)), "data with EOF": iotest.DataErrReader(strings.NewReader(s))} {
		got, err := io.ReadAll(NewReader(r, 1<<20))
		if (err == nil) != ok || ok && string(got) != s {
			t.Fatalf("%q, %s: %q, %v", s, name, got, err)
		}
	}
	if ok {
		return 1
	}
	return 0
}

func FuzzStrictReader(f *testing.F) {
	for _, s := range []string{"", "a\r\n", "\r", "\n", "\r\n\r\n", "a\r\r\n", "\r\n\n", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { strictly(t, s) })
}
