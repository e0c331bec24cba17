package engine

import (
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/plugins/internal/mime"
)

// partCommand has the commands of RFC 5703 that go from part to part.
func partCommand(name string) (commandSpec, bool) {
	named := []tagSpec{{name: "name", value: str}}
	switch name {
	case "foreverypart":
		return commandSpec{signature{ext: "foreverypart", tags: named, block: true}, buildForEveryPart}, true
	case "break":
		return commandSpec{signature{ext: "foreverypart", tags: named}, buildBreak}, true
	case "extracttext":
		return commandSpec{signature{ext: "extracttext", tags: append(modifierTags(), tagSpec{name: "first", value: num}), pos: []kind{str}}, buildExtractText}, true
	}
	return commandSpec{}, false
}

// maxLoops is how deep loops may be nested.
const maxLoops = 8

// breakLoop ends the loop of a depth.
type breakLoop struct{ depth int }

func (breakLoop) Error() string { return "break" }

func buildForEveryPart(c *compiler, b *bound) (step, *Error) {
	name := ""
	if a, ok := b.tags["name"]; ok {
		name = a.Strings[0].Text
	}
	if len(c.loops) >= maxLoops {
		return nil, errorAt(b.Line, "loops are nested more than %d deep", maxLoops)
	}
	c.loops = append(c.loops, name)
	depth := len(c.loops)
	body := c.block(b.Block)
	c.loops = c.loops[:depth-1]
	return stepFunc(func(x *run) error { return x.forEveryPart(depth, body, b.Line) }), nil
}

// forEveryPart runs the block for every part of the message, or of the part that a loop around it is at
// (RFC 5703 §3), each before those in it.
func (x *run) forEveryPart(depth int, body []step, line int) error {
	tree, err := x.msg.parts()
	if err != nil {
		return err
	}
	outer, bodies := x.part, x.msg.bodies
	defer func() {
		if x.part = outer; x.msg.bodies != bodies {
			x.part = nil // it was one of another body
		}
	}()
	parts := below(outer)
	x.work += perField * int64(len(parts))
	if outer == nil {
		parts = append([]*mime.Part{tree.Root}, below(tree.Root)...)
	}
	if x.loops++; x.loops > maxLoops { // included scripts have loops of their own
		return x.fault(line, "loops are nested more than %d deep", maxLoops)
	}
	defer func() { x.loops-- }()
	for _, p := range parts {
		if x.replaced(p) {
			continue
		}
		if err := x.spend(perPart+int64(len(p.Header.Block())), line); err != nil {
			return err
		}
		x.part = p
		err := x.block(body)
		var b breakLoop
		switch {
		case err == nil && x.msg.bodies != bodies: // the parts were those of another body
			return nil
		case errors.As(err, &b) && b.depth == depth:
			return x.leaveLoop(outer, line)
		case err != nil:
			if outer == nil && (errors.Is(err, errStop) || errors.Is(err, errReturn)) {
				if err := x.leaveLoop(outer, line); err != nil {
					return err
				}
			}
			return err
		}
	}
	return x.leaveLoop(outer, line)
}

// below lists the parts in a part, in the order of the message.
func below(p *mime.Part) []*mime.Part {
	if p == nil {
		return nil
	}
	var list []*mime.Part
	stack := []*mime.Part{p}
	for len(stack) > 0 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if top != p {
			list = append(list, top)
		}
		for i := len(top.Children) - 1; i >= 0; i-- {
			stack = append(stack, top.Children[i])
		}
	}
	return list
}

func buildBreak(c *compiler, b *bound) (step, *Error) {
	depth := len(c.loops)
	if a, ok := b.tags["name"]; ok {
		for depth > 0 && c.loops[depth-1] != a.Strings[0].Text {
			depth--
		}
		if depth == 0 {
			return nil, errorAt(b.Line, "no loop around this 'break' has the name '%s'", printable(a.Strings[0].Text))
		}
	}
	if depth == 0 {
		return nil, errorAt(b.Line, "'break' stands in no loop")
	}
	return stepFunc(func(*run) error { return breakLoop{depth} }), nil
}

func buildExtractText(c *compiler, b *bound) (step, *Error) {
	target := b.pos[0].Strings[0]
	switch {
	case !c.has("variables"):
		return nil, errorAt(b.Line, "'extracttext' needs the extension 'variables': add it to 'require'")
	case len(c.loops) == 0:
		return nil, errorAt(b.Line, "'extracttext' has to stand in a 'foreverypart'")
	case isNumber(target.Text):
		return nil, errorAt(target.Line, "match variable '%s' cannot be set", target.Text)
	}
	space, name, err := c.splitName(target.Text, target.Line)
	if err != nil {
		return nil, err
	}
	first := int64(-1)
	if a, ok := b.tags["first"]; ok {
		first = a.Number
	}
	return stepFunc(func(x *run) error {
		text, err := x.partText(x.part, int64(x.limits.VariableSize), b.Line)
		if err != nil {
			return err
		}
		if first >= 0 {
			text = firstCharacters(text, first)
		}
		return x.set(space, name, modify(b, text), b.Line)
	}), nil
}

func firstCharacters(s string, n int64) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// partText is the content of a text part in UTF-8, at most limit bytes of it; "" for other parts.
func (x *run) partText(p *mime.Part, limit int64, line int) (string, error) {
	if p == nil || !strings.HasPrefix(p.Type, "text/") && p.Type != xhtml {
		return "", nil
	}
	if with, ok := x.replacements[p]; ok {
		return string(with.body), nil
	}
	tree, err := x.msg.parts()
	if err != nil {
		return "", err
	}
	r, _, err := tree.Text(p)
	if err != nil {
		return "", err
	}
	defer r.Close()
	return x.readText(r, limit, line)
}

// readText reads text, cut at the limit; bytes that are no UTF-8 become U+FFFD.
func (x *run) readText(r io.Reader, limit int64, line int) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+utf8.UTFMax))
	if err != nil {
		return "", err
	}
	if err := x.spend(int64(len(b)), line); err != nil {
		return "", err
	}
	return strings.ToValidUTF8(cut(string(b), int(limit)), "\uFFFD"), nil
}
