package trial

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// WriteText writes the result for people.
func (r *Report) WriteText(out io.Writer, name string) error {
	w := &tryWriter{w: bufio.NewWriter(out)}
	w.line("%s: %s: %d %s", name, r.disposition(), r.reply.Code, r.reply.Text)
	for _, q := range r.asked {
		if q.stage != "" {
			w.question(q)
		}
	}
	for i, a := range r.answers {
		if a.refusal() != "" {
			w.line("  <%s>: %d %s", r.envelope.To[i], a.Code, a.Text)
		}
	}
	r.arrival(w)
	for _, q := range r.asked {
		if q.stage == "" {
			w.question(q)
		}
	}
	if routes := r.routes(); len(routes) > 0 {
		w.line("  routes")
		for _, route := range routes {
			text := fmt.Sprintf("    <%s> %s", route.Recipient, route.Disposition)
			if route.NextHop != "" {
				text += " via " + route.NextHop
			}
			w.line("%s", text)
		}
	}
	return w.w.Flush()
}

// arrival shows what the gateway itself makes of the header.
func (r *Report) arrival(w *tryWriter) {
	var fixed mail.Header
	if i := slices.IndexFunc(r.asked, func(q question) bool { return q.stage == "" }); i >= 0 {
		fixed = r.asked[i].answer.Before.Header
	} else if v, ok := r.result(); ok {
		fixed = v.Header
	} else {
		return
	}
	given, _ := mail.SplitMessage(wireText(r.text))
	w.line("  gateway: %s mail", r.envelope.Origin)
	w.diff(given, fixed)
}

// tryWriter writes lines in which nothing is left that could steer a terminal.
type tryWriter struct{ w *bufio.Writer }

func (w *tryWriter) line(format string, a ...any) {
	w.w.WriteString(terminal.Printable(fmt.Sprintf(format, a...)))
	w.w.WriteByte('\n')
}

// question shows one call of a plugin.
func (w *tryWriter) question(q question) {
	head := fmt.Sprintf("  %s: %s  %.1f ms", q.plugin, q.verdict, q.answer.Millis)
	if q.stage != "" {
		head += "  at " + q.stage
	}
	if q.about != "" {
		head += "  for " + q.about
	}
	w.line("%s", head)
	if q.failure != "" {
		w.line("    why: %s", q.failure)
	}
	v := q.answer.Verdict
	if v == nil {
		w.changes(q)
		return
	}
	w.outcome("", v.Outcome)
	for _, i := range slices.Sorted(maps.Keys(v.PerRecipient)) {
		o := v.PerRecipient[i]
		to := "recipient " + fmt.Sprint(i)
		if i < len(q.answer.Before.Recipients) {
			to = "<" + q.answer.Before.Recipients[i].Path.String() + ">"
		}
		w.outcome(to+": "+o.Action.String()+" ", o)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Scores)) {
		w.line("    score %s = %g", name, v.Scores[name])
	}
	for _, name := range slices.Sorted(maps.Keys(v.Notes)) {
		w.line("    note %s = %s", name, v.Notes[name])
	}
	w.changes(q)
}

func (w *tryWriter) outcome(prefix string, o sdk.Outcome) {
	var parts []string
	if !o.Status.IsZero() {
		parts = append(parts, o.Status.Error())
	}
	if o.Reason != "" && o.Action != sdk.ActionUnscanned {
		parts = append(parts, o.Reason)
	}
	if prefix != "" || len(parts) > 0 {
		w.line("    %s%s", prefix, strings.Join(parts, ": "))
	}
}

// changes shows in what the versions that a plugin made differ from the one it was given.
func (w *tryWriter) changes(q question) {
	a := q.answer
	for i, v := range a.After {
		if len(a.After) > 1 || v.Class != a.Before.Class {
			what := "for"
			if v.Class.IsCopy() && !a.Before.Class.IsCopy() {
				what = "a copy for"
			}
			w.line("    %s %s", what, addressees(v))
		}
		if v.ReversePath != a.Before.ReversePath {
			w.line("    reverse-path <%s> -> <%s>", a.Before.ReversePath, v.ReversePath)
		}
		for _, r := range v.Recipients {
			if r.From < 0 && !v.Class.IsCopy() && !slices.Contains(a.Before.Recipients, r) {
				w.line("    + recipient <%s>", r.Path)
			}
		}
		w.diff(a.Before.Header, v.Header)
		if rewritten(a.Before, v) {
			w.line("    body: %d -> %d bytes", a.Before.Body.Size, v.Body.Size)
			w.lines(q.bodies[i])
		}
	}
}

