package engine

import (
	"context"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Message is what a script looks at. The body is only read when a script asks for it.
type Message struct {
	Header mail.Header
	Body   mail.Body
}

// Size is that of the whole message, in bytes.
func (m *Message) Size() int64 { return int64(len(m.Header.Block())) + m.Body.Size }

// Env is what a script is told about the world. Fields that are nil or empty stand for "there is none".
type Env struct {
	// From and To are the envelope's addresses, without angle brackets; From is "" for the null reverse-path.
	From, To string
	// Auth is who submitted the message, "" if nobody logged in.
	Auth string
	// Now is the time of the run. Required.
	Now time.Time
	// Delimiter separates the user from the detail in a local part (RFC 5233); "" means "+".
	Delimiter string
	// Addresses are more addresses of the owner, for vacation.
	Addresses []string
	// Mailboxes knows the owner's mailboxes.
	Mailboxes Mailboxes
	// Script finds scripts to include, by location ("personal" or "global") and name: its text, or ErrNoScript.
	Script func(ctx context.Context, location, name string) ([]byte, error)
	// Remembered says whether a key was remembered by an earlier run and its time is not over.
	Remembered func(ctx context.Context, key string) (bool, error)
	// Spam is what the spam filters say: percent of certainty, 0 to 100; below 0: not tested (RFC 5235).
	Spam int
	// Virus is from 0 (not tested) to 5 (infected) (RFC 5235 §3.1).
	Virus int
	// Items are those of the environment (RFC 5183): "domain", "host", "location", "phase", "remote-host", ...
	Items map[string]string
	// Explain asks for the list of steps.
	Explain bool
}

// Mailboxes is what a script can ask about mailboxes (RFC 5490, RFC 8579).
type Mailboxes interface {
	// Exists reports whether mail can be filed into a mailbox.
	Exists(ctx context.Context, mailbox string) (bool, error)
	// SpecialUse returns the mailbox with a special-use attribute, as in "\Junk"; "" if there is none.
	SpecialUse(ctx context.Context, attribute string) (string, error)
	// Metadata returns an annotation of a mailbox, or of the server for mailbox "".
	Metadata(ctx context.Context, mailbox, annotation string) (value string, ok bool, err error)
}

// ActionKind says what an Action does.
type ActionKind uint8

// The kinds of actions.
const (
	Keep ActionKind = iota + 1
	FileInto
	Redirect
	Reject
	EReject
	Vacation
	Notify
)

// String is the name of the command.
func (k ActionKind) String() string {
	return [...]string{"none", "keep", "fileinto", "redirect", "reject", "ereject", "vacation", "notify"}[k]
}

// Action is one thing that a script wants done.
type Action struct {
	Kind ActionKind
	Line int // of the command; 0 for an implicit keep

	Implicit   bool     // Keep
	Mailbox    string   // FileInto
	SpecialUse string   // FileInto: a mailbox with this attribute instead, if there is one (RFC 8579)
	Flags      []string // Keep, FileInto
	Copy       bool     // FileInto, Redirect
	Create     bool     // FileInto: make the mailbox if it does not exist

	Address string // Redirect; Vacation: whom it answers
	Reason  string // Reject, EReject, Vacation

	Subject string        // Vacation
	From    string        // Vacation, Notify; "": the default
	MIME    bool          // Vacation: Reason is a MIME entity with its header
	Handle  string        // Vacation: what it is remembered by
	Period  time.Duration // Vacation: at most one answer in this time
	FCC     *FileCopy     // Vacation, Notify

	Method     string   // Notify: as in "mailto"
	URI        string   // Notify: the method as given
	To         []string // Notify by mailto
	Message    string   // Notify
	Importance string   // Notify: "1", "2" or "3"
	Options    []string // Notify

	// Edited is the message at that point, nil if the script has not changed it.
	Edited *Message
}

// FileCopy is where a copy of a reply goes (RFC 8580).
type FileCopy struct {
	Mailbox    string
	SpecialUse string
	Flags      []string
	Create     bool
}

// Mark is something to remember for a time if the result is carried out.
type Mark struct {
	Key      string
	Lifetime time.Duration
}

// Step is one line of what a script did.
type Step struct {
	Script string // "" is the one that was given
	Line   int
	Text   string
}

// Result is what a script wants done. No actions: the message is discarded.
type Result struct {
	Actions []Action
	// Edited is the message after the last command, nil if the script has not changed it. NewBody says that not
	// only its header is another one.
	Edited   *Message
	NewBody  bool
	Remember []Mark
	// Fault is why the script ended early; Actions are then an implicit keep.
	Fault *Error
	Steps []Step // if Env.Explain
}
