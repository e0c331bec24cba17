package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the file.
type Problem struct {
	File string
	Line int    // 0: not about a line
	Key  string // like "listener[0].address"; may be empty
	Text string // what is wrong and what to do
}

// String is "FILE:LINE: KEY: TEXT", without the parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is everything that is wrong, in the order of the file. It is an error.
type Problems []Problem

// Error has one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxProblems is how many problems are shown: nobody reads more at once. The decoder and
// the validator each stop collecting there.
const maxProblems = 200

// sorted returns ps in the order of the file, only the first problem of each key and not
// too many; nil if there is none.
func (ps Problems) sorted() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	full := len(ps) >= maxProblems
	seen := make(map[string]bool)
	ps = slices.DeleteFunc(ps, func(p Problem) bool {
		if p.Key == "" {
			return false
		}
		dup := seen[p.Key]
		seen[p.Key] = true
		return dup
	})
	if full {
		ps = append(ps[:min(len(ps), maxProblems)], Problem{File: ps[0].File, Text: "and perhaps more problems"})
	}
	return ps
}
