package engine

import (
	"bytes"
	"mime/quotedprintable"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
	"github.com/postern-mail/postern/sdk/mail"
)

// replaceCommand has "replace" and "enclose" (RFC 5703 §5 and §6).
func replaceCommand(name string) (commandSpec, bool) {
	switch name {
	case "replace":
		return commandSpec{signature{ext: "replace", tags: []tagSpec{{name: "mime"}, {name: "subject", value: str}, {name: "from", value: str}},
			pos: []kind{str}}, buildReplace}, true
	case "enclose":
		return commandSpec{signature{ext: "enclose", tags: []tagSpec{{name: "subject", value: str}, {name: "headers", value: strList}},
			pos: []kind{str}}, buildEnclose}, true
	}
	return commandSpec{}, false
}

// replacement is what a part becomes.
type replacement struct {
	header []field
	body   []byte
}

func buildReplace(c *compiler, b *bound) (step, *Error) {
	with, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	subject, err := c.optional(b, "subject", "")
	if err != nil {
		return nil, err
	}
	from, err := c.optional(b, "from", "")
	if err != nil {
		return nil, err
	}
	return stepFunc(func(x *run) error {
		r := textPart(x.text(with))
		if b.has("mime") {
			r = entity(x.text(with))
		}
		if err := x.spend(int64(len(r.body)), b.Line); err != nil {
			return err
		}
		if x.part != nil && x.part.Parent != nil {
			if x.replacements == nil {
				x.replacements = make(map[*mime.Part]replacement)
			}
			x.replacements[x.part] = r
			return nil
		}
		if f := x.text(from); b.has("from") && !validAddress(f) {
			return x.fault(b.Line, "':from' names no address: '%s'", printable(f))
		}
		x.replacements, x.part = nil, nil
		return x.replaceMessage(r, b, x.text(subject), x.text(from))
	}), nil
}

// replaceMessage puts another body, and the fields that describe it, into the message.
func (x *run) replaceMessage(r replacement, b *bound, subject, from string) error {
	var fields []field
	for _, f := range x.msg.fields {
		name := strings.ToLower(f.name)
		switch {
		case strings.HasPrefix(name, "content-") || name == "mime-version":
			continue
		case name == "subject" && b.has("subject") || name == "from" && b.has("from"): // RFC 5703 §5
			f = field{name: "Original-" + f.name, raw: f.raw}
		}
		fields = append(fields, f)
	}
	if b.has("from") {
		fields = append(fields, textField("From", from))
	}
	if b.has("subject") {
		fields = append(fields, textField("Subject", subject))
	}
	fields = append(fields, field{name: "MIME-Version", raw: " 1.0"})
	x.msg.setFields(append(fields, r.header...))
	return x.setBody(r.body, b.Line)
}

// setBody gives the message another body. What a script keeps of those that it makes stays in memory.
func (x *run) setBody(body []byte, line int) error {
	if x.made += int64(len(body)); x.made > 2*x.limits.BodySize {
		return x.fault(line, "the bodies that the script makes are too large together")
	}
	x.msg.setBody(body)
	return x.spend(int64(len(body)), line)
}

// replaced reports whether a part is gone because it, or one around it, was replaced.
func (x *run) replaced(p *mime.Part) bool {
	if len(x.replacements) == 0 {
		return false
	}
	for ; p != nil; p = p.Parent {
		if _, ok := x.replacements[p]; ok {
			return true
		}
	}
	return false
}

// leaveLoop carries the replacements out when the outermost loop ends.
func (x *run) leaveLoop(outer *mime.Part, line int) error {
	if outer != nil || len(x.replacements) == 0 {
		return nil
	}
	tree, err := x.msg.parts()
	if err != nil {
		return err
	}
	var list []mime.Replacement
	for p, r := range x.replacements {
		if x.replaced(p.Parent) {
			continue
		}
		list = append(list, tree.Replace(p, append(block(r.header), bytes.TrimSuffix(r.body, []byte("\r\n"))...)))
	}
	var b bytes.Buffer
	if err := tree.Rewrite(&b, list); err != nil {
		return err
	}
	x.replacements = nil
	return x.setBody(b.Bytes(), line)
}

