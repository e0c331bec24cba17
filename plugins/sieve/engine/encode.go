package engine

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// encodeWords writes text as encoded words of 75 characters at most, one a line (RFC 2047 §2).
func encodeWords(s string) string {
	const room = 45 // bytes that make 60 characters of base64
	var words []string
	for len(s) > 0 {
		n := min(room, len(s))
		for n < len(s) && n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		words = append(words, "=?utf-8?B?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, "\r\n ")
}

// fold breaks text at its blanks into lines (RFC 5322 §2.2.3); used is what the first line has already.
func fold(s string, used int) string {
	if used+len(s) <= headerLine {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		room := max(1, headerLine-used)
		n := len(s)
		if n > room {
			if n = strings.LastIndexAny(s[:room+1], " \t"); n <= 0 {
				if n = strings.IndexAny(s[1:], " \t") + 1; n <= 0 {
					n = len(s)
				}
			}
		}
		b.WriteString(s[:n])
		if s = s[n:]; strings.TrimLeft(s, " \t") == "" {
			break
		}
		b.WriteString("\r\n") // the blank at the start of the rest continues the field
		used = 0
	}
	return b.String()
}
