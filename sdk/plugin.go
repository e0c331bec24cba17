package sdk

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
)

// Filter judges whole messages before the client gets its reply.
type Filter interface {
	// Filter is called once per version of a message, concurrently. An error is a
	// failure of the plugin (its on_failure decides), not a verdict on the message.
	Filter(ctx context.Context, m *mail.Message) (*Verdict, error)
}

// Mailbox stores messages: the end of their way.
type Mailbox interface {
	// Deliver stores one message for one recipient and returns when it is durable there.
	// It is idempotent by d.Key: a second call with a key that was stored before stores
	// nothing and returns nil. An error that is (or wraps) a permanent [mail.Status] ends
	// the delivery; any other error means "try again later".
	Deliver(ctx context.Context, d *Delivery) error
}

// Delivery is one message for one mailbox.
type Delivery struct {
	// Key names this delivery for ever: queue id and recipient number.
	Key       string
	Recipient mail.Path
	Folder    string   // "" is the inbox
	Flags     []string // IMAP flags and keywords to set
	// Create says that a folder that does not exist is to be made. Without it the mailbox may
	// keep the message in the inbox instead.
	Create bool
	// Fresh says that nobody has tried to deliver with this Key before: there is nothing to
	// be looked for.
	Fresh   bool
	Message *mail.Message
}

// Room is implemented by a [Mailbox] that knows whether it would take a message before there
// is one: a full mailbox is then refused at RCPT, and not with a report days later.
type Room interface {
	// Room returns nil if a message of that size (in bytes; 0: not known) would be taken now,
	// and a [mail.Status] if it would not. Any other error means "not known", and the
	// recipient is accepted. A client waits for it, and the answer may be remembered for a
	// few seconds. It is called concurrently.
	Room(ctx context.Context, recipient mail.Path, size int64) error
}

// Configurer is implemented by plugins that have settings.
type Configurer interface {
	// Configure is called once, before anything else. An error stops the plugin, and at
	// start the gateway, and is shown to the admin: say what is wrong and what to do. Say all
	// that is wrong at once, with [errors.Join]: it is shown in one line.
	Configure(ctx context.Context, c Config) error
}

// Need says how much of a message a filter wants to see.
type Need uint8

// The needs. The numbers are part of the protocol; do not reorder.
const (
	NeedHeader Need = iota // envelope and header
	NeedBody               // the body as well
)

// Right is a set of changes that a filter may ask for. A verdict outside the declared
// rights is a fault of the plugin.
type Right uint32

// The rights. The numbers are part of the protocol; do not reorder.
const (
	MayReject      Right = 1 << iota // reject and tempfail
	MayDiscard                       // discard
	MayQuarantine                    // quarantine
	MayEditHeader                    // insert, change and remove header fields
	MayEditRcpt                      // add and remove recipients
	MayCopy                          // send copies
	MayEditReverse                   // change the reverse-path
	MayReplaceBody                   // replace the body
)

// Manifest declares what a plugin is. The host enforces it.
type Manifest struct {
	Name    string // lower case letters, digits and hyphens
	Version string
	Needs   Need
	May     Right
	// Origins are the kinds of mail the plugin is called for unless the admin says
	// otherwise; nil: incoming, submitted, internal, redirected and fetched.
	Origins []mail.Origin
	// Signs says that the plugin's result does not survive later changes; it has to come
	// after every plugin that changes the message.
	Signs bool
	// Stages are when a Gate is asked. A stage that is not named costs nothing.
	Stages Stage
	// Network says that the plugin talks to other hosts, or to other programs over loopback.
	// Without it there is no network where the gateway can see to that (on Linux, as root);
	// unix sockets with a path always work.
	Network bool
	// Host are the services of the gateway that the plugin calls.
	Host HostRight
	// Owns are the header fields that only this filter may write: names, compared without
	// case; with a * at the end, all that begin so. The gateway takes those away that a message
	// brings along, also where the filter fails and on_failure lets the message pass: it need not
	// do so itself. It is shown the message as it came, and must not believe them. What an
	// earlier plugin that owns them as well has written stays. It needs MayEditHeader.
	Owns []string
}
