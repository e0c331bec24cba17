package banner

import (
	"bytes"

	"golang.org/x/net/html"
)

// place is where in a decoded content the banner goes, and what goes there.
func (p *Plugin) place(content []byte, isHTML bool) (at int, insert string) {
	if isHTML {
		return placeHTML(content, p.top), p.html
	}
	if p.top {
		if bytes.HasPrefix(content, []byte("\xef\xbb\xbf")) {
			at = 3
		}
		return at, p.text + "\r\n"
	}
	insert = "\r\n" + p.text
	if n := len(content); n > 0 && !bytes.HasSuffix(content, []byte("\r\n")) {
		// The last line has no end, and so it stays.
		insert = "\r\n" + insert[:len(insert)-2]
	}
	return len(content), insert
}

// placeHTML finds the start of what is shown of a document, or its end.
func placeHTML(content []byte, top bool) int {
	z := html.NewTokenizer(bytes.NewReader(content))
	start, rank := 0, 0
	end, closed := len(content), false
	for at := 0; ; {
		t := z.Next()
		if t == html.ErrorToken {
			break
		}
		from := at
		at += len(z.Raw())
		if t != html.StartTagToken && t != html.EndTagToken && t != html.DoctypeToken {
			continue
		}
		name, _ := z.TagName()
		switch tag := string(name); {
		case t == html.DoctypeToken && rank < 1:
			start, rank = at, 1
		case t == html.StartTagToken && tag == "html" && rank < 2:
			start, rank = at, 2
		case t == html.EndTagToken && tag == "head" && rank < 3:
			start, rank = at, 3
		case t == html.StartTagToken && tag == "body" && rank < 4:
			start, rank = at, 4
		case t == html.EndTagToken && tag == "body":
			end, closed = from, true
		case t == html.EndTagToken && tag == "html" && !closed:
			end = from
		}
	}
	if top {
		return start
	}
	return max(end, start)
}

// rawOffset is where in quoted-printable the decoded byte at an offset begins.
func rawOffset(raw []byte, decoded int) int {
	i := 0
	for decoded > 0 && i < len(raw) {
		switch {
		case raw[i] != '=':
			i++
			decoded--
		default:
			j := i + 1
			for j < len(raw) && (raw[j] == ' ' || raw[j] == '\t') {
				j++
			}
			if j+1 < len(raw) && raw[j] == '\r' && raw[j+1] == '\n' { // a soft line break
				i = j + 2
				continue
			}
			i = min(i+3, len(raw))
			decoded--
		}
	}
	return i
}
