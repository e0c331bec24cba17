package mime

import (
	"encoding/base64"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// Charset returns the encoding of that name (RFC 2978); nil if it is not known. An empty
// name stands for US-ASCII, which is read as the superset that mail programs take for it.
func Charset(name string) encoding.Encoding {
	name = strings.ToLower(strings.Trim(name, " \t\"'"))
	if name == "" || name == "us-ascii" {
		name = "windows-1252"
	}
	if len(name) > 40 {
		return nil
	}
	if e, err := htmlindex.Get(name); err == nil {
		if n, _ := htmlindex.Name(e); n == "replacement" { // stateful ones that browsers refuse
			return nil
		}
		return e
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil {
		return e // nil if it has a name only
	}
	return nil
}

// inCharset decodes s; one that is not known leaves it as it is.
func inCharset(s, charset string) string {
	if charset == "" {
		return s
	}
	e := Charset(charset)
	if e == nil {
		return s
	}
	if out, err := e.NewDecoder().String(s); err == nil {
		return out
	}
	return s
}

// DecodeWords decodes the encoded-words in s (RFC 2047), also where they stand in quoted
// strings, within words or hold spaces. What is none stays as it is. It reports whether a
// charset is not known; such a word's bytes are kept.
func DecodeWords(s string) (text string, unknown bool) {
	var out strings.Builder
	var pending []byte // of adjacent words of one charset, which may share a character
	charset := ""
	flush := func() {
		if len(pending) > 0 {
			unknown = unknown || Charset(charset) == nil
			out.WriteString(toUTF8(inCharset(string(pending), charset)))
			pending = pending[:0]
		}
	}
	for s != "" {
		i := strings.Index(s, "=?")
		if i < 0 {
			break
		}
		cs, raw, rest, ok := cutWord(s[i:])
		if !ok {
			flush()
			out.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		// White space between encoded-words is not shown (RFC 2047 §6.2).
		if between := s[:i]; len(pending) == 0 || strings.Trim(between, " \t\r\n") != "" {
			flush()
			out.WriteString(between)
		}
		if !strings.EqualFold(cs, charset) {
			flush()
			charset = cs
		}
		pending = append(pending, raw...)
		s = rest
	}
	flush()
	out.WriteString(s)
	return out.String(), unknown
}

// cutWord reads the encoded-word at the start of s.
func cutWord(s string) (charset string, raw []byte, rest string, ok bool) {
	// Bounded, so that "=?=?=?..." takes linear time: a name of a charset is short.
	head := s[2:min(len(s), 2+80)]
	q := strings.IndexByte(head, '?')
	if q < 0 || q+2 >= len(head) || head[q+2] != '?' {
		return "", nil, "", false
	}
	charset, _, _ = strings.Cut(head[:q], "*") // RFC 2231 §5: a language
	body := s[2+q+3:]
	// A word does not hold the beginning of another one; to look no further than that is
	// what makes this linear.
	if next := strings.Index(body, "=?"); next >= 0 {
		end := next + 1
		if strings.HasPrefix(body[next+2:], "=") { // base64's padding, and the end
			end += 2
		}
		body = body[:end]
	}
	end := strings.Index(body, "?=")
	if end < 0 {
		return "", nil, "", false
	}
	switch head[q+1] | 0x20 {
	case 'b':
		raw = looseBase64(body[:end])
	case 'q':
		raw = decodeQ(body[:end])
	default:
		return "", nil, "", false
	}
	return charset, raw, s[2+q+3+end+2:], true
}

func looseBase64(s string) []byte {
	s = strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '=' {
			return -1
		}
		return r
	}, s)
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(s)))
	n, _ := base64.RawStdEncoding.Decode(out, []byte(s)) // up to the first fault
	return out[:n]
}

func decodeQ(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '_':
			out = append(out, ' ')
		case c == '=' && i+2 < len(s):
			if v, ok := hexByte(s[i+1], s[i+2]); ok {
				out = append(out, v)
				i += 2
				continue
			}
			out = append(out, c)
		default:
			out = append(out, c)
		}
	}
	return out
}
