package spam

import (
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// edits are those that do not depend on the recipient: the engine has its way.
func edits(v *sdk.Verdict, h mail.Header, r *result) {
	// From the end, so that removing one does not move the others.
	type place struct {
		name  string
		index int
	}
	var places []place
	for _, rm := range r.remove {
		name := strings.ToLower(rm.name)
		count := h.Count(name)
		p := place{name, rm.n - 1}
		if rm.n < 0 {
			p.index = count + rm.n
		}
		if p.index < count && (p.index >= 0 || rm.n == 0) && !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return b.index - a.index })
	for _, p := range places {
		v.RemoveHeader(p.index, p.name)
	}
	for _, f := range r.add {
		if f.atEnd {
			v.InsertHeader(-1, f.name, f.value)
		} else {
			v.AddHeader(f.name, f.value)
		}
	}
}

// tell adds the fields that say what was found. Only limits them to some recipients; nil:
// all have them.
func tell(v *sdk.Verdict, r *result, spam bool, required float64, only []int) {
	add := func(name, value string) {
		v.AddHeader(name, value)
		if only != nil {
			v.Only(only...)
		}
	}
	word := "No"
	if spam {
		word = "Yes"
	}
	// Each goes to the top: they stand in the other order.
	add("X-Spam-Status", status(word, r, required))
	if stars := int(min(r.score, 50)); stars > 0 {
		add("X-Spam-Level", strings.Repeat("*", stars))
	}
	add("X-Spam-Score", decimal(r.score))
}

// flag marks spam. Of several subjects none stays but the one that marks it: readers show the
// first or the last.
func flag(v *sdk.Verdict, h mail.Header, r *result, only []int) {
	limit := func() {
		if only != nil {
			v.Only(only...)
		}
	}
	v.AddHeader("X-Spam-Flag", "YES")
	limit()
	if r.action != rewriteSubject || r.subject == "" {
		return
	}
	if h.Count("Subject") <= 1 {
		v.ChangeHeader(0, "Subject", encodeSubject(r.subject))
		limit()
		return
	}
	v.RemoveHeader(-1, "Subject")
	limit()
	v.InsertHeader(-1, "Subject", encodeSubject(r.subject))
	limit()
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

// lineLength is where lines of header fields are folded (RFC 5322 §2.1.1).
const lineLength = 76

// status is the value of X-Spam-Status, in the form of SpamAssassin.
func status(word string, r *result, required float64) string {
	var b strings.Builder
	b.WriteString(word + ", score=" + decimal(r.score) + " required=" + decimal(required))
	b.WriteString("\r\n\ttests=")
	at := len("\ttests=")
	if len(r.symbols) == 0 {
		b.WriteString("none")
	}
	for i, s := range r.symbols {
		if i > 0 {
			b.WriteByte(',')
			at++
		}
		if at+len(s) > lineLength && i > 0 {
			b.WriteString("\r\n\t")
			at = 1
		}
		b.WriteString(s)
		at += len(s)
	}
	return b.String()
}

// maxSubject is the length of a rewritten subject, in bytes, and maxWord that of a word that is
// not cut: an encoded-word has at most 75 (RFC 2047 §2).
const (
	maxSubject = 900
	maxWord    = 80
)

// encodeSubject makes text the value of a Subject field: encoded where it has to be
// (RFC 2047), folded between words.
func encodeSubject(s string) string {
	s = oneLine(s)
	if len(s) > maxSubject {
		s = strings.ToValidUTF8(s[:maxSubject], "")
		if i := strings.LastIndexByte(s, ' '); i > len(s)-maxWord {
			s = s[:i]
		}
	}
	encoded := mime.QEncoding.Encode("utf-8", s)
	var b strings.Builder
	at := len("Subject: ")
	for i, w := range strings.Split(encoded, " ") {
		switch {
		case i > 0 && at+len(w) > lineLength && w != "":
			b.WriteString("\r\n ")
			at = 1
		case i > 0:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(w)
		at += len(w)
	}
	return strings.TrimSpace(b.String())
}

// oneLine makes control characters spaces.
func oneLine(s string) string { return printable(s, "") }

// printable makes control characters spaces, but for those that may stay, and of bytes that are
// no UTF-8 question marks.
func printable(s, stay string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' || r >= 0x7f && r < 0xa0) && !strings.ContainsRune(stay, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cleanValue makes the value of a field that an engine wants to add that of one valid field:
// engines fold with LF, and have lines of any length.
func cleanValue(name, s string) string {
	s = printable(s[:min(len(s), maxFieldLen)], "\t\r\n")
	return mail.FoldValue(name, strings.TrimSpace(s))
}
