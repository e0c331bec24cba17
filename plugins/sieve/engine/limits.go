package engine

// Limits bound what a script may cost. Zero values stand for the defaults.
type Limits struct {
	// ScriptSize is the largest script, in bytes. Default: 1 MiB.
	ScriptSize int
	// Nesting is how deep blocks and tests may be nested; RFC 5228 §2.10.5 wants 15 at least. Default: 32.
	Nesting int
	// Actions is how many actions a run may take. Default: 32.
	Actions int
	// Redirects is how many of them may be redirects. Default: 4.
	Redirects int
	// VariableSize is the longest value of a variable, in bytes; longer ones are cut (RFC 5229 §6 wants 4,000
	// characters at least). Default: 64 KiB.
	VariableSize int
	// Variables is how many variables a run may have. Default: 256.
	Variables int
	// IncludeDepth is how deep scripts may include each other (RFC 6609 §3.2 wants 3 at least). Default: 10.
	IncludeDepth int
	// Includes is how many scripts a run may include. Default: 255.
	Includes int
	// Work is what a run may cost, in units of about one byte that is looked at. Default: 256 Mi.
	Work int64
	// BodySize is how much of a message's body scripts get to see, in bytes. Default: 32 MiB.
	BodySize int64
	// HeaderEdits is how many header fields a run may add. Default: 128.
	HeaderEdits int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.ScriptSize, 1<<20)
	set(&l.Nesting, 32)
	set(&l.Actions, 32)
	set(&l.Redirects, 4)
	set(&l.VariableSize, 64<<10)
	set(&l.Variables, 256)
	set(&l.IncludeDepth, 10)
	set(&l.Includes, 255)
	set(&l.HeaderEdits, 128)
	if l.Work == 0 {
		l.Work = 256 << 20
	}
	if l.BodySize == 0 {
		l.BodySize = 32 << 20
	}
	return l
}
