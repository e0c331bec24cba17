package engine

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// flagCommand has the commands of imap4flags (RFC 5232 §3).
func flagCommand(name string) (commandSpec, bool) {
	switch name {
	case "setflag", "addflag", "removeflag":
		return commandSpec{signature{ext: "imap4flags", pos: []kind{str, strList}, lead: 1}, buildFlag}, true
	}
	return commandSpec{}, false
}

func buildFlag(c *compiler, b *bound) (step, *Error) {
	name, err := c.flagVariable(b)
	if err != nil {
		return nil, err
	}
	list, err := c.texts(b.pos[len(b.pos)-1])
	if err != nil {
		return nil, err
	}
	op := strings.ToLower(b.Name)
	return stepFunc(func(x *run) error {
		flags := splitFlags(x.texts(list))
		old := x.flagsOf(name)
		switch op {
		case "addflag":
			flags = joinFlags(append(old[:len(old):len(old)], flags...))
		case "removeflag":
			flags = withoutFlags(old, flags)
		default:
			flags = joinFlags(flags)
		}
		if name == "" {
			x.flags = flags
			return x.spend(int64(len(flags)), b.Line)
		}
		return x.set("", name, strings.Join(flags, " "), b.Line)
	}), nil
}

// flagVariable is the variable that a command of imap4flags names; "" is the internal one.
func (c *compiler) flagVariable(b *bound) (string, *Error) {
	if len(b.pos) < 2 {
		return "", nil
	}
	s := b.pos[0].Strings[0]
	if !c.has("variables") {
		return "", errorAt(s.Line, "a variable for flags needs the extension 'variables': add it to 'require'")
	}
	space, name, err := c.splitName(s.Text, s.Line)
	if err == nil && space != "" {
		err = errorAt(s.Line, "flags cannot be kept in '%s'", printable(s.Text))
	}
	return name, err
}

func (x *run) flagsOf(name string) []string {
	if name == "" {
		return x.flags
	}
	return joinFlags(splitFlags([]string{x.variable("", name)}))
}

// splitFlags takes strings with flags that blanks separate (RFC 5232 §2), and leaves out what is no flag.
func splitFlags(list []string) []string {
	var flags []string
	for _, s := range list {
		for _, f := range strings.Split(s, " ") {
			if isFlag(f) {
				flags = append(flags, f)
			}
		}
	}
	return flags
}

// isFlag reports whether s is a keyword or a system flag that may be set (RFC 3501 §9: flag).
func isFlag(s string) bool {
	if strings.HasPrefix(s, `\`) {
		switch lowerASCII(s) {
		case `\answered`, `\flagged`, `\deleted`, `\seen`, `\draft`:
			return true
		}
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`(){%*"\]`, s[i]) >= 0 {
			return false
		}
	}
	return s != ""
}

// joinFlags leaves out what is there before; case does not matter.
func joinFlags(list []string) []string {
	var flags []string
	seen := make(map[string]bool, len(list))
	for _, f := range list {
		if k := lowerASCII(f); !seen[k] {
			seen[k] = true
			flags = append(flags, f)
		}
	}
	return flags
}

func withoutFlags(list, remove []string) []string {
	gone := make(map[string]bool, len(remove))
	for _, f := range remove {
		gone[lowerASCII(f)] = true
	}
	var flags []string
	for _, f := range list {
		if !gone[lowerASCII(f)] {
			flags = append(flags, f)
		}
	}
	return flags
}

// flagsTag takes the tag :flags; nil: there is none.
func (c *compiler) flagsTag(b *bound) (*[]text, *Error) {
	a, ok := b.tags["flags"]
	if !ok {
		return nil, nil
	}
	list, err := c.texts(a)
	return &list, err
}

// actionFlags are the flags of a keep or fileinto: those of its tag, or the internal ones (RFC 5232 §5).
func (x *run) actionFlags(tag *[]text) []string {
	if tag == nil {
		return x.flags
	}
	return joinFlags(splitFlags(x.texts(*tag)))
}

// flagTest has "hasflag" (RFC 5232 §4).
func flagTest(name string) (testSpec, bool) {
	if name != "hasflag" {
		return testSpec{}, false
	}
	return testSpec{signature{ext: "imap4flags", tags: matchTags(), pos: []kind{strList, strList}, lead: 1}, buildHasFlag}, true
}

func buildHasFlag(c *compiler, b *bound) (cond, *Error) {
	m, err := c.matcher(b)
	if err != nil {
		return nil, err
	}
	var names []string // "" is the internal variable
	if len(b.pos) < 2 {
		names = []string{""}
	} else {
		for _, s := range b.pos[0].Strings {
			one := &bound{Node: b.Node, pos: []Arg{{Strings: []Str{s}}, {}}}
			name, err := c.flagVariable(one)
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
	}
	keys, err := c.keys(m, b.pos[len(b.pos)-1])
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		var flags []string
		for _, n := range names {
			flags = append(flags, x.flagsOf(n)...)
		}
		wanted := x.texts(keys)
		switch m.kind {
		case matchIs: // a key may name several flags: any of them will do
			wanted = splitFlags(wanted)
		case matchContains, matchMatches:
			wanted = strings.FieldsFunc(strings.Join(wanted, " "), func(r rune) bool { return r == ' ' })
		}
		return x.matchValues(m, flags, wanted)
	}), nil
}
