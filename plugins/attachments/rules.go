package attachments

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// action is what a rule does, in the order of severity.
type action int

const (
	accept action = iota
	strip
	quarantine
	reject
)

var actions = map[string]action{"accept": accept, "strip": strip, "quarantine": quarantine, "reject": reject}

// rule is a rule that has been checked.
type rule struct {
	name     string
	names    []string // patterns in lower case
	types    []string // words of the table in sniff.go
	declared []string // patterns of media types
	action   action
}

const maxPattern = 256 // bytes

func compile(r Rule, i int) (rule, error) {
	c := rule{name: printable(r.Name, 60)}
	if c.name == "" {
		c.name = fmt.Sprintf("rule %d", i+1)
	}
	a, ok := actions[r.Action]
	if !ok {
		return c, fmt.Errorf(`action: %q is none of "reject", "quarantine", "strip" and "accept"`, r.Action)
	}
	c.action = a
	if len(r.Names)+len(r.Types) == 0 {
		return c, errors.New("it has neither names nor types, so nothing would ever fit; give one of them")
	}
	for _, n := range r.Names {
		if n = strings.ToLower(strings.TrimSpace(n)); n == "" || len(n) > maxPattern {
			return c, fmt.Errorf("names: a pattern has 1 to %d bytes", maxPattern)
		}
		if !strings.ContainsAny(n, "*?.") { // an extension
			n = "*." + n
		} else if n[0] == '.' {
			n = "*" + n
		}
		c.names = append(c.names, n)
	}
	for _, t := range r.Types {
		switch t = strings.ToLower(strings.TrimSpace(t)); {
		case strings.Contains(t, "/") && len(t) <= maxPattern:
			c.declared = append(c.declared, t)
		case slices.Contains(typeWords, t):
			c.types = append(c.types, t)
		default:
			return c, fmt.Errorf("types: %q is none of %s, and no media type", t, strings.Join(typeWords, ", "))
		}
	}
	return c, nil
}

// fits reports whether the rule is about a file, and which of its properties says so.
func (r *rule) fits(f *file) (why string, ok bool) {
	for _, n := range f.forms {
		for _, pattern := range r.names {
			if wildcard(pattern, n) {
				return "named " + pattern, true
			}
		}
	}
	for _, t := range r.types {
		if slices.Contains(f.types, t) {
			return "type " + t, true
		}
	}
	for _, pattern := range r.declared {
		if wildcard(pattern, f.declared) {
			return "declared as " + pattern, true
		}
	}
	return "", false
}

// wildcard matches s against a pattern with * and ?. It goes back to the last * only, which
// takes at most len(pattern) * len(s) steps; both are bounded.
func wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
