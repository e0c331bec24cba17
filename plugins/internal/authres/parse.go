package authres

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Bounds of what is parsed.
const (
	maxInput   = 64 << 10 // bytes
	maxResults = 200
	maxProps   = 50 // of one result
)

// Errors of Parse; other errors say what is malformed.
var (
	ErrTooLarge = errors.New("authentication results are too large")
)

// Parse reads the value of an Authentication-Results field, folded or not.
func Parse(value string) (Header, error) {
	p, err := newParser(value)
	if err != nil {
		return Header{}, err
	}
	return p.header(Header{})
}

// ParseARC reads the value of an ARC-Authentication-Results field.
func ParseARC(value string) (Header, error) {
	p, err := newParser(value)
	if err != nil {
		return Header{}, err
	}
	if err := p.skip(); err != nil {
		return Header{}, err
	}
	if name, err := p.text("="); err != nil || !strings.EqualFold(name, "i") || !p.take('=') {
		return Header{}, errors.New("there is no instance")
	}
	digits, err := p.text(";")
	if err != nil {
		return Header{}, err
	}
	n, err := number(digits)
	if err != nil || n < 1 || n > 50 { // RFC 8617 §4.2.1
		return Header{}, fmt.Errorf("%.20q is not an instance", digits)
	}
	if err := p.skip(); err != nil {
		return Header{}, err
	}
	if !p.take(';') {
		return Header{}, errors.New("there is no authserv-id")
	}
	return p.header(Header{Instance: n})
}

// ServID returns the authserv-id of the value of an Authentication-Results field, also where
// the rest of it is malformed. It is "" if there is none.
func ServID(value string) string {
	p := parser{s: value}
	if p.skip() != nil {
		return ""
	}
	id, _ := p.text(";")
	return id
}

// SameID compares authserv-ids as hosts are compared: in whatever case, with or without the dot
// at the end, as U-labels or A-labels.
func SameID(a, b string) bool { return hostOf(a) == hostOf(b) }

func hostOf(id string) string {
	id = strings.TrimSuffix(id, ".")
	if d, err := mail.ParseDomain(id); err == nil {
		return d.String()
	}
	return strings.ToLower(id)
}

type parser struct {
	s   string
	pos int
}

func newParser(value string) (*parser, error) {
	if len(value) > maxInput {
		return nil, ErrTooLarge
	}
	return &parser{s: value}, nil
}

func (p *parser) header(h Header) (Header, error) {
	err := p.skip()
	if err == nil {
		h.ID, err = p.text(";")
	}
	if err != nil {
		return Header{}, err
	}
	if h.ID == "" {
		return Header{}, errors.New("there is no authserv-id")
	}
	if err := p.skip(); err != nil {
		return Header{}, err
	}
	if p.pos < len(p.s) && p.s[p.pos] != ';' {
		version, err := p.text(";")
		if err != nil {
			return Header{}, err
		}
		if h.Version, err = number(version); err != nil {
			return Header{}, err
		}
	}
	for {
		if err := p.skip(); err != nil {
			return Header{}, err
		}
		if p.pos == len(p.s) {
			return h, nil
		}
		if !p.take(';') {
			return Header{}, fmt.Errorf("unexpected text at %d", p.pos)
		}
		r, err := p.result()
		if err != nil {
			return Header{}, err
		}
		if r.Method == "" { // "none", or nothing after the last ";"
			continue
		}
		if len(h.Results) == maxResults {
			return Header{}, ErrTooLarge
		}
		h.Results = append(h.Results, r)
	}
}

