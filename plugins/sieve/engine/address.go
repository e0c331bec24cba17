package engine

import (
	"slices"
	"strings"
)

// address is one address of a header field or of the envelope.
type address struct {
	full    string // addr-spec, or the text as it stands where that is none
	invalid bool
}

// addressPart is a part of an address (RFC 5228 §2.7.4, RFC 5233).
type addressPart uint8

const (
	partAll addressPart = iota
	partLocal
	partDomain
	partUser
	partDetail
)

func addressTags() []tagSpec {
	return []tagSpec{
		{name: "all", group: "address part"},
		{name: "localpart", group: "address part"},
		{name: "domain", group: "address part"},
		{name: "user", group: "address part", ext: "subaddress"},
		{name: "detail", group: "address part", ext: "subaddress"},
	}
}

func (c *compiler) addressPart(b *bound) (addressPart, *Error) {
	return addressPart(max(0, slices.Index([]string{"all", "localpart", "domain", "user", "detail"}, b.group["address part"]))), nil
}

// of returns the part; false if the address has none.
func (p addressPart) of(a address, delimiter string) (string, bool) {
	if p == partAll {
		return a.full, true
	}
	if a.full == "" { // a field with nothing in it
		return "", true
	}
	at := strings.LastIndexByte(a.full, '@')
	if a.invalid || at < 0 {
		return "", false
	}
	local := unquoteLocal(a.full[:at])
	user, detail, found := strings.Cut(local, delimiter)
	switch p {
	case partLocal:
		return local, true
	case partDomain:
		return a.full[at+1:], true
	case partUser:
		return user, true
	}
	return detail, found
}

// unquoteLocal is a local part without the quotes of its quoted strings.
func unquoteLocal(s string) string {
	if strings.IndexByte(s, '"') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			continue
		}
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func buildAddress(c *compiler, b *bound) (cond, *Error) {
	t, err := c.matching(b)
	if err != nil {
		return nil, err
	}
	part, err := c.addressPart(b)
	if err != nil {
		return nil, err
	}
	for _, n := range t.names {
		if n.constant() && !hasAddresses(n.lit) {
			return nil, errorAt(n.line, "the field '%s' has no addresses for the test 'address'", printable(n.lit))
		}
	}
	ix, err := c.index(b)
	if err != nil {
		return nil, err
	}
	o, err := c.mimeOptions(b)
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		names := x.texts(t.names)
		for _, n := range names {
			if !hasAddresses(n) {
				return false, x.fault(b.Line, "the field '%s' has no addresses for the test 'address'", printable(n))
			}
		}
		fields, err := x.fieldsNamed(o, ix, names, b.Line)
		if err != nil {
			return false, err
		}
		var values []string
		for _, f := range fields {
			if err := x.spend(int64(len(f.raw)), b.Line); err != nil {
				return false, err
			}
			x.work += 16 * int64(len(f.raw))
			for _, a := range parseAddresses(unfold(f.raw)) {
				// :count is of addresses, whatever parts they have (RFC 5231 §6).
				if v, ok := part.of(a, x.delimiter()); ok || t.m.kind == matchCount {
					values = append(values, v)
				}
			}
		}
		return x.matchValues(t.m, values, x.texts(t.keys))
	}), nil
}

// hasAddresses reports whether a field is one of those whose body is a list of addresses (RFC 5228 §5.1 wants no
// others to be asked for).
func hasAddresses(name string) bool {
	switch strings.ToLower(name) {
	case "from", "to", "cc", "bcc", "sender", "reply-to",
		"resent-from", "resent-to", "resent-cc", "resent-bcc", "resent-sender", "resent-reply-to",
		"for-approval", "for-handling", "for-comment", "apparently-to", "errors-to", "delivered-to",
		"return-receipt-to", "x-admin", "read-receipt-to", "x-confirm-reading-to", "disposition-notification-to",
		"return-receipt-requested", "registered-mail-reply-requested-by", "mail-followup-to", "mail-reply-to",
		"abuse-reports-to", "x-complaints-to", "x-report-abuse-to", "x-beenthere", "x-original-to":
		return true
	}
	return false
}

// parseAddresses reads an address list (RFC 5322 §3.4), groups flattened, comments dropped. What is no address between
// those that are is left out; a body without any is one invalid address with the whole text, but none if that is made
// of comments. It looks at every byte a fixed number of times.
func parseAddresses(s string) []address {
	p := addressParser{s: s}
	list := p.list()
	if len(list) == 0 {
		text := strings.TrimSpace(s)
		if text != "" && withoutComments(text) == "" {
			return nil
		}
		return []address{{full: text, invalid: text != ""}}
	}
	return list
}

type addressParser struct {
	s      string
	pos    int
	broken bool   // a comment or a quoted string has no end
	absent string // characters that do not follow any more
	route  bool   // an address had an obsolete route
	inside bool   // of angle brackets, where there are no others
}

