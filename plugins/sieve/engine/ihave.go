package engine

import "slices"

// ihaveTest has "ihave" (RFC 5463). What it finds may be used once it has answered, as if it were required.
func ihaveTest(name string) (testSpec, bool) {
	if name != "ihave" {
		return testSpec{}, false
	}
	return testSpec{signature{ext: "ihave", pos: []kind{strList}}, buildIhave}, true
}

// buildIhave: what there is is known when the script is compiled; that it was asked for only shows when it runs.
func buildIhave(c *compiler, b *bound) (cond, *Error) {
	h := ihave{all: true}
	for _, s := range b.pos[0].Strings {
		t, err := c.text(s)
		if err != nil {
			return nil, err
		}
		if !t.constant() {
			return nil, errorAt(s.Line, "the capabilities of 'ihave' cannot have variables")
		}
		// Of what changes how a script is read, it has none (RFC 5463 §4).
		h.all = h.all && c.supports(s.Text) && s.Text != "variables" && s.Text != "encoded-character"
		h.list = append(append(h.list, s.Text), implies(s.Text)...)
	}
	if h.all && c.dead == 0 {
		for _, ext := range h.list {
			c.found[ext] = true
		}
	}
	return h, nil
}

// ihave is an answer, and what becomes usable with it.
type ihave struct {
	list []string
	all  bool
}

func (h ihave) test(x *run) (bool, error) {
	if h.all {
		x.frame.found = append(x.frame.found, h.list...)
	}
	return h.all, nil
}

// needing is a command or a test that uses what "ihave" has to find before.
type needing struct {
	list []string
	line int
	step
	cond
}

func (n needing) run(x *run) error {
	if err := n.check(x); err != nil {
		return err
	}
	return n.step.run(x)
}

func (n needing) test(x *run) (bool, error) {
	if err := n.check(x); err != nil {
		return false, err
	}
	return n.cond.test(x)
}

func (n needing) check(x *run) error {
	for _, ext := range n.list {
		if !slices.Contains(x.frame.found, ext) {
			return x.fault(n.line, "the extension '%s' is used before 'ihave' has found it", ext)
		}
	}
	return nil
}

// never reports whether a test fails because of what "ihave" does not find, whatever the message: what stands behind
// it may be in a language that is not known here.
func never(t cond) bool {
	switch t := t.(type) {
	case tracedTest:
		return never(t.cond)
	case ihave:
		return !t.all
	case junction:
		if t.decides {
			return len(t.list) > 0 && !slices.ContainsFunc(t.list, func(t cond) bool { return !never(t) })
		}
		return slices.ContainsFunc(t.list, never)
	}
	return false
}

// ihaveCommand has "error" (RFC 5463 §5).
func ihaveCommand(name string) (commandSpec, bool) {
	if name != "error" {
		return commandSpec{}, false
	}
	return commandSpec{signature{ext: "ihave", pos: []kind{str}}, func(c *compiler, b *bound) (step, *Error) {
		message, err := c.text(b.pos[0].Strings[0])
		if err != nil {
			return nil, err
		}
		return stepFunc(func(x *run) error { return x.fault(b.Line, "%s", cut(x.text(message), 1024)) }), nil
	}}, true
}
