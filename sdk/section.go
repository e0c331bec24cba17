package sdk

// Section is one of the bodies that a planner writes into the draft of its call, for
// [Plan.WithBody]. [Body.Cut] makes it. The zero Section is none.
type Section struct {
	Draft  string // as the gateway named it
	Offset int64  // where it begins, in bytes
	Size   int64  // in bytes
}

// IsZero reports whether s is no body.
func (s Section) IsZero() bool { return s == Section{} }

// Cut ends a section: all that was written since the one before, or since the begin.
func (b *Body) Cut() Section {
	s := Section{Draft: b.d.Path, Offset: b.cut, Size: b.d.Size - b.cut}
	b.cut = b.d.Size
	return s
}
