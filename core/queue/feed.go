package queue

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
)

// Change is one committed fact about a recipient, as a [Feed] tells it.
type Change struct {
	Seq       uint64 // of its commit; grows, and is the same when it is told again
	ID        ID
	Family    ID
	Recipient int
	Added     bool // the entry was committed with this record; else the record replaced another
	// Begun: an attempt begins (the record is the intent, its status that of the attempt
	// before). Where the attempts before are not known any more it is left out.
	Begun  bool
	Copy   bool // of an entry that is a copy made by a plugin
	Record Record
	// From and To are zero where the entry is done and was not read lately.
	From, To mail.Path
}

// Feed tells what is committed, in order, to followers with a durable cursor each.
type Feed interface {
	// Follow calls yield with what was committed since the cursor called name, again and
	// again, until ctx ends. The cursor moves once yield has returned nil, and durably some
	// time later: after a crash a little is told again, and nothing is left out. After an
	// error of yield the same changes are told again at once: to wait is its business. One
	// follower a name.
	Follow(ctx context.Context, name string, yield func(context.Context, []Change) error) error
	// Keep makes names the cursors: new ones begin with what is committed from now on, and
	// those not named are forgotten, unless somebody follows them.
	Keep(names []string) error
}