// diff shows the lines of a header that are not in the other.
func (w *tryWriter) diff(before, after mail.Header) {
	w.lines(diffLines(headerLines(before), headerLines(after)))
}

func (w *tryWriter) lines(lines []string) {
	for _, l := range lines {
		w.line("    %s", strings.ReplaceAll(l, "\t", "    "))
	}
}

// maxBody is the size up to which bodies are compared, and maxBodyLines how many lines of the
// difference are shown.
const (
	maxBody      = 1 << 20
	maxBodyLines = 1000
)

// diffBodies shows the lines of a body that are not in the other; nothing of large ones.
func diffBodies(before, after mail.Body) []string {
	a, okBefore := bodyLines(before)
	b, okAfter := bodyLines(after)
	if !okBefore || !okAfter {
		return nil
	}
	lines := diffLines(a, b)
	if n := len(lines) - maxBodyLines; n > 0 {
		lines = append(lines[:maxBodyLines], fmt.Sprintf("… and %d lines more", n))
	}
	return lines
}

// bodyLines is a body line by line. A last line without an end is not the line with one.
func bodyLines(b mail.Body) ([]string, bool) {
	if b.Size > maxBody {
		return nil, false
	}
	r, err := b.Open()
	if err != nil {
		return nil, false
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, false
	}
	lines := strings.SplitAfter(string(text), "\r\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for i, l := range lines {
		var ended bool
		if lines[i], ended = strings.CutSuffix(l, "\r\n"); !ended {
			lines[i] += " (no end of line)"
		}
	}
	return lines, true
}

func headerLines(h mail.Header) []string {
	block := strings.TrimSuffix(string(h.Block()), "\r\n")
	if block == "" {
		return nil
	}
	return strings.Split(block, "\r\n")
}

// maxDiff is how many lines may differ for the comparison to look for the least of them; its
// time and memory grow with the square.
const maxDiff = 2000

// diffLines compares two texts line by line: "-" lines are only in a, "+" lines only in b.
// Texts that differ very much are shown as all removed and all added.
func diffLines(a, b []string) []string {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	steps := diffSteps(a, b)
	if steps == nil {
		out := make([]string, 0, len(a)+len(b))
		for _, l := range a {
			out = append(out, "- "+l)
		}
		for _, l := range b {
			out = append(out, "+ "+l)
		}
		return out
	}
	out := make([]string, len(steps)-1) // none is for no difference
	x, y := len(a), len(b)
	for d := len(out); d > 0; d-- {
		before := steps[d-1]
		k := x - y
		if added(before, k, d) {
			x = int(before[k+d])
			y = x - k - 1
			out[d-1] = "+ " + b[y]
		} else {
			x = int(before[k+d-2])
			y = x - k + 1
			out[d-1] = "- " + a[x]
		}
	}
	return out
}

// diffSteps is how far one gets into a with 0, 1, 2, ... differences, for each k: lines of a
// less lines of b, from -d to d (Myers, An O(ND) Difference Algorithm, 1986). Nil: there are
// more than maxDiff.
func diffSteps(a, b []string) (steps [][]int32) {
	for d := 0; d <= maxDiff; d++ {
		row := make([]int32, 2*d+1)
		steps = append(steps, row)
		for k := -d; k <= d; k += 2 {
			x := 0
			if d > 0 {
				if before := steps[d-1]; added(before, k, d) {
					x = int(before[k+d])
				} else {
					x = int(before[k+d-2]) + 1
				}
			}
			for x < len(a) && x-k < len(b) && a[x] == b[x-k] {
				x++
			}
			row[k+d] = int32(x)
			if x >= len(a) && x-k >= len(b) {
				return steps
			}
		}
	}
	return nil
}

// added reports whether the last of d differences that lead to k is a line of b.
func added(before []int32, k, d int) bool {
	return k == -d || k != d && before[k+d-2] < before[k+d]
}
