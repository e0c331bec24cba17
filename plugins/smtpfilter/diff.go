package smtpfilter

import (
	"errors"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Limits of the gateway for one verdict.
const (
	maxEdits = 1000
	maxName  = 255
	maxValue = 64 << 10
)

var errTooDifferent = errors.New("the content filter has changed the header beyond what can be taken over")

// differences are the edits that make the fields of one header those of another. Fields that
// are in both, in the same order, are left alone to the byte; those of the first that are hidden
// (nil: none) are nobody's, and stay for the gateway to remove. It takes n log n steps for n fields.
func differences(from, to mail.Header, hidden func(mail.Field) bool) ([]sdk.Edit, error) {
	was, is := fields(from), fields(to)
	shown, hides := slices.Clone(was), make([]bool, len(was))
	for i, f := range was {
		if hidden != nil && hidden(f) {
			shown[i], hides[i] = mail.Field{}, true // which equals no other
		}
	}
	kept, place := common(shown, is)
	var edits []sdk.Edit
	// From the bottom up, what is removed does not move what is to be removed.
	nth := make(map[string]int)
	number := make([]int, len(was)) // among the fields of the same name
	for i, f := range was {
		name := strings.ToLower(f.Name)
		number[i] = nth[name]
		nth[name]++
	}
	for i := len(was) - 1; i >= 0; i-- {
		if !kept[i] && !hides[i] {
			edits = append(edits, sdk.Edit{Kind: sdk.HeaderRemove, Name: was[i].Name, Index: number[i]})
		}
	}
	// From the top down, what is inserted stays where it is.
	at, next := 0, 0 // next: of the first header
	for i, f := range is {
		switch {
		case place[i] >= 0:
			for ; next <= place[i]; next++ {
				if kept[next] || hides[next] {
					at++
				}
			}
		case ours(f): // only the gateway may say that
		default:
			value := value(f)
			if len(f.Name) > maxName || len(value) > maxValue {
				return nil, errTooDifferent
			}
			edits = append(edits, sdk.Edit{Kind: sdk.HeaderInsert, Name: f.Name, Value: value, Index: at})
			at++
		}
	}
	if len(edits) > maxEdits {
		return nil, errTooDifferent
	}
	return edits, nil
}

func fields(h mail.Header) []mail.Field {
	var all []mail.Field
	for _, f := range h.Fields {
		all = append(all, f)
	}
	return all
}

// ours reports whether only the gateway may say what a field says.
func ours(f mail.Field) bool {
	return len(f.Name) > 10 && strings.EqualFold(f.Name[:10], "X-Postern-")
}

// value is what stands after the colon, folded as it is.
func value(f mail.Field) string {
	_, v, _ := strings.Cut(string(f.Raw()), ":")
	return strings.TrimLeft(strings.TrimRight(v, "\r\n"), " \t")
}

// common finds a long series of fields that is in both headers in the same order: what they
// begin and end with, and between that a longest one in which the n-th of equal fields stands
// for the n-th. kept says which of was are in it, and place where each of is stands in was,
// -1 for those that are not in it.
func common(was, is []mail.Field) (kept []bool, place []int) {
	same := func(i, j int) bool { return string(was[i].Raw()) == string(is[j].Raw()) }
	top, end := 0, 0
	for top < min(len(was), len(is)) && same(top, top) {
		top++
	}
	for end < min(len(was), len(is))-top && same(len(was)-1-end, len(is)-1-end) {
		end++
	}
	where := make(map[string][]int)
	for i, f := range was[top : len(was)-end] {
		where[string(f.Raw())] = append(where[string(f.Raw())], top+i)
	}
	place = make([]int, len(is))
	for i, f := range is {
		switch free := where[string(f.Raw())]; {
		case i < top:
			place[i] = i
		case i >= len(is)-end:
			place[i] = i + len(was) - len(is)
		case len(free) > 0:
			place[i], where[string(f.Raw())] = free[0], free[1:]
		default:
			place[i] = -1
		}
	}
	// The longest increasing subsequence of place, by patience sorting.
	var tails []int // tails[n] is the end, in is, of the best series of n+1 fields
	before := make([]int, len(is))
	for i, at := range place {
		if at < 0 {
			continue
		}
		n, _ := slices.BinarySearchFunc(tails, at, func(t, at int) int { return place[t] - at })
		before[i] = -1
		if n > 0 {
			before[i] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, i)
		} else {
			tails[n] = i
		}
	}
	kept = make([]bool, len(was))
	in := make([]bool, len(is))
	if len(tails) > 0 {
		for i := tails[len(tails)-1]; i >= 0; i = before[i] {
			kept[place[i]], in[i] = true, true
		}
	}
	for i := range place {
		if !in[i] {
			place[i] = -1
		}
	}
	return kept, place
}