// block is a header with its blank line.
func block(fields []field) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		b.WriteString(f.name + ":" + f.raw + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// textField is a field with text of a script in it.
func textField(name, value string) field {
	raw, _ := encodeValue(name, headerText(value))
	return field{name: name, raw: raw}
}

// textPart is text as a MIME part.
func textPart(s string) replacement {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
	r := replacement{header: []field{{name: "Content-Type", raw: " text/plain; charset=utf-8"}}}
	if plain(s) {
		r.body = []byte(s)
		return r
	}
	r.header = append(r.header, field{name: "Content-Transfer-Encoding", raw: " quoted-printable"})
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write([]byte(s)) // to memory
	w.Close()
	r.body = b.Bytes()
	return r
}

// plain reports whether text can go without an encoding (RFC 5322 §2.1.1).
func plain(s string) bool {
	line := 0
	for i := range len(s) {
		if line++; s[i] == '\n' {
			line = 0
		}
		if s[i] >= 0x80 || s[i] == 0 || line > 998 {
			return false
		}
	}
	return true
}

// entity splits a MIME entity into header and body.
func entity(s string) replacement {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
	h, body := mail.SplitMessage([]byte(s))
	var r replacement
	for _, f := range fieldsOf(h) {
		if name := strings.ToLower(f.name); strings.HasPrefix(name, "content-") {
			r.header = append(r.header, f)
		}
	}
	r.body = body
	return r
}

func buildEnclose(c *compiler, b *bound) (step, *Error) {
	note, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	subject, err := c.optional(b, "subject", "")
	if err != nil {
		return nil, err
	}
	var headers []text
	if a, ok := b.tags["headers"]; ok {
		if headers, err = c.texts(a); err != nil {
			return nil, err
		}
	}
	return stepFunc(func(x *run) error {
		return x.enclose(x.text(note), x.text(subject), x.texts(headers), b)
	}), nil
}

// enclose makes the message a part of another one, after a note (RFC 5703 §6).
func (x *run) enclose(note, subject string, headers []string, b *bound) error {
	if err := x.leaveLoop(nil, b.Line); err != nil {
		return err
	}
	raw, err := x.rawBody(b.Line)
	if err != nil {
		return err
	}
	inner := strings.Join(raw, "") // there may be none
	if x.msg.body.Size > int64(len(inner)) {
		return x.fault(b.Line, "the message is too large to enclose")
	}
	whole := append(x.msg.header().Block()[:len(x.msg.header().Block()):len(x.msg.header().Block())], inner...)
	fields, err := x.encloseFields(headers, b.Line)
	if err != nil {
		return err
	}
	if !b.has("subject") {
		for _, f := range x.msg.all("Subject") {
			subject = x.msg.value(f)
		}
	}
	boundary := memoryKey("enclosed", string(whole))
	boundary = "=_" + boundary[len("enclosed:"):]
	fields = append(fields, textField("Subject", subject), field{name: "MIME-Version", raw: " 1.0"},
		field{name: "Content-Type", raw: " multipart/mixed; boundary=\"" + boundary + "\""})
	text := textPart(note)
	var body bytes.Buffer
	body.WriteString("--" + boundary + "\r\n")
	body.Write(block(text.header))
	body.Write(text.body)
	body.WriteString("\r\n--" + boundary + "\r\nContent-Type: message/rfc822\r\n\r\n")
	body.Write(whole)
	body.WriteString("\r\n--" + boundary + "--\r\n")
	x.msg.setFields(fields)
	x.part = nil
	return x.setBody(body.Bytes(), b.Line)
}

// encloseFields are the fields of the outer message: those that the script gives, and those that every message has.
func (x *run) encloseFields(headers []string, line int) ([]field, error) {
	var fields []field
	for _, h := range headers {
		name, value, found := strings.Cut(h, ":")
		name = strings.TrimSpace(name)
		raw, ok := encodeValue(name, strings.TrimSpace(value))
		if !found || !isHeaderName(name) || !ok {
			return nil, x.fault(line, "':headers' has '%s', which is no header field", printable(h))
		}
		if !protected(name) {
			fields = append(fields, field{name: name, raw: raw})
		}
	}
	for _, f := range x.msg.fields {
		if protected(f.name) {
			fields = append(fields, f)
		}
	}
	for _, name := range []string{"From", "To"} {
		if len(named(fields, name)) == 0 {
			fields = append(fields, textField(name, "<"+x.env.To+">"))
		}
	}
	if len(named(fields, "Date")) == 0 {
		fields = append(fields, textField("Date", formatDate(x.env.Now, "std11")))
	}
	return fields, nil
}
