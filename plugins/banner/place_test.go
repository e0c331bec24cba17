package banner

import (
	"strings"
	"testing"
	"time"
)

// Pages of the largest size, in the shapes that parsers like least, take no time to speak
// of (M-11).
func TestM11HTML(t *testing.T) {
	for _, shape := range []string{"<", "<a ", "</body>", "<!--", "-->", "<!", "</", "<![CDATA[", "<script>", "<script><!--", "<a b='", "<a b=c ", "&", "<body>", "<title>", "<svg>", "x", "<?", "<textarea>"} {
		page := []byte("<body>" + strings.Repeat(shape, maxPart/len(shape)))
		begun := time.Now()
		if at := placeHTML(page, false); at < 0 || at > len(page) {
			t.Errorf("%s: at %d", shape, at)
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("%s: %v", shape, d)
		}
	}
}
