package dkimsig

import (
	"crypto"
	"encoding/base64"
	"strings"
)

// lineLength is where lines are folded, in bytes.
const lineLength = 76

// SignField makes the value of a signature's field. The tags are all but b=; digest is the
// hash of what is signed, given the field with an empty b= at its end.
func SignField(name string, tags Tags, key crypto.Signer, digest func(own []byte) []byte) (string, error) {
	value := format(name, tags) + ";\r\n\tb="
	sum, err := Sign(key, digest([]byte(name+": "+value+"\r\n")))
	if err != nil {
		return "", err
	}
	text := base64.StdEncoding.EncodeToString(sum)
	for room := lineLength - len("\tb="); ; room = lineLength - len("\t ") {
		n := min(room, len(text))
		value += text[:n]
		if text = text[n:]; text == "" {
			return value, nil
		}
		value += "\r\n\t "
	}
}

// format writes a tag list, folded between tags and between the names of h=.
func format(name string, tags Tags) string {
	var b strings.Builder
	col := len(name) + len(": ")
	put := func(s string) {
		if col+len(s) > lineLength {
			s = "\r\n\t" + strings.TrimLeft(s, " ")
			col = -len("\r\n\t") + len("\t")
		}
		b.WriteString(s)
		col += len(s)
	}
	for i, t := range tags {
		lead := " "
		if i == 0 {
			lead = ""
		} else {
			b.WriteByte(';')
			col++
		}
		if t.Name != "h" {
			put(lead + t.Name + "=" + t.Value)
			continue
		}
		for j, field := range strings.SplitAfter(t.Value, ":") {
			if j == 0 {
				field = lead + "h=" + field
			}
			put(field)
		}
	}
	return b.String()
}
