package engine

// ihaveTest has "ihave" (RFC 5463). It is answered when the script is compiled: what it finds may be used from there
// on as if it were required.
func ihaveTest(name string) (testSpec, bool) {
	if name != "ihave" {
		return testSpec{}, false
	}
	return testSpec{signature{ext: "ihave", pos: []kind{strList}}, func(c *compiler, b *bound) (cond, *Error) {
		all := true
		for _, s := range b.pos[0].Strings {
			all = all && c.supports(s.Text)
		}
		if all {
			for _, s := range b.pos[0].Strings {
				c.enable(s.Text)
			}
		}
		return constant(all), nil
	}}, true
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
