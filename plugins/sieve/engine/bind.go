package engine

import "strings"

// kind is what an argument has to be.
type kind uint8

const (
	none    kind = iota // a tag that stands alone
	str                 // one string
	strList             // a string or a list of strings
	num                 // a number
)

func (k kind) String() string {
	return [...]string{"nothing", "a string", "a string or a list of strings", "a number"}[k]
}

// many is the number of tests of "allof" and "anyof".
const many = -1

// tagSpec is a tagged argument (RFC 5228 §2.6.2).
type tagSpec struct {
	name  string
	value kind
	ext   string // the extension that it needs, "" for none
	group string // of the tags of a group, a node has one at most
}

// signature is what a command or a test takes.
type signature struct {
	ext   string // the extension that it needs
	tags  []tagSpec
	pos   []kind
	lead  int // so many of the first positional arguments may be left out
	trail int // so many of the last ones may be left out
	tests int // 0, 1 or many
	block bool
}

// bound is a node whose arguments fit its signature.
type bound struct {
	*Node
	tags  map[string]Arg // value of a tag that is there, by its name
	group map[string]string
	pos   []Arg
}

// has reports whether a tag is there.
func (b *bound) has(tag string) bool {
	_, ok := b.tags[tag]
	return ok
}

// bind fits the arguments of a node to a signature.
func bind(c *compiler, n *Node, sig signature) (*bound, *Error) {
	b := &bound{Node: n}
	args := n.Args
	for len(args) > 0 && args[0].Kind == ArgTag {
		taken, err := b.tag(c, args, sig)
		if err != nil {
			return nil, err
		}
		args = args[taken:]
	}
	for _, a := range args {
		if a.Kind == ArgTag {
			return nil, errorAt(a.Line, "tag ':%s' has to stand before the other arguments of '%s'", a.Tag, n.Name)
		}
	}
	if len(args) > len(sig.pos) || len(args) < len(sig.pos)-sig.lead-sig.trail {
		return nil, errorAt(n.Line, "'%s' takes %s, not %d", n.Name, countOf(sig), len(args))
	}
	kinds := sig.pos
	if sig.lead > 0 {
		kinds = sig.pos[len(sig.pos)-len(args):]
	}
	for i, a := range args {
		if !a.fits(kinds[i]) {
			return nil, errorAt(a.Line, "argument %d of '%s' has to be %s, not %s", i+1, n.Name, kinds[i], a.Kind)
		}
	}
	b.pos = args
	return b, shape(n, sig)
}

func countOf(sig signature) string {
	number := [...]string{"no", "one", "two", "three", "four"}
	s := number[len(sig.pos)]
	if optional := sig.lead + sig.trail; optional > 0 {
		s = number[len(sig.pos)-optional] + " or " + s
	}
	if s == "one" {
		return "one argument"
	}
	return s + " arguments"
}

// shape checks tests and block.
func shape(n *Node, sig signature) *Error {
	switch {
	case sig.tests == 0 && (len(n.Tests) > 0 || n.List):
		return errorAt(n.Line, "'%s' takes no test", n.Name)
	case sig.tests == 1 && (len(n.Tests) != 1 || n.List):
		return errorAt(n.Line, "'%s' takes one test", n.Name)
	case sig.tests == many && !n.List:
		return errorAt(n.Line, "'%s' takes tests in parentheses", n.Name)
	case sig.block && !n.HasBlock:
		return errorAt(n.Line, "'%s' has to be followed by a block", n.Name)
	case !sig.block && n.HasBlock:
		return errorAt(n.Line, "'%s' takes no block", n.Name)
	}
	return nil
}

// tag takes the tag that args begin with, and says how many arguments that were.
func (b *bound) tag(c *compiler, args []Arg, sig signature) (int, *Error) {
	a := args[0]
	name := strings.ToLower(a.Tag)
	var spec *tagSpec
	for i := range sig.tags {
		if sig.tags[i].name == name {
			spec = &sig.tags[i]
		}
	}
	switch {
	case spec == nil:
		return 0, unknownAt(a.Line, "'%s' has no tag ':%s'", b.Name, a.Tag)
	case !c.has(spec.ext):
		return 0, unknownAt(a.Line, "tag ':%s' needs the extension '%s': add it to 'require'", a.Tag, spec.ext)
	case b.has(name):
		return 0, errorAt(a.Line, "tag ':%s' is there twice", a.Tag)
	}
	if b.tags == nil {
		b.tags, b.group = make(map[string]Arg), make(map[string]string)
	}
	if other, ok := b.group[spec.group]; ok && spec.group != "" {
		return 0, errorAt(a.Line, "tag ':%s' cannot stand beside ':%s'", a.Tag, other)
	}
	b.group[spec.group] = name
	if spec.value == none {
		b.tags[name] = a
		return 1, nil
	}
	if len(args) < 2 || !args[1].fits(spec.value) {
		return 0, errorAt(args[min(1, len(args)-1)].Line, "tag ':%s' has to be followed by %s", a.Tag, spec.value)
	}
	b.tags[name] = args[1]
	return 2, nil
}

func (a Arg) fits(k kind) bool {
	switch k {
	case str:
		return a.Kind == ArgString
	case strList:
		return a.Kind == ArgString || a.Kind == ArgStrings
	case num:
		return a.Kind == ArgNumber
	}
	return false
}
