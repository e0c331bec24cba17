package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/plugins/internal/mime"
)

// step is a compiled command, cond a compiled test.
type (
	step interface{ run(*run) error }
	cond interface{ test(*run) (bool, error) }
)

// How a run ends before its last command.
var (
	errStop   = errors.New("stop")
	errReturn = errors.New("return")
)

// run is one run of a script over a message.
type run struct {
	ctx          context.Context
	env          *Env
	limits       Limits
	msg          *view
	result       *Result
	frame        *frame
	globals      map[string]string
	flags        []string        // the internal variable of imap4flags
	seen         map[string]bool // scripts that were included
	included     int
	work         int64
	made         int64 // bytes of bodies that the script has made
	regexes      map[regexKey]regex
	stack        []string // scripts that are being included
	loaded       map[string]*Script
	duplicates   map[string]bool
	part         *mime.Part // that the innermost loop is at; nil: no loop
	loops        int
	replacements map[*mime.Part]replacement
	keep         bool // the implicit keep still stands
	vacation     bool
}

// frame is what belongs to one script of a run: included ones have their own.
type frame struct {
	script  *Script
	vars    map[string]string
	globals map[string]bool // variables that the command global shares
	matches []string
	found   []string // by ihave
}

// Run runs the script over a message. What it wants done is the Result; nothing is done. A fault of the script leaves
// an implicit keep and the fault in the result. The error is that of ctx, or says that something the script needs is
// not to be had now ([ErrTemporary]): run it again later.
func (s *Script) Run(ctx context.Context, m *Message, env *Env) (*Result, error) {
	x := &run{ctx: ctx, env: env, limits: s.limits, msg: newView(m, s.limits), result: &Result{}, keep: true,
		frame: &frame{script: s}, globals: make(map[string]string), seen: make(map[string]bool)}
	err := x.block(s.body)
	if err == nil || errors.Is(err, errStop) || errors.Is(err, errReturn) {
		err = x.finish()
	}
	if err == nil {
		return x.result, nil
	}
	var fault *Error
	if !errors.As(err, &fault) {
		return nil, err
	}
	return &Result{Fault: fault, Actions: []Action{{Kind: Keep, Implicit: true}}, Steps: x.result.Steps}, nil
}

func (x *run) block(steps []step) error {
	for _, s := range steps {
		if err := s.run(x); err != nil {
			return err
		}
	}
	return nil
}

// spend counts work and looks for the end of the caller's patience.
func (x *run) spend(units int64, line int) error {
	x.work += units + 1
	if x.work > x.limits.Work {
		return x.fault(line, "the script takes too long")
	}
	if x.work&0xfff < units+1 {
		if err := x.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// What the parts of a message cost to go over, beside their bytes. Work that is added without spend counts when
// something is spent next.
const (
	perItem  = 4    // a string of a list, a field that is passed over
	perField = 128  // a field that is looked at, or copied
	perPart  = 256  // a MIME part
	perDate  = 4096 // a date that is read
)

// fault ends the run for a mistake in the script.
func (x *run) fault(line int, format string, args ...any) error {
	return &Error{Script: x.frame.script.name, Line: line, Message: fmt.Sprintf(format, args...)}
}

// explain adds to the list of steps, if somebody wants it.
func (x *run) explain(line int, format string, args ...any) {
	if !x.env.Explain || len(x.result.Steps) >= maxSteps {
		return
	}
	for i, a := range args {
		if s, ok := a.(string); ok && len(s) > 200 {
			args[i] = s[:200] + "..."
		}
	}
	x.result.Steps = append(x.result.Steps, Step{Script: x.frame.script.name, Line: line, Text: fmt.Sprintf(format, args...)})
}

// maxSteps bounds the list of steps.
const maxSteps = 10_000

// text expands a string.
func (x *run) text(t text) string {
	if t.parts == nil {
		return t.lit
	}
	var b strings.Builder
	for _, p := range t.parts {
		s, room := x.piece(p), x.limits.VariableSize-b.Len()
		b.WriteString(cut(s, room))
		if len(s) > room {
			break
		}
	}
	x.work += int64(b.Len())
	return b.String()
}

func (x *run) piece(p part) string {
	switch {
	case p.lit != "":
		return p.lit
	case p.name != "":
		return x.variable(p.space, p.name)
	case p.match < len(x.frame.matches):
		return x.frame.matches[p.match]
	}
	return ""
}

func (x *run) texts(list []text) []string {
	x.work += perItem * int64(len(list))
	s := make([]string, len(list))
	for i, t := range list {
		s[i] = x.text(t)
	}
	return s
}

// traced tells of a command that runs.
type traced struct {
	line int
	name string
	step
}

func (t traced) run(x *run) error {
	if err := x.spend(1, t.line); err != nil {
		return err
	}
	x.explain(t.line, "%s", t.name)
	return t.step.run(x)
}

// tracedTest tells of a test and its answer.
type tracedTest struct {
	line int
	name string
	cond
}

func (t tracedTest) test(x *run) (bool, error) {
	if err := x.spend(1, t.line); err != nil {
		return false, err
	}
	ok, err := t.cond.test(x)
	if err == nil {
		x.explain(t.line, "%s: %t", t.name, ok)
	}
	return ok, err
}

// ifStep is a whole conditional.
type ifStep struct{ branches []ifBranch }

type ifBranch struct {
	line int
	cond cond // nil: else
	body []step
}

func (s *ifStep) run(x *run) error {
	for _, b := range s.branches {
		if b.cond != nil {
			ok, err := b.cond.test(x)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
		}
		return x.block(b.body)
	}
	return nil
}

// stepFunc and condFunc are steps and tests without a type of their own.
type (
	stepFunc func(*run) error
	condFunc func(*run) (bool, error)
)

func (f stepFunc) run(x *run) error          { return f(x) }
func (f condFunc) test(x *run) (bool, error) { return f(x) }
