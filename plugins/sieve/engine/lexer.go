package engine

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// tokenKind is a kind of token (RFC 5228 §8.1).
type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenIdentifier
	tokenTag
	tokenNumber
	tokenString
	tokenPunctuation // one of ; , { } ( ) [ ]
)

type token struct {
	kind   tokenKind
	line   int
	text   string // identifier and tag (without the colon) as written, value of a string, punctuation
	number int64
}

func (t token) is(punctuation string) bool {
	return t.kind == tokenPunctuation && t.text == punctuation
}

// describe names a token in an error.
func (t token) describe() string {
	switch t.kind {
	case tokenEnd:
		return "the end of the script"
	case tokenIdentifier:
		return "'" + t.text + "'"
	case tokenTag:
		return "tag ':" + t.text + "'"
	case tokenNumber:
		return "a number"
	case tokenString:
		return "a string"
	}
	return "'" + t.text + "'"
}

// lexer cuts a script into tokens. Lines may end with CRLF or, as many editors leave them, with LF.
type lexer struct {
	src  []byte
	pos  int
	line int
}

// next returns the next token.
func (l *lexer) next() (token, *Error) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	t := token{line: l.line}
	if l.pos >= len(l.src) {
		return t, nil
	}
	c := l.src[l.pos]
	switch {
	case isLetter(c):
		t.kind, t.text = tokenIdentifier, l.identifier()
		if strings.EqualFold(t.text, "text") && l.pos < len(l.src) && l.src[l.pos] == ':' {
			l.pos++
			return l.multiline(t)
		}
	case c == ':':
		l.pos++
		if l.pos >= len(l.src) || !isLetter(l.src[l.pos]) {
			return t, errorAt(l.line, "a ':' has to be followed by the name of a tag")
		}
		t.kind, t.text = tokenTag, l.identifier()
	case isDigit(c):
		return l.numeral(t)
	case c == '"':
		return l.quoted(t)
	case strings.IndexByte(";,{}()[]", c) >= 0:
		l.pos++
		t.kind, t.text = tokenPunctuation, string(c)
	case c >= 0x80:
		r, _ := utf8.DecodeRune(l.src[l.pos:])
		return t, errorAt(l.line, "unexpected character %q outside of a string", r)
	default:
		return t, errorAt(l.line, "unexpected character %q", rune(c))
	}
	return t, nil
}

// skip passes over white space and comments.
func (l *lexer) skip() *Error {
	for l.pos < len(l.src) {
		switch c := l.src[l.pos]; {
		case c == '\n':
			l.line++
			l.pos++
		case c == ' ' || c == '\t' || c == '\r':
			l.pos++
		case c == '#':
			l.restOfLine()
		case c == '/' && l.pos+1 < len(l.src) && l.src[l.pos+1] == '*':
			end := bytes.Index(l.src[l.pos+2:], []byte("*/"))
			if end < 0 {
				return errorAt(l.line, "the comment that begins here has no end: */ is missing")
			}
			comment := l.src[l.pos : l.pos+2+end+2]
			l.line += bytes.Count(comment, []byte("\n"))
			l.pos += len(comment)
		default:
			return nil
		}
	}
	return nil
}

// restOfLine passes over the rest of a line, up to its end.
func (l *lexer) restOfLine() {
	if n := bytes.IndexByte(l.src[l.pos:], '\n'); n >= 0 {
		l.pos += n
	} else {
		l.pos = len(l.src)
	}
}

func (l *lexer) identifier() string {
	start := l.pos
	for l.pos < len(l.src) && (isLetter(l.src[l.pos]) || isDigit(l.src[l.pos])) {
		l.pos++
	}
	return string(l.src[start:l.pos])
}

// maxNumber bounds numbers, with their quantifier (RFC 5228 §2.4.1 wants 2^31-1 at least). From 2^63 on they are all
// the same.
const maxNumber uint64 = 1<<64 - 1

func (l *lexer) numeral(t token) (token, *Error) {
	t.kind = tokenNumber
	var n uint64
	for ; l.pos < len(l.src) && isDigit(l.src[l.pos]); l.pos++ {
		digit := uint64(l.src[l.pos] - '0')
		if n > (maxNumber-digit)/10 {
			return t, errorAt(l.line, "the number is too large")
		}
		n = n*10 + digit
	}
	if l.pos < len(l.src) {
		shift := strings.IndexByte(" KMG", l.src[l.pos]&^0x20) * 10
		if shift > 0 && isLetter(l.src[l.pos]) {
			l.pos++
			if n > maxNumber>>shift {
				return t, errorAt(l.line, "the number is too large")
			}
			n <<= shift
		}
	}
	if l.pos < len(l.src) && isLetter(l.src[l.pos]) {
		return t, errorAt(l.line, "a number may be followed by K, M or G, not by %q", rune(l.src[l.pos]))
	}
	t.number = int64(min(n, 1<<63-1))
	return t, nil
}

func (l *lexer) quoted(t token) (token, *Error) {
	t.kind = tokenString
	var b strings.Builder
	for i := l.pos + 1; i < len(l.src); i++ {
		switch c := l.src[i]; c {
		case '"':
			l.pos = i + 1
			t.text = b.String()
			return t, checkText(t)
		case '\\':
			i++
			if i < len(l.src) {
				if l.src[i] == '\n' {
					l.line++
				}
				b.WriteByte(l.src[i])
			}
		case '\n':
			l.line++
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return t, errorAt(t.line, "the string that begins here has no end: \" is missing")
}

// multiline reads what follows "text:" (RFC 5228 §2.4.2): lines up to one with a dot only, dot-stuffed.
func (l *lexer) multiline(t token) (token, *Error) {
	t.kind = tokenString
	for l.pos < len(l.src) && (l.src[l.pos] == ' ' || l.src[l.pos] == '\t') {
		l.pos++
	}
	if l.pos < len(l.src) && l.src[l.pos] == '#' {
		l.restOfLine()
	} else if l.pos < len(l.src) && l.src[l.pos] == '\r' {
		l.pos++
	}
	if l.pos >= len(l.src) || l.src[l.pos] != '\n' {
		return t, errorAt(t.line, "\"text:\" has to be followed by the end of the line")
	}
	l.pos++
	l.line++
	var b strings.Builder
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		n := bytes.IndexByte(rest, '\n')
		if n < 0 {
			n = len(rest) - 1
		}
		row := rest[:n+1]
		l.pos += len(row)
		l.line++
		content := bytes.TrimSuffix(bytes.TrimSuffix(row, []byte("\n")), []byte("\r"))
		if len(content) == 1 && content[0] == '.' {
			t.text = b.String()
			return t, checkText(t)
		}
		if content = bytes.TrimPrefix(content, []byte(".")); len(row) > 0 {
			b.Write(content)
			b.WriteString("\r\n")
		}
	}
	return t, errorAt(t.line, "the text that begins here has no end: a line with nothing but a dot is missing")
}

// checkText refuses what no string may have (RFC 5228 §2.1). It need not be UTF-8 (§2.4.2).
func checkText(t token) *Error {
	if strings.IndexByte(t.text, 0) >= 0 {
		return errorAt(t.line, "the string has a NUL in it")
	}
	if strings.Count(t.text, "\r") != strings.Count(t.text, "\r\n") {
		return errorAt(t.line, "the string has a carriage return that ends no line")
	}
	return nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
