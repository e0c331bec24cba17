// Package expand turns what a local recipient wants done with a message (a Sieve plan) into
// ordinary queue records, in one atomic step.
//
// Today every plan keeps: the message goes into the recipient's inbox, there is nothing to
// expand and so nothing to commit. The delivery asks a [Planner] all the same, at the place
// where scripts will answer.
package expand

import (
	"context"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Plan is what becomes of a message at one local recipient.
type Plan struct {
	// Folder and Flags say where and how the message is kept; "" is the inbox.
	Folder string
	Flags  []string
}

// Planner makes plans. It is called once per local recipient, after queueing, and has no
// side effects. An error means "try again later".
type Planner interface {
	Plan(ctx context.Context, e *queue.Entry, recipient int) (Plan, error)
}

// KeepAll is the Planner of recipients without a script: everything is kept in the inbox.
type KeepAll struct{}

// Plan returns the plan that keeps.
func (KeepAll) Plan(context.Context, *queue.Entry, int) (Plan, error) { return Plan{}, nil }

// MarkKey names what a plugin's plan for a recipient has remembered, in the queue.
func MarkKey(plugin string, recipient mail.Path, key string) string {
	return plugin + "\x00" + recipient.Fold().String() + "\x00" + key
}