// result reads one result, up to its ";".
func (p *parser) result() (Result, error) {
	var r Result
	for first := true; ; first = false {
		if err := p.skip(); err != nil || p.pos == len(p.s) || p.s[p.pos] == ';' {
			return r, err
		}
		key, none, err := p.key()
		if err != nil {
			return r, err
		}
		if none {
			if first && strings.EqualFold(key, "none") {
				continue
			}
			return r, fmt.Errorf("%.40q has no value", key)
		}
		value, err := p.text(";")
		if err != nil {
			return r, err
		}
		key = strings.ToLower(key)
		if first {
			method, version, versioned := strings.Cut(key, "/")
			if versioned {
				if r.Version, err = number(version); err != nil {
					return r, err
				}
			}
			if !isKeyword(method) || !isKeyword(value) {
				return r, fmt.Errorf("%.40q is not a result", key+"="+value)
			}
			r.Method, r.Value = method, strings.ToLower(value)
			continue
		}
		if r.Method == "" {
			return r, fmt.Errorf("%.40q follows none", key)
		}
		if key == "reason" && r.Reason == "" {
			r.Reason = value
			continue
		}
		if len(r.Props) == maxProps {
			return r, ErrTooLarge
		}
		ptype, name, typed := strings.Cut(key, ".")
		if !typed {
			ptype, name = "", key
		}
		r.Props = append(r.Props, Prop{ptype, name, value})
	}
}

// key reads what stands before "=", without the white space and comments that may be
// around "." and "/", and the "=" itself. none says that there is no "=".
func (p *parser) key() (key string, none bool, err error) {
	var b strings.Builder
	joined := true
	for {
		if err := p.skip(); err != nil {
			return "", false, err
		}
		if p.pos == len(p.s) {
			return b.String(), true, nil
		}
		switch c := p.s[p.pos]; {
		case c == '=':
			p.pos++
			if b.Len() == 0 {
				return "", false, errors.New("a value has no name")
			}
			return b.String(), false, p.skip()
		case c == '.' || c == '/':
			b.WriteByte(c)
			p.pos++
			joined = true
		case isKeyChar(rune(c)) && joined:
			from := p.pos
			for p.pos < len(p.s) && isKeyChar(rune(p.s[p.pos])) {
				p.pos++
			}
			b.WriteString(p.s[from:p.pos])
			joined = false
		case c == ';' && !joined:
			return b.String(), true, nil
		default:
			return "", false, fmt.Errorf("unexpected %q at %d", c, p.pos)
		}
	}
}

// text reads a value: words and quoted strings without white space or comments between them,
// decoded. It ends before a comment, white space and each of stop. With an error it returns
// what was read before it.
func (p *parser) text(stop string) (string, error) {
	var b strings.Builder
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		switch {
		case c == '"':
			if err := p.quoted(&b); err != nil {
				return b.String(), err
			}
			continue
		case isSpace(c) || c == '(' || strings.IndexByte(stop, c) >= 0:
			return b.String(), nil
		case c < ' ' || c == 0x7f:
			return b.String(), fmt.Errorf("control character at %d", p.pos)
		}
		b.WriteByte(c)
		p.pos++
	}
	return b.String(), nil
}

func (p *parser) quoted(b *strings.Builder) error {
	for p.pos++; p.pos < len(p.s); p.pos++ {
		switch c := p.s[p.pos]; c {
		case '"':
			p.pos++
			return nil
		case '\r', '\n': // of folding
		case '\\':
			if p.pos++; p.pos < len(p.s) {
				b.WriteByte(p.s[p.pos])
			}
		default:
			b.WriteByte(c)
		}
	}
	return errors.New("a quoted string does not end")
}

// skip passes over white space and comments.
func (p *parser) skip() error {
	depth := 0
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case c == '(':
			depth++
		case depth > 0 && c == ')':
			depth--
		case depth > 0 && c == '\\':
			p.pos++
		case depth == 0 && !isSpace(c):
			return nil
		}
		p.pos++
	}
	p.pos = len(p.s)
	if depth > 0 {
		return errors.New("a comment does not end")
	}
	return nil
}

func (p *parser) take(c byte) bool {
	if p.pos < len(p.s) && p.s[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func isKeyword(s string) bool {
	for _, r := range s {
		if !isKeyChar(r) {
			return false
		}
	}
	return s != ""
}

func number(s string) (int, error) {
	if len(s) > 4 {
		return 0, fmt.Errorf("%.20q is not a version", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%.20q is not a version", s)
	}
	return int(n), nil
}
