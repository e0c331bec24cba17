package engine

import (
	"errors"
	"fmt"
)

// Error is what is wrong with a script, and where.
type Error struct {
	Script  string // name of an included script; "" is the one that was given
	Line    int    // from 1
	Message string

	unknown bool // it is about a name that an extension could have brought
}

// Error names the line and says what is wrong.
func (e *Error) Error() string {
	if e.Script != "" {
		return fmt.Sprintf("%s: line %d: %s", e.Script, e.Line, e.Message)
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// ErrTemporary, wrapped by an error of a callback of [Env], says that the answer is not to be had now: [Script.Run]
// then returns it instead of carrying on with an implicit keep, and the run is to be repeated later.
var ErrTemporary = errors.New("not to be had now")

// unknownAt is an error about a name that is not known, or may not be used without an extension.
func unknownAt(line int, format string, args ...any) *Error {
	return &Error{Line: line, Message: fmt.Sprintf(format, args...), unknown: true}
}

func errorAt(line int, format string, args ...any) *Error {
	return &Error{Line: line, Message: fmt.Sprintf(format, args...)}
}