// list reads addresses and groups up to the end.
func (p *addressParser) list() []address {
	var list []address
	group := false
	for p.space() && p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case c == ',':
			p.pos++
			continue
		case c == ';' && group:
			group = false
			p.pos++
			continue
		}
		a, name, ok := p.member()
		if name && ok && !group {
			group = true
			continue
		}
		if ok && !name && !p.broken {
			list = append(list, a)
		}
		p.skipMember(group)
	}
	return list
}

// skipMember passes over the rest of a member of the list, up to what separates it from the next one.
func (p *addressParser) skipMember(group bool) {
	for p.space() && p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case c == ',' || c == ';' && group:
			return
		case c == '"':
			p.quoted()
		default:
			p.pos++
		}
	}
}

// member reads one mailbox, or the name of a group with its colon.
func (p *addressParser) member() (a address, group, ok bool) {
	var local strings.Builder // words as they stand, if this turns out to be an addr-spec
	words, adjacent := 0, false
	for after := false; p.space() && p.pos < len(p.s); {
		switch c := p.s[p.pos]; c {
		case '<':
			if p.inside {
				return a, false, false
			}
			return p.angle()
		case ':':
			p.pos++
			return a, true, words > 0
		case '@':
			p.pos++
			domain, ok := p.domain()
			return address{full: local.String() + "@" + domain}, false, ok && words > 0 && !adjacent
		case '.':
			local.WriteByte('.')
			p.pos++
			after = false
		default:
			w, ok := p.word()
			if !ok {
				return a, false, false
			}
			local.WriteString(w)
			adjacent = adjacent || after // a local part has dots between its words
			words++
			after = true
		}
	}
	return a, false, false
}

func (p *addressParser) word() (string, bool) {
	if p.s[p.pos] == '"' {
		return p.quoted()
	}
	w := p.atom()
	return w, w != ""
}

// angle reads an addr-spec between angle brackets, with an obsolete route before it.
func (p *addressParser) angle() (a address, group, ok bool) {
	p.pos++
	if !p.space() || p.pos >= len(p.s) || p.s[p.pos] == '<' {
		return a, false, false
	}
	if p.s[p.pos] == '@' {
		n := p.find(':')
		if n < 0 {
			return a, false, false
		}
		p.pos += n + 1
		p.route = true
	}
	p.inside = true
	a, group, ok = p.member()
	p.inside = false
	if !ok || group || !p.space() || p.pos >= len(p.s) || p.s[p.pos] != '>' {
		return a, false, false
	}
	p.pos++
	return a, false, true
}

// domain reads what follows the "@". A name has something between its dots.
func (p *addressParser) domain() (string, bool) {
	var b strings.Builder
	for p.space() && p.pos < len(p.s) {
		switch dotted := b.Len() == 0 || strings.HasSuffix(b.String(), "."); {
		case p.s[p.pos] == '[' && b.Len() == 0:
			n := p.find(']')
			if n < 0 {
				return "", false
			}
			b.WriteString(p.s[p.pos : p.pos+n+1])
			p.pos += n + 1
			return b.String(), true
		case p.s[p.pos] == '.' && !dotted:
			b.WriteByte('.')
			p.pos++
		case !dotted:
			return b.String(), true // something else begins
		default:
			w := p.atom()
			if w == "" {
				return "", false
			}
			b.WriteString(w)
		}
	}
	return b.String(), b.Len() > 0 && !strings.HasSuffix(b.String(), ".")
}

// find returns how far ahead a character is, -1 where there is none; what is not there is looked for once.
func (p *addressParser) find(c byte) int {
	if strings.IndexByte(p.absent, c) >= 0 {
		return -1
	}
	n := strings.IndexByte(p.s[p.pos:], c)
	if n < 0 {
		p.absent += string(c)
	}
	return n
}

// space passes over white space and comments; false if a comment has no end.
func (p *addressParser) space() bool {
	depth := 0
	for ; p.pos < len(p.s); p.pos++ {
		switch c := p.s[p.pos]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			p.pos++
		case depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return true
		}
	}
	p.broken = p.broken || depth > 0
	return depth == 0
}

// atom reads the characters of a word. What is beyond ASCII counts (RFC 6532).
func (p *addressParser) atom() string {
	start := p.pos
	for p.pos < len(p.s) && p.s[p.pos] > ' ' && p.s[p.pos] != 0x7f && strings.IndexByte("()<>@,;:\\\".[]", p.s[p.pos]) < 0 {
		p.pos++
	}
	return p.s[start:p.pos]
}

// quoted reads a quoted string with its quotes.
func (p *addressParser) quoted() (string, bool) {
	start := p.pos
	for p.pos++; p.pos < len(p.s); p.pos++ {
		switch p.s[p.pos] {
		case '\\':
			p.pos++
		case '"':
			p.pos++
			return p.s[start:p.pos], true
		}
	}
	p.broken = true
	return "", false
}
