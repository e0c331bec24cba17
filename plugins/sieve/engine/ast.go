package engine

// Tree is a parsed script: its commands, of which nothing but the grammar is known.
type Tree struct{ Commands []*Node }

// Node is a command or a test (RFC 5228 §8.2).
type Node struct {
	Name  string // as written
	Line  int    // from 1
	Args  []Arg
	Tests []*Node
	List  bool // the tests stand in parentheses
	// Block has the commands between braces; HasBlock tells an empty block from none.
	Block    []*Node
	HasBlock bool
}

// ArgKind is a kind of argument.
type ArgKind uint8

// The kinds of arguments.
const (
	ArgString ArgKind = iota + 1
	ArgStrings
	ArgNumber
	ArgTag
)

// String names the kind in errors.
func (k ArgKind) String() string {
	return [...]string{"nothing", "a string", "a list of strings", "a number", "a tag"}[k]
}

// Arg is one argument.
type Arg struct {
	Kind    ArgKind
	Line    int
	Tag     string // without the colon, as written
	Number  int64
	Strings []Str // one for ArgString
}

// Str is one string of a script.
type Str struct {
	Text string
	Line int
}
