package config

import (
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of values and the parts of a key.
const maxDepth = 16

// scanner finds the lines of keys. The TOML library reports positions of syntax errors but
// not of keys; this scanner knows just enough of the syntax to supply them. It runs before
// the library and bounds the depth, because the library's parser is recursive. On text
// that is not TOML it stops; the library then says what is wrong.
type scanner struct {
	text   string
	pos    int
	line   int
	lines  map[string]int // key path -> line
	arrays map[string]int // path of an array of tables -> number of its tables so far
	deep   bool           // stopped because of maxDepth
}

// scanLines returns the line of every key of text, by path ("listener[0].address"), and the
// position up to which it understood the text. deep is the line that is nested too deeply, or 0.
func scanLines(text string) (lines map[string]int, end, deep int) {
	s := &scanner{text: text, line: 1, lines: make(map[string]int), arrays: make(map[string]int)}
	base := ""
	for {
		s.space(true)
		if s.pos == len(s.text) {
			break
		}
		var ok bool
		if s.peek() == '[' {
			base, ok = s.header()
		} else {
			ok = s.pair(base, 0)
		}
		if !ok {
			break
		}
	}
	if s.deep {
		deep = s.line
	}
	return s.lines, s.pos, deep
}

// joinKey appends a key to a path; keys that are not bare are quoted.
func joinKey(path, key string) string {
	for i := 0; i < len(key) || i == 0; i++ {
		if i == len(key) || !isBare(key[i]) {
			key = strconv.Quote(key)
			break
		}
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func indexKey(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func isBare(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) eat(token string) bool {
	if !strings.HasPrefix(s.text[s.pos:], token) {
		return false
	}
	s.pos += len(token)
	return true
}

// space skips white space, with lines also line ends and comments.
func (s *scanner) space(lines bool) {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == ' ' || c == '\t':
		case lines && c == '\r':
		case lines && c == '\n':
			s.line++
		case lines && c == '#':
			if i := strings.IndexByte(s.text[s.pos:], '\n'); i >= 0 {
				s.pos += i
			} else {
				s.pos = len(s.text)
			}
			continue
		default:
			return
		}
		s.pos++
	}
}

// header reads [table] or [[array of tables]] and returns its path.
func (s *scanner) header() (string, bool) {
	array := s.eat("[[")
	if !array {
		s.eat("[")
	}
	line := s.line
	keys := s.key()
	if keys == nil || !s.eat("]") || array && !s.eat("]") {
		return "", false
	}
	path := ""
	for i, k := range keys {
		path = joinKey(path, k)
		s.first(path, line)
		if array && i == len(keys)-1 {
			s.arrays[path]++
		}
		if n := s.arrays[path]; n > 0 {
			path = indexKey(path, n-1)
			s.first(path, line)
		}
	}
	return path, true
}

// first records where a path occurs first.
func (s *scanner) first(path string, line int) {
	if _, ok := s.lines[path]; !ok {
		s.lines[path] = line
	}
}

// pair reads key = value below base.
func (s *scanner) pair(base string, depth int) bool {
	line := s.line
	keys := s.key()
	if keys == nil || !s.eat("=") {
		return false
	}
	path := base
	for _, k := range keys {
		path = joinKey(path, k)
		s.first(path, line)
	}
	return s.value(path, depth)
}

// key reads a dotted key with the white space around it; nil if there is none.
func (s *scanner) key() []string {
	var keys []string
	for {
		s.space(false)
		start := s.pos
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			if !s.quoted() {
				return nil
			}
			raw := s.text[start:s.pos]
			k, err := strconv.Unquote(raw)
			if c == '\'' || err != nil {
				k = raw[1 : len(raw)-1]
			}
			keys = append(keys, k)
		case isBare(c):
			for isBare(s.peek()) {
				s.pos++
			}
			keys = append(keys, s.text[start:s.pos])
		default:
			return nil
		}
		if len(keys) > maxDepth {
			s.deep = true
			return nil
		}
		s.space(false)
		if !s.eat(".") {
			return keys
		}
	}
}

// value skips a value and records the lines of what is in it.
func (s *scanner) value(path string, depth int) bool {
	if depth > maxDepth {
		s.deep = true
		return false
	}
	s.space(false)
	switch c := s.peek(); c {
	case '"', '\'':
		return s.quoted()
	case '[':
		return s.array(path, depth)
	case '{':
		return s.inline(path, depth)
	default:
		n := strings.IndexAny(s.text[s.pos:], ",]}#\r\n")
		if n < 0 {
			n = len(s.text) - s.pos
		}
		s.pos += n
		return n > 0
	}
}

func (s *scanner) array(path string, depth int) bool {
	s.eat("[")
	for i := 0; ; i++ {
		if s.space(true); s.eat("]") {
			return true
		}
		p := indexKey(path, i)
		s.first(p, s.line)
		if !s.value(p, depth+1) {
			return false
		}
		if s.space(true); !s.eat(",") {
			return s.eat("]")
		}
	}
}

func (s *scanner) inline(path string, depth int) bool {
	s.eat("{")
	for {
		if s.space(true); s.eat("}") {
			return true
		}
		if !s.pair(path, depth+1) {
			return false
		}
		if s.space(true); !s.eat(",") {
			return s.eat("}")
		}
	}
}

// quoted skips a string of any of the four kinds.
func (s *scanner) quoted() bool {
	quote := s.text[s.pos : s.pos+1]
	long := strings.HasPrefix(s.text[s.pos:], strings.Repeat(quote, 3))
	if long {
		quote = strings.Repeat(quote, 3)
	}
	s.pos += len(quote)
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '\\' && quote[0] == '"' && s.pos+1 < len(s.text) && s.text[s.pos+1] != '\n':
			s.pos++
		case c == '\n':
			if !long {
				return false
			}
			s.line++
		case strings.HasPrefix(s.text[s.pos:], quote):
			s.pos += len(quote)
			for n := 0; long && n < 2 && s.peek() == quote[0]; n++ {
				s.pos++ // up to two quotes may stand before the closing ones
			}
			return true
		}
		s.pos++
	}
	return false
}
