package engine

import "strings"

// scanTest has what others found out: RFC 5235 and the environment of RFC 5183.
func scanTest(name string) (testSpec, bool) {
	switch name {
	case "spamtest":
		tags := matchTags(tagSpec{name: "percent", ext: "spamtestplus"})
		return testSpec{signature{ext: "spamtest", tags: tags, pos: []kind{str}}, buildScan}, true
	case "virustest":
		return testSpec{signature{ext: "virustest", tags: matchTags(), pos: []kind{str}}, buildScan}, true
	case "environment":
		return testSpec{signature{ext: "environment", tags: matchTags(), pos: []kind{str, strList}}, buildEnvironment}, true
	}
	return testSpec{}, false
}

func buildScan(c *compiler, b *bound) (cond, *Error) {
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	keys, err := c.keys(m, b.pos[0])
	if err != nil {
		return nil, err
	}
	virus, percent := strings.EqualFold(b.Name, "virustest"), b.has("percent")
	return condFunc(func(x *run) (bool, error) {
		value, tested := x.spamValue(percent), x.env.Spam >= 0
		if virus {
			value, tested = x.env.Virus, x.env.Virus > 0
		}
		if m.kind == matchCount { // RFC 5235 §2.1: 0 if it was not tested
			n := 0
			if tested {
				n = 1
			}
			return x.matchCount(m, n, x.texts(keys))
		}
		return x.matchValues(m, []string{itoa(max(0, value))}, x.texts(keys))
	}), nil
}

// spamValue is the percentage, or 1 (clean) to 10 (spam), or 0: not tested (RFC 5235 §2).
func (x *run) spamValue(percent bool) int {
	switch {
	case x.env.Spam < 0:
		return 0
	case percent:
		return min(100, x.env.Spam)
	}
	return 1 + min(100, x.env.Spam)*9/100
}

// buildEnvironment: an item that nobody knows matches nothing (RFC 5183 §4).
func buildEnvironment(c *compiler, b *bound) (cond, *Error) {
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	item, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	keys, err := c.keys(m, b.pos[1])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		value, ok := x.env.Items[strings.ToLower(x.text(item))]
		if !ok {
			return false, nil
		}
		values := []string{value}
		if value == "" && m.kind == matchCount {
			values = nil
		}
		return x.matchValues(m, values, x.texts(keys))
	}), nil
}
