package engine

import (
	"errors"
	"strings"
)

// ErrNoScript is what Env.Script returns for a name that nobody has given a script.
var ErrNoScript = errors.New("there is no such script")

// includeCommand has the commands of RFC 6609.
func includeCommand(name string) (commandSpec, bool) {
	switch name {
	case "include":
		return commandSpec{signature{ext: "include", tags: []tagSpec{
			{name: "personal", group: "location"}, {name: "global", group: "location"}, {name: "once"}, {name: "optional"},
		}, pos: []kind{str}}, buildInclude}, true
	case "return":
		return commandSpec{signature{ext: "include"}, func(*compiler, *bound) (step, *Error) {
			return stepFunc(func(*run) error { return errReturn }), nil
		}}, true
	case "global":
		return commandSpec{signature{ext: "include", pos: []kind{strList}}, buildGlobal}, true
	}
	return commandSpec{}, false
}

func buildInclude(c *compiler, b *bound) (step, *Error) {
	s := b.pos[0].Strings[0]
	name, err := c.text(s)
	switch {
	case err != nil:
		return nil, err
	case !name.constant():
		return nil, errorAt(s.Line, "the name of an included script cannot have variables") // RFC 6609 §3.2
	case !ValidScriptName(name.lit):
		return nil, errorAt(s.Line, "'%s' is no name of a script", printable(name.lit))
	}
	location := "personal"
	if b.has("global") {
		location = "global"
	}
	return stepFunc(func(x *run) error {
		return x.include(location, name.lit, b.has("once"), b.has("optional"), b.Line)
	}), nil
}

// ValidScriptName reports whether a script can have this name: it bounds the names of scripts (RFC 5804 §1.6), and leaves no way out of a folder.
func ValidScriptName(s string) bool {
	return s != "" && len(s) <= 512 && s != "." && s != ".." && strings.IndexFunc(s, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r <= 0x9f || r == '/' || r == '\\' || r == '\u2028' || r == '\u2029' || r == '\uFFFD'
	}) < 0
}

func (x *run) include(location, name string, once, optional bool, line int) error {
	id := location + "/" + name
	if once && x.seen[id] {
		return nil
	}
	x.seen[id] = true
	for _, s := range x.stack {
		if s == id {
			return x.fault(line, "script '%s' includes itself", name)
		}
	}
	if x.included++; x.included > x.limits.Includes {
		return x.fault(line, "more than %d scripts are included", x.limits.Includes)
	}
	if len(x.stack) >= x.limits.IncludeDepth {
		return x.fault(line, "scripts include each other more than %d deep", x.limits.IncludeDepth)
	}
	s, err := x.load(location, name, line)
	if err != nil {
		if optional && errors.Is(err, ErrNoScript) {
			x.explain(line, "  script '%s' does not exist", name)
			return nil
		}
		if errors.Is(err, ErrNoScript) {
			return x.fault(line, "there is no %s script '%s' to include", location, name)
		}
		return err
	}
	outer := x.frame
	x.frame, x.stack = &frame{script: s}, append(x.stack, id)
	err = x.block(s.body)
	x.frame, x.stack = outer, x.stack[:len(x.stack)-1]
	if errors.Is(err, errReturn) {
		return nil
	}
	return err
}

// load finds and compiles a script; each once in a run.
func (x *run) load(location, name string, line int) (*Script, error) {
	id := location + "/" + name
	if s, ok := x.loaded[id]; ok {
		return s, nil
	}
	if x.env.Script == nil {
		return nil, ErrNoScript
	}
	src, err := x.env.Script(x.ctx, location, name)
	if err != nil {
		return nil, err
	}
	if err := x.spend(int64(len(src)), line); err != nil {
		return nil, err
	}
	o := x.frame.script.options
	o.Name = id
	s, err := Compile(src, o)
	if err != nil {
		return nil, err // an Error that names the script: the run has failed
	}
	if x.loaded == nil {
		x.loaded = make(map[string]*Script)
	}
	x.loaded[id] = s
	return s, nil
}

// buildGlobal makes variables those of all scripts (RFC 6609 §3.4).
func buildGlobal(c *compiler, b *bound) (step, *Error) {
	if !c.has("variables") {
		return nil, errorAt(b.Line, "'global' needs the extension 'variables': add it to 'require'")
	}
	var names []string
	for _, s := range b.pos[0].Strings {
		switch {
		case !isIdentifier(s.Text):
			return nil, errorAt(s.Line, "'%s' is no name of a variable", printable(s.Text))
		case c.set[strings.ToLower(s.Text)]: // RFC 6609 §3.4.1
			return nil, errorAt(s.Line, "variable '%s' was set before it is made global", s.Text)
		}
		names = append(names, strings.ToLower(s.Text))
		c.global[strings.ToLower(s.Text)] = true
	}
	return stepFunc(func(x *run) error {
		if x.frame.globals == nil {
			x.frame.globals = make(map[string]bool)
		}
		for _, n := range names {
			x.frame.globals[n] = true
		}
		return nil
	}), nil
}
