package managesieve

import (
	"bufio"
	"strconv"
	"strings"
	"unicode/utf8"
)

// reply is how a command ends. Without a word, it has been answered, or nobody is there.
type reply struct {
	word string // OK, NO or BYE
	code string // response code, in the form of the protocol; "": none
	text string
	last bool // the session ends with it
}

func ok(text string) reply            { return reply{word: "OK", text: text} }
func no(text string) reply            { return reply{word: "NO", text: text} }
func noCode(code, text string) reply  { return reply{word: "NO", code: code, text: text} }
func goodbye(code, text string) reply { return reply{word: "BYE", code: code, text: text, last: true} }

// writeReply returns the first error of w, also one from before.
func writeReply(w *bufio.Writer, r reply) error {
	w.WriteString(r.word)
	if r.code != "" {
		w.WriteString(" (" + r.code + ")")
	}
	if r.text != "" {
		w.WriteByte(' ')
		w.WriteString(quote(r.text))
	}
	_, err := w.WriteString("\r\n")
	return err
}

// maxQuoted is the longest string between quotes, in octets (RFC 5804 §4).
const maxQuoted = 1024

// quote is a string as the protocol has it: between quotes if it can be, else as a literal.
func quote(s string) string {
	if len(s) > maxQuoted || !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		return "{" + strconv.Itoa(len(s)) + "}\r\n" + s
	}
	if strings.ContainsAny(s, `"\`) {
		s = strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(s)
	}
	return `"` + s + `"`
}

// writeLiteral writes a string of any length and content.
func writeLiteral(w *bufio.Writer, text []byte) {
	w.WriteString("{" + strconv.Itoa(len(text)) + "}\r\n")
	w.Write(text)
}
