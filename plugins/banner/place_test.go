package banner

import (
	"strings"
	"testing"
)

// Large pages, in the shapes that parsers like least: n² steps would not end in the time of a
// test (M-11).
func TestM11HTML(t *testing.T) {
	for _, shape := range []string{"<", "<a ", "</body>", "<!--", "-->", "<!", "</", "<![CDATA[", "<script>", "<script><!--", "<a b='", "<a b=c ", "&", "<body>", "<title>", "<svg>", "x", "<?", "<textarea>"} {
		page := []byte("<body>" + strings.Repeat(shape, maxPart/len(shape)))
		if at := placeHTML(page, false); at < 0 || at > len(page) {
			t.Errorf("%s: at %d", shape, at)
		}
	}
}
