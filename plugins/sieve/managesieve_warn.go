package sieve

import (
	"fmt"
	"strings"

	"github.com/postern-mail/postern/plugins/sieve/engine"
)

// warningsOf says, line by line, what a script without fault may not have been meant to do.
func warningsOf(text []byte, limits engine.Limits) string {
	tree, err := engine.Parse(text, limits)
	if err != nil {
		return ""
	}
	w := &warner{redirects: limits.Redirects}
	w.block(tree.Commands, 0)
	return strings.Join(w.lines, "\n")
}

// maxWarnings are enough.
const maxWarnings = 10

// warner looks through a script.
type warner struct {
	redirects int // that one run may do; 0: not known
	warned    bool
	lines     []string
}

func (w *warner) warn(line int, format string, args ...any) {
	if len(w.lines) < maxWarnings {
		w.lines = append(w.lines, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, args...))
	}
}

// block looks through commands that n redirects may have come before, and returns how many
// may come before what follows; -1 if the script does not go on behind it.
func (w *warner) block(nodes []*engine.Node, n int) int {
	var before, most int // before and after the parts of a conditional
	for i, c := range nodes {
		switch strings.ToLower(c.Name) {
		case "if":
			before, most = n, max(n, w.block(c.Block, n))
		case "elsif", "else":
			most = max(most, w.block(c.Block, before))
		case "redirect":
			if n++; w.redirects > 0 && n > w.redirects && !w.warned {
				w.warned = true
				w.warn(c.Line, "one run may do %d redirects: this may be one too many, which ends the script as an error does", w.redirects)
			}
			continue
		case "stop", "return":
			if i+1 < len(nodes) {
				w.warn(nodes[i+1].Line, "this is never reached, after '%s' in line %d", strings.ToLower(c.Name), c.Line)
			}
			return -1
		default:
			n = max(n, w.block(c.Block, n)) // foreverypart
			continue
		}
		if n = before; i+1 == len(nodes) || !continues(nodes[i+1]) {
			n = most
		}
	}
	return n
}

// continues reports whether a command belongs to the conditional before it.
func continues(c *engine.Node) bool {
	return strings.EqualFold(c.Name, "elsif") || strings.EqualFold(c.Name, "else")
}
