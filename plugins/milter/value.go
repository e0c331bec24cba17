package milter

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/sdk/mail"
)

// toMilter is the value of a field as milters take it: folded with bare LFs, and with the
// white space after the colon only if that was agreed on (SMFIP_HDR_LEADSPC).
func toMilter(f mail.Field, leading bool) string {
	raw := f.Raw()
	if i := bytes.IndexByte(raw, ':'); i >= 0 {
		raw = raw[i+1:]
	}
	raw = bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	if !leading {
		raw = bytes.TrimLeft(raw, " \t")
	}
	return text(strings.ReplaceAll(string(raw), "\r\n", "\n"))
}

// maxLine is how long a line of a message may be, in octets (RFC 5322 §2.1.1).
const maxLine = 998

// fromMilter is the value of a field that a milter made, as a message has it: folded with
// CRLF and white space whatever the milter wrote, so that it cannot begin another field or
// end the header, and without lines that are too long.
func fromMilter(name, value string, leading bool) string {
	if leading { // the gateway writes that space itself
		value = strings.TrimPrefix(value, " ")
	}
	value = strings.ReplaceAll(strings.ReplaceAll(text(value), "\r\n", "\n"), "\r", "\n")
	var b strings.Builder
	b.Grow(len(value) + 16)
	room := maxLine - len(name) - 2
	for i, line := range strings.Split(value, "\n") {
		if i > 0 {
			if strings.Trim(line, " \t") == "" { // a line of nothing but white space looks like the end
				continue
			}
			if line[0] != ' ' && line[0] != '\t' {
				line = "\t" + line
			}
			b.WriteString("\r\n")
			room = maxLine
		}
		room = fold(&b, line, max(room, 1))
	}
	return b.String()
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

// fold writes a line, broken where it is too long: before white space if there is some.
func fold(b *strings.Builder, line string, room int) int {
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
		room = maxLine
	}
	b.WriteString(line)
	return room
}
