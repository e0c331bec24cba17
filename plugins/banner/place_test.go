package banner

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// Large pages, in the shapes that parsers like least, take no time to speak
// of (M-11).
func TestM11HTML(t *testing.T) {
	for _, shape := range []string{"<", "<a ", "</body>", "<!--", "-->", "<!", "</", "<![CDATA[", "<script>", "<script><!--", "<a b='", "<a b=c ", "&", "<body>", "<title>", "<svg>", "x", "<?", "<textarea>"} {
		page := []byte("<body>" + strings.Repeat(shape, maxPart/4/len(shape)))
		var before, after syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		if at := placeHTML(page, false); at < 0 || at > len(page) {
			t.Errorf("%s: at %d", shape, at)
		}
		syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		if d := time.Duration(after.Utime.Nano() - before.Utime.Nano()); d > 5*time.Second {
			t.Errorf("%s: %v", shape, d)
		}
	}
}
