package engine

import (
	"slices"
	"strings"
)

// Options are what a script may use.
type Options struct {
	// Extensions are the capabilities that a script may require; nil: all of [Extensions].
	Extensions []string
	Limits     Limits
	// Name is the script's own, for errors of included scripts; "" for the one given.
	Name string
}

// Script is a compiled script. It never changes and is safe for concurrent use.
type Script struct {
	name     string
	body     []step
	requires []string
	limits   Limits
	options  Options
}

// Requires lists the capabilities that the script requires, in its order.
func (s *Script) Requires() []string { return slices.Clone(s.requires) }

// Compile checks a script and makes it ready to run. The error is an [*Error]: the first fault.
func Compile(src []byte, o Options) (*Script, error) {
	s, errs := Check(src, o)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return s, nil
}

// maxErrors ends the search for faults.
const maxErrors = 20

// Check is Compile with all faults, the first twenty at most. The script is nil if there are any.
func Check(src []byte, o Options) (*Script, []*Error) {
	o.Limits = o.Limits.withDefaults()
	tree, err := Parse(src, o.Limits)
	if err != nil {
		fault := err.(*Error) // of Parse
		fault.Script = o.Name
		return nil, []*Error{fault}
	}
	c := &compiler{options: o, exts: make(map[string]bool), found: make(map[string]bool), set: make(map[string]bool), global: make(map[string]bool)}
	s := &Script{name: o.Name, limits: o.Limits, options: o}
	s.body = c.script(tree)
	s.requires = c.requires
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	return s, nil
}

// compiler turns a tree into steps.
type compiler struct {
	options    Options
	exts       map[string]bool // required
	found      map[string]bool // by ihave
	uses       []string        // of found, by the command or test that is being compiled
	dead       int             // above 0: behind an ihave that fails
	requires   []string
	errs       []*Error
	set        map[string]bool // variables that "set" sets before they are global
	global     map[string]bool // and those that are
	regexSteps int64           // of the regular expressions so far
	loops      []string        // names of the loops around, "" for one without (RFC 5703 §3)
}

func (c *compiler) fail(err *Error) {
	if c.dead == 0 && len(c.errs) < maxErrors {
		err.Script = c.options.Name
		c.errs = append(c.errs, err)
	}
}

// has reports whether an extension may be used here; "" always.
func (c *compiler) has(ext string) bool {
	if ext == "" || c.exts[ext] {
		return true
	}
	if c.found[ext] {
		c.uses = append(c.uses, ext)
	}
	return c.found[ext]
}

// lenient reports whether faults that an extension's absence could explain only count when they are met
// (RFC 5463 §4).
func (c *compiler) lenient() bool { return c.exts["ihave"] }

func (c *compiler) script(tree *Tree) []step {
	body := tree.Commands
	for len(body) > 0 && strings.EqualFold(body[0].Name, "require") {
		c.require(body[0])
		body = body[1:]
	}
	return c.block(body)
}

// require takes the capabilities of one command (RFC 5228 §3.2).
func (c *compiler) require(n *Node) {
	b, err := bind(c, n, signature{pos: []kind{strList}})
	if err != nil {
		c.fail(err)
		return
	}
	for _, s := range b.pos[0].Strings {
		if !c.supports(s.Text) {
			c.fail(errorAt(s.Line, "unknown capability '%s'", printable(s.Text)))
			continue
		}
		if !c.exts[s.Text] {
			c.requires = append(c.requires, s.Text)
		}
		c.enable(s.Text)
	}
}

// supports reports whether a script may require a capability.
func (c *compiler) supports(ext string) bool {
	if c.options.Extensions != nil && !slices.Contains(c.options.Extensions, ext) {
		return false
	}
	return slices.Contains(Extensions(), ext)
}

func (c *compiler) enable(ext string) {
	c.exts[ext] = true
	for _, implied := range implies(ext) {
		c.exts[implied] = true
	}
}

