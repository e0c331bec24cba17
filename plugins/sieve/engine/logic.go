package engine

// logicTest has the tests that look at other tests (RFC 5228 §5).
func logicTest(name string) (testSpec, bool) {
	switch name {
	case "true", "false":
		return testSpec{signature{}, func(*compiler, *bound) (cond, *Error) { return constant(name == "true"), nil }}, true
	case "not":
		return testSpec{signature{tests: 1}, func(c *compiler, b *bound) (cond, *Error) { return negation{c.test(b.Tests[0])}, nil }}, true
	case "allof", "anyof":
		return testSpec{signature{tests: many}, func(c *compiler, b *bound) (cond, *Error) {
			j := junction{decides: name == "anyof"}
			dead := c.dead
			for _, t := range b.Tests {
				j.list = append(j.list, c.test(t))
				if !j.decides && never(j.list[len(j.list)-1]) {
					c.dead++ // the tests that follow are not asked
				}
			}
			c.dead = dead
			return j, nil
		}}, true
	}
	return testSpec{}, false
}

type constant bool

func (c constant) test(*run) (bool, error) { return bool(c), nil }

type negation struct{ of cond }

func (n negation) test(x *run) (bool, error) {
	ok, err := n.of.test(x)
	return !ok, err
}

// junction asks tests in order until one answers with what decides: true for anyof, false for allof.
type junction struct {
	list    []cond
	decides bool
}

func (j junction) test(x *run) (bool, error) {
	for _, t := range j.list {
		if ok, err := t.test(x); err != nil || ok == j.decides {
			return ok, err
		}
	}
	return !j.decides, nil
}
