package engine

import "bytes"

// Parse reads a script without asking what its commands mean. The error is an [*Error].
func Parse(src []byte, limits Limits) (*Tree, error) {
	limits = limits.withDefaults()
	if len(src) > limits.ScriptSize {
		return nil, errorAt(1, "the script is larger than %d bytes", limits.ScriptSize)
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")) // a byte order mark
	p := &parser{lex: lexer{src: src, line: 1}, nesting: limits.Nesting}
	if err := p.advance(); err != nil {
		return nil, err
	}
	commands, err := p.commands(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokenEnd {
		return nil, errorAt(p.tok.line, "%s closes nothing", p.tok.describe())
	}
	return &Tree{commands}, nil
}

type parser struct {
	lex     lexer
	tok     token
	nesting int
}

func (p *parser) advance() *Error {
	var err *Error
	p.tok, err = p.lex.next()
	return err
}

// commands reads commands up to the end, or to a brace that closes them.
func (p *parser) commands(depth int) ([]*Node, *Error) {
	var list []*Node
	for p.tok.kind != tokenEnd && !p.tok.is("}") {
		n, err := p.command(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// command reads: identifier arguments (";" / block).
func (p *parser) command(depth int) (*Node, *Error) {
	if p.tok.kind != tokenIdentifier {
		return nil, errorAt(p.tok.line, "expected a command, found %s", p.tok.describe())
	}
	n, err := p.node(depth)
	if err != nil {
		return nil, err
	}
	switch {
	case p.tok.is(";"):
		return n, p.advance()
	case p.tok.is("{"):
		if depth >= p.nesting {
			return nil, errorAt(p.tok.line, "blocks are nested more than %d deep", p.nesting)
		}
		open := p.tok.line
		if err := p.advance(); err != nil {
			return nil, err
		}
		n.HasBlock = true
		if n.Block, err = p.commands(depth + 1); err != nil {
			return nil, err
		}
		if !p.tok.is("}") {
			return nil, errorAt(p.tok.line, "the block that begins in line %d is not closed: } is missing", open)
		}
		return n, p.advance()
	}
	return nil, errorAt(p.tok.line, "expected ';' or a block after command '%s', found %s", n.Name, p.tok.describe())
}

// node reads: identifier *argument [test / test-list].
func (p *parser) node(depth int) (*Node, *Error) {
	n := &Node{Name: p.tok.text, Line: p.tok.line}
	if err := p.advance(); err != nil {
		return nil, err
	}
	for {
		a, found, err := p.argument()
		if err != nil {
			return nil, err
		}
		if !found {
			break
		}
		n.Args = append(n.Args, a)
	}
	if p.tok.kind == tokenIdentifier || p.tok.is("(") {
		if depth >= p.nesting {
			return nil, errorAt(p.tok.line, "tests are nested more than %d deep", p.nesting)
		}
		return n, p.tests(n, depth+1)
	}
	return n, nil
}

func (p *parser) tests(n *Node, depth int) *Error {
	if p.tok.kind == tokenIdentifier {
		t, err := p.node(depth)
		n.Tests = []*Node{t}
		return err
	}
	n.List = true
	for {
		if err := p.advance(); err != nil { // "(" or ","
			return err
		}
		if p.tok.kind != tokenIdentifier {
			return errorAt(p.tok.line, "expected a test, found %s", p.tok.describe())
		}
		t, err := p.node(depth)
		if err != nil {
			return err
		}
		n.Tests = append(n.Tests, t)
		if p.tok.is(")") {
			return p.advance()
		}
		if !p.tok.is(",") {
			return errorAt(p.tok.line, "expected ',' or ')' after a test, found %s", p.tok.describe())
		}
	}
}

// argument reads one argument, if there is one.
func (p *parser) argument() (a Arg, found bool, err *Error) {
	a = Arg{Line: p.tok.line}
	switch {
	case p.tok.kind == tokenTag:
		a.Kind, a.Tag = ArgTag, p.tok.text
	case p.tok.kind == tokenNumber:
		a.Kind, a.Number = ArgNumber, p.tok.number
	case p.tok.kind == tokenString:
		a.Kind, a.Strings = ArgString, []Str{{p.tok.text, p.tok.line}}
	case p.tok.is("["):
		a.Kind = ArgStrings
		a.Strings, err = p.stringList()
		return a, err == nil, err
	default:
		return a, false, nil
	}
	err = p.advance()
	return a, err == nil, err
}

func (p *parser) stringList() ([]Str, *Error) {
	var list []Str
	for {
		if err := p.advance(); err != nil { // "[" or ","
			return nil, err
		}
		if p.tok.kind != tokenString {
			return nil, errorAt(p.tok.line, "expected a string in the list, found %s", p.tok.describe())
		}
		list = append(list, Str{p.tok.text, p.tok.line})
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.tok.is("]") {
			return list, p.advance()
		}
		if !p.tok.is(",") {
			return nil, errorAt(p.tok.line, "expected ',' or ']' after a string, found %s", p.tok.describe())
		}
	}
}
