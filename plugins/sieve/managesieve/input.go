package managesieve

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// Limits on what is read.
const (
	// maxLine bounds a command without the content of its literals, in octets. RFC 5804 §4
	// has 1024 for one quoted string; many clients put long SASL responses into one.
	maxLine = 16 << 10
	// maxVerb is longer than any command's name.
	maxVerb = 32
	// maxArgs is more than any command has.
	maxArgs = 3
	// maxSkip bounds a literal that nobody wants and that is read over, before log-in.
	maxSkip = 64 << 10
	// small literals are not counted against the memory that all share.
	small = 4 << 10
)

// argKind is a kind of argument.
type argKind uint8

const (
	atomArg argKind = iota + 1
	numberArg
	stringArg
)

// arg is an argument of a command.
type arg struct {
	kind   argKind
	text   []byte // of a string or atom
	number uint32
	// long and dropped say why there is no text: it is longer than it may be, or there is no
	// memory now.
	long, dropped bool
}

// command is what a client wants.
type command struct {
	verb string // in upper case
	args []arg  // the first ones
	more bool   // there were more than maxArgs
	// taken is what its strings take of the shared memory.
	taken int64
}

// syntaxError is a command that is none, after which the next one can be read.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

// lostError is a command after which nobody can tell where the next one begins, or that asks
// for too much. The connection has to end.
type lostError struct{ code, text string }

func (e *lostError) Error() string { return e.text }

// input reads commands (RFC 5804 §4).
type input struct {
	r      *bufio.Reader
	memory *budget
	// keep says how many bytes of a command's i-th argument are wanted.
	keep func(verb string, i int) int
	// skip is how long a literal may be that is read over.
	skip  int64
	count int  // octets of the line so far
	sure  bool // the line has ended
	last  byte // that was read
}

// command reads the next one. It has to be released, also after a [syntaxError].
func (in *input) command() (*command, error) {
	const maxBlank = 8
	for blank := 0; ; blank++ {
		in.count, in.sure, in.last = 0, false, 0
		c := &command{}
		err := in.fill(c)
		switch {
		case err != nil:
			return c, in.recover(err)
		case c.verb != "" || len(c.args) > 0:
			return c, nil
		case blank == maxBlank: // some clients send one after a literal; to answer it would confuse them
			return c, &lostError{text: "Too many empty lines"}
		}
	}
}

// release gives back what a command takes of the shared memory.
func (in *input) release(c *command) {
	in.memory.giveBack(c.taken)
	c.taken = 0
}

// fill reads one line, with its literals.
func (in *input) fill(c *command) error {
	b, err := in.next()
	if err != nil || in.sure {
		return err
	}
	verb, err := in.atom(b)
	if err != nil {
		return err
	}
	if len(verb) > maxVerb {
		verb = verb[:maxVerb]
	}
	c.verb = strings.ToUpper(string(verb))
	for {
		if b, err = in.next(); err != nil || in.sure {
			return err
		}
		if b != ' ' {
			return syntaxError("Arguments stand apart from each other")
		}
		for b == ' ' { // some clients send two, or one at the end
			if b, err = in.next(); err != nil || in.sure {
				return err
			}
		}
		a, err := in.arg(b, c)
		if err != nil {
			return err
		}
		if len(c.args) < maxArgs {
			c.args = append(c.args, a)
		} else {
			c.more = true
		}
	}
}

// response reads a string on a line of its own: the answer to a challenge (RFC 5804 §2.1).
func (in *input) response() (arg, error) {
	in.count, in.sure, in.last = 0, false, 0
	c := &command{verb: "AUTHENTICATE", args: make([]arg, 1)} // as its second argument
	defer in.release(c)
	b, err := in.next()
	var a arg
	if err == nil && !in.sure {
		if a, err = in.arg(b, c); err == nil && !in.sure {
			if _, err = in.next(); err == nil && !in.sure {
				err = syntaxError("A response is one string")
			}
		}
	}
	if err == nil && a.kind != stringArg {
		err = syntaxError("A response is a string")
	}
	return a, in.recover(err)
}

// next returns the next octet. At the end of the line it sets sure.
func (in *input) next() (byte, error) {
	b, err := in.r.ReadByte()
	if err != nil {
		return 0, err
	}
	in.last = b
	if in.count++; in.count > maxLine {
		return 0, &lostError{text: "The line is too long"}
	}
	switch b {
	case '\r':
		if b, err = in.r.ReadByte(); err != nil {
			return 0, err
		}
		if b != '\n' {
			return 0, &lostError{text: "A CR stands alone"}
		}
		in.sure = true
	case '\n':
		return 0, &lostError{text: "Lines end with CR and LF"}
	case 0:
		return 0, &lostError{text: "There is a NUL"}
	}
	return b, nil
}