// implies lists what an extension brings with it.
func implies(ext string) []string {
	switch ext {
	case "spamtestplus":
		return []string{"spamtest"} // RFC 5235 §2.2
	case "vacation-seconds":
		return []string{"vacation"} // RFC 6131 §2
	case "mboxmetadata", "servermetadata":
		return nil
	}
	return nil
}

// block compiles commands, joining the parts of conditionals.
func (c *compiler) block(nodes []*Node) []step {
	var steps []step
	var chain *ifStep // an if that an elsif or else may continue
	for _, n := range nodes {
		name := strings.ToLower(n.Name)
		switch name {
		case "if":
			chain = &ifStep{}
			steps = append(steps, chain)
			c.branch(chain, n, true)
			continue
		case "elsif", "else":
			if chain == nil {
				c.fail(errorAt(n.Line, "'%s' has to follow an 'if' or 'elsif'", name))
				chain = &ifStep{}
			}
			c.branch(chain, n, name == "elsif")
			if name == "else" {
				chain = nil
			}
			continue
		}
		chain = nil
		if s := c.statement(n, name); s != nil {
			steps = append(steps, s)
		}
	}
	return steps
}

// branch compiles one part of a conditional (RFC 5228 §3.1).
func (c *compiler) branch(chain *ifStep, n *Node, conditional bool) {
	sig := signature{block: true}
	if conditional {
		sig.tests = 1
	}
	if _, err := bind(c, n, sig); err != nil {
		c.fail(err)
		return
	}
	b := ifBranch{line: n.Line}
	if conditional {
		b.cond = c.test(n.Tests[0])
		if never(b.cond) {
			c.dead++
			defer func() { c.dead-- }()
		}
	}
	b.body = c.block(n.Block)
	chain.branches = append(chain.branches, b)
}

// statement compiles any other command; nil if it failed.
func (c *compiler) statement(n *Node, name string) step {
	if name == "require" {
		c.fail(errorAt(n.Line, "'require' has to stand before all other commands"))
		return nil
	}
	outer := c.uses
	defer func() { c.uses = outer }()
	c.uses = nil
	spec, ok := findCommand(name)
	if !ok || !c.has(spec.sig.ext) {
		return c.deferred(unknown("command", n, ok, spec.sig.ext))
	}
	b, err := bind(c, n, spec.sig)
	if err == nil {
		var s step
		if s, err = spec.build(c, b); err == nil {
			if len(c.uses) > 0 {
				s = needing{list: c.uses, line: n.Line, step: s}
			}
			return traced{line: n.Line, name: name, step: s}
		}
	}
	return c.deferred(err)
}

// test compiles a test; it is never nil.
func (c *compiler) test(n *Node) cond {
	name := strings.ToLower(n.Name)
	outer := c.uses
	defer func() { c.uses = outer }()
	c.uses = nil
	spec, ok := findTest(name)
	if !ok || !c.has(spec.sig.ext) {
		return c.deferred(unknown("test", n, ok, spec.sig.ext))
	}
	b, err := bind(c, n, spec.sig)
	if err == nil {
		var t cond
		if t, err = spec.build(c, b); err == nil {
			if len(c.uses) > 0 {
				t = needing{list: c.uses, line: n.Line, cond: t}
			}
			return tracedTest{line: n.Line, name: name, cond: t}
		}
	}
	return c.deferred(err)
}

func unknown(what string, n *Node, known bool, ext string) *Error {
	if known {
		return unknownAt(n.Line, "%s '%s' needs the extension '%s': add it to 'require'", what, n.Name, ext)
	}
	return unknownAt(n.Line, "unknown %s '%s'", what, n.Name)
}

// deferred is what becomes of something that does not compile: a fault now or, where the script asks what is
// supported, when it is reached.
func (c *compiler) deferred(err *Error) faulty {
	if !err.unknown || !c.lenient() {
		c.fail(err)
	}
	return faulty{err}
}

// faulty fails when it is reached.
type faulty struct{ err *Error }

func (f faulty) run(*run) error          { return f.err }
func (f faulty) test(*run) (bool, error) { return false, f.err }

// printable cuts and cleans a string of a script for an error.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
