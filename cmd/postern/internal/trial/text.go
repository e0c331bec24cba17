package trial

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/pipeline"
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
		w.changes(q.answer)
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
	w.changes(q.answer)
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
func (w *tryWriter) changes(a pipeline.Answer) {
	for _, v := range a.After {
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
		}
	}
}

// diff shows the lines of a header that are not in the other.
func (w *tryWriter) diff(before, after mail.Header) {
	for _, l := range diffLines(headerLines(before), headerLines(after)) {
		w.line("    %s", strings.ReplaceAll(l, "\t", "    "))
	}
}

func headerLines(h mail.Header) []string {
	block := strings.TrimSuffix(string(h.Block()), "\r\n")
	if block == "" {
		return nil
	}
	return strings.Split(block, "\r\n")
}

// maxDiff bounds the work of a comparison: lines that differ times lines that differ.
const maxDiff = 4 << 20

// diffLines compares two texts line by line: "-" lines are only in a, "+" lines only in b.
// Texts that differ very much are shown as all removed and all added.
func diffLines(a, b []string) []string {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	var out []string
	if len(a)*len(b) > maxDiff {
		for _, l := range a {
			out = append(out, "- "+l)
		}
		for _, l := range b {
			out = append(out, "+ "+l)
		}
		return out
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out, i = append(out, "- "+a[i]), i+1
		default:
			out, j = append(out, "+ "+b[j]), j+1
		}
	}
	return out
}
