package mail

import (
	"strings"
	"unicode/utf8"
)

// maxFieldLine is how long a line of a header may be, in octets (RFC 5322 §2.1.1).
const maxFieldLine = 998

// FoldValue makes text the value of the field called name, so that [FormatField] takes it: line
// ends of whatever kind become folding, CRLF and white space, so that the text can neither begin
// another field nor end the header; lines that are too long are folded too, at white space if
// there is some; NUL is left out. All else stays: what is not ASCII, or is another control
// character, is for the caller to encode.
func FoldValue(name, text string) string {
	text = strings.NewReplacer("\x00", "", "\r\n", "\n", "\r", "\n").Replace(text)
	var b strings.Builder
	b.Grow(len(text) + 16)
	room := maxFieldLine - len(name) - len(": ")
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			if strings.Trim(line, " \t") == "" { // a line of nothing but white space looks like the end
				continue
			}
			if line[0] != ' ' && line[0] != '\t' {
				line = "\t" + line
			}
			b.WriteString("\r\n")
			room = maxFieldLine
		}
		room = foldLine(&b, line, max(room, 1))
	}
	return b.String()
}

// foldLine writes a line, broken where it is too long. It returns how much room the next line
// has.
func foldLine(b *strings.Builder, line string, room int) int {
	if len(line) > room {
		line = squeeze(line)
	}
	for len(line) > room {
		cut := strings.LastIndexAny(line[:room+1], " \t")
		if cut <= 0 || strings.Trim(line[:cut], " \t") == "" || strings.Trim(line[cut:], " \t") == "" {
			for cut = room; cut > room-utf8.UTFMax && cut > 1 && !utf8.RuneStart(line[cut]); cut-- {
			}
		}
		b.WriteString(line[:cut])
		b.WriteString("\r\n")
		line = line[cut:]
		if line[0] != ' ' && line[0] != '\t' {
			line = " " + line
		}
		room = maxFieldLine
	}
	b.WriteString(line)
	return room
}

// squeeze shortens what no fold should leave alone on a line: much white space.
func squeeze(line string) string {
	const much = 100
	var b strings.Builder
	blanks := 0
	for i := 0; i < len(line); i++ {
		if line[i] != ' ' && line[i] != '\t' {
			blanks = 0
		} else if blanks++; blanks > much {
			continue
		}
		b.WriteByte(line[i])
	}
	return strings.TrimRight(b.String(), " \t")
}