// recover reads over the rest of a line that is not a command.
func (in *input) recover(err error) error {
	if _, ok := err.(syntaxError); !ok {
		return err
	}
	for {
		switch {
		case in.last == '{' && !in.sure: // what follows may be data or commands
			return &lostError{text: err.Error()}
		case in.sure:
			return err
		}
		if _, e := in.next(); e != nil {
			return e
		}
	}
}

// arg reads an argument that begins with b.
func (in *input) arg(b byte, c *command) (arg, error) {
	keep := in.keep(c.verb, len(c.args))
	switch {
	case b == '"':
		return in.quoted(keep)
	case b == '{':
		return in.literal(keep, c)
	}
	text, err := in.atom(b)
	if err != nil {
		return arg{}, err
	}
	if b < '0' || b > '9' {
		return arg{kind: atomArg, text: text}, nil
	}
	n, ok := number(text)
	if !ok {
		return arg{}, syntaxError("That is not a number")
	}
	return arg{kind: numberArg, number: n}, nil
}

// number is 32 bits without leading zeros.
func number(text []byte) (uint32, bool) {
	if len(text) > 10 || len(text) == 0 || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	var n uint64
	for _, b := range text {
		if b < '0' || b > '9' {
			return 0, false
		}
		n = 10*n + uint64(b-'0')
	}
	return uint32(n), n < 1<<32
}

// atom reads one that begins with b. What ends it remains to be read.
func (in *input) atom(b byte) ([]byte, error) {
	var text []byte
	for {
		if !isAtom(b) {
			if b < ' ' || b == 0x7f { // TLS, or nothing that is meant for us
				return nil, &lostError{text: "There is a control character"}
			}
			return nil, syntaxError("There is a character that cannot be there")
		}
		text = append(text, b)
		ahead, err := in.r.Peek(1)
		if err != nil {
			return nil, err
		}
		if ahead[0] == ' ' || ahead[0] == '\r' || ahead[0] == '\n' {
			return text, nil
		}
		if b, err = in.next(); err != nil {
			return nil, err
		}
	}
}

func isAtom(b byte) bool {
	return b > ' ' && b < 0x7f && b != '(' && b != ')' && b != '{' && b != '"' && b != '\\'
}

// quoted reads a string up to its closing quote.
func (in *input) quoted(keep int) (arg, error) {
	var text []byte
	for {
		b, err := in.next()
		if err == nil && b == '\\' {
			if b, err = in.next(); err == nil && b != '"' && b != '\\' {
				err = syntaxError("A backslash stands before a quote or a backslash")
			}
		} else if err == nil && b == '"' {
			break
		}
		switch {
		case in.sure && bytes.IndexByte(text, '{') >= 0: // a literal may have been meant
			return arg{}, &lostError{text: "The string does not end"}
		case in.sure:
			return arg{}, syntaxError("The string does not end")
		case err != nil:
			return arg{}, err
		}
		text = append(text, b) // the line is bounded
	}
	if len(text) > keep {
		return arg{kind: stringArg, long: true}, nil
	}
	return arg{kind: stringArg, text: text}, nil
}

// literal reads "N+}", the end of the line and N octets.
func (in *input) literal(keep int, c *command) (arg, error) {
	digits := make([]byte, 0, 10)
	for {
		b, err := in.next()
		switch {
		case err != nil:
			return arg{}, err
		case b == '+':
			n, ok := number(digits)
			if !ok {
				return arg{}, &lostError{text: "That is not a literal"}
			}
			if err := in.expect("}\r"); err != nil {
				return arg{}, err
			}
			return in.octets(int64(n), keep, c)
		case len(digits) == cap(digits) || b < '0' || b > '9': // also "{N}", for which we would have to be asked
			return arg{}, &lostError{text: "That is not a literal"}
		}
		digits = append(digits, b)
	}
}

// expect reads what has to follow; "\r" stands for the end of a line, and the line goes on.
func (in *input) expect(s string) error {
	for i := range len(s) {
		if b, err := in.next(); err != nil {
			return err
		} else if b != s[i] && !(s[i] == '\r' && in.sure) {
			return &lostError{text: "That is not a literal"}
		}
	}
	if !in.sure {
		return &lostError{text: "That is not a literal"}
	}
	in.sure = false
	return nil
}

// octets reads the content of a literal.
func (in *input) octets(n int64, keep int, c *command) (arg, error) {
	a := arg{kind: stringArg}
	switch {
	case n > max(in.skip, int64(keep)):
		return a, &lostError{code: CodeMaxSize, text: "The literal is too large"}
	case n > int64(keep):
		a.long = true
	case n > small && !in.memory.take(n):
		a.dropped = true
	default:
		if n > small {
			c.taken += n
		}
		a.text = make([]byte, n)
		_, err := io.ReadFull(in.r, a.text)
		return a, err
	}
	_, err := io.CopyN(io.Discard, in.r, n)
	return a, err
}
