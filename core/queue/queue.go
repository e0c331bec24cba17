// Package queue keeps what has been accepted and is not yet done: records and time.
//
// An [Entry] is one version of a message with its recipients and never changes. A [Record]
// is what is known of one recipient and is replaced as a whole by every [Result]. The
// [Store] interface has one mutation, Commit, which is atomic, and durable when it returns,
// and one conformance suite for all implementations. The package knows nothing of SMTP,
// plugins or policies.
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// State is where a recipient of an entry stands.
type State uint8

// The states. The numbers are stored; do not reorder.
const (
	Pending   State = iota + 1 // due at Record.Next
	Held                       // waits for a person, or for Record.Expires
	Parked                     // waits for a plugin that could not be asked
	Delivered                  // final: the next hop or a mailbox took it
	Failed                     // final: refused for good
	Expired                    // final: the lifetime ended
	Deleted                    // final: removed by an admin
	Discarded                  // final: a plugin or a rule threw it away, on record
	Replaced                   // final: other entries took over (pipeline run, expansion)
)

var stateNames = [...]string{Pending: "pending", Held: "held", Parked: "parked", Delivered: "delivered", Failed: "failed", Expired: "expired", Deleted: "deleted", Discarded: "discarded", Replaced: "replaced"}

// String is the name used by commands and logs.
func (s State) String() string {
	if int(s) < len(stateNames) && s > 0 {
		return stateNames[s]
	}
	return "unknown"
}

// Final reports whether nothing more will happen to a recipient in this state.
func (s State) Final() bool { return s >= Delivered }

// Entry is one version of a message. It is immutable once committed. Only core/intake
// makes entries; the store gives them back.
type Entry struct {
	ID       ID
	Family   ID // ID of the message as received, which this is a version of
	Received time.Time
	// Envelope.ID is ID.String(); Envelope.Recipients are numbered from 0, and that
	// number is a recipient's name in records, results and leases.
	Envelope mail.Envelope
	Header   mail.Header
	Body     mail.Body
	Class    Class
	Run      Run
	// Keep is how the message is kept in a mailbox, once the recipients' plans are made; nil:
	// nobody has been asked.
	Keep *Keep
}

// Keep says how a message is kept in a mailbox.
type Keep struct {
	Folder string   // "" is the inbox
	Flags  []string // IMAP flags and keywords to set
	Create bool     // the folder is made if it does not exist
}

// Run is how far the pipeline has come with an entry.
type Run struct {
	Complete bool     // every plugin that applies has answered
	Done     []string // names of the plugins that have answered, in order
	// Scores and Notes of those plugins, "plugin/name"; and StackNote.
	Scores map[string]float64
	Notes  map[string]string
}

// StackNote is the note with what a plugin said when it died of the message, for messages
// that are held because of that. No plugin can set it: their notes have a slash.
const StackNote = "stack"

// QuarantineNote is the note that names the plugin on whose word a message is, or was, held
// in quarantine. No plugin can set it.
const QuarantineNote = "quarantine"

// Record is what is known of one recipient of an entry.
type Record struct {
	State       State
	Destination string    // key of the next hop: with the class, what has limits and a turn of its own
	Attempts    int       // delivery attempts begun
	Next        time.Time // when a pending recipient is due
	// Expires is when a held recipient is let go (zero: never), and when one that was released
	// has been tried long enough (zero: when the message is too old).
	Expires time.Time
	Status  mail.Status
	Reason  string // why held, parked or discarded, for people
	Warned  bool   // a delay warning has been sent
}

// Add is an entry to commit, with the first record of each of its recipients.
type Add struct {
	Entry   *Entry
	Records []Record
}

// Prolong lets what waits be tried until then, if it is made of a message that was released
// with that time.
func (a *Add) Prolong(until time.Time) {
	for i := range a.Records {
		if s := a.Records[i].State; s == Pending || s == Parked {
			a.Records[i].Expires = until
		}
	}
}

// Result replaces the record of one recipient.
type Result struct {
	ID        ID
	Recipient int
	Record    Record
	// Idle is for who has no lease: it refuses the batch with ErrBusy while somebody
	// attempts the delivery, for a new record would let another one begin it too.
	Idle bool
}

// Mark remembers a key until a time (vacation, duplicate).
type Mark struct {
	Key   string
	Until time.Time
}

// Batch is what one Commit makes true at once.
type Batch struct {
	Add      []Add
	Results  []Result
	Remember []Mark
}

// Claim asks for work.
type Claim struct {
	Now   time.Time
	Max   int    // at most this many leases
	Owner string // who takes them
	// Share returns how many more leases a class may have, Room how many more it may have of one
	// destination; nil: no limit. They must not call the store.
	Share func(class Class) int
	Room  func(class Class, destination string) int
}

// Lease is the right to attempt the delivery of some recipients of one entry, all of one
// destination (and, as the entry is, of one class). Their attempt count and next time are stored durably already: if nothing
// is heard of the holder, they come back by themselves.
type Lease struct {
	Entry       *Entry
	Destination string
	Recipients  []int    // numbers of the recipients to attempt
	Records     []Record // their records, the present attempt counted
	Until       time.Time
}

// Item is one recipient as Scan shows it.
type Item struct {
	ID        ID
	Family    ID
	Class     Class
	Recipient int
	Record
	Leased bool // being attempted now
}

// Store keeps entries and records. All methods are safe for concurrent use.
type Store interface {
	// Commit makes the batch durable, all or nothing. After an error nothing of the
	// batch has happened or will. A Result for an unknown entry or recipient, or one whose
	// record is already final, is an error that wraps ErrGone.
	Commit(ctx context.Context, b Batch) error
	// Claim returns leases for what is due, fairly between destinations, where each class is
	// a destination of its own, and when
	// something will be due next (zero: not before the next Commit). For recipients that
	// were attempted before, the new attempt is durable when it returns; for fresh ones
	// the accepting Commit was that.
	Claim(ctx context.Context, c Claim) ([]Lease, time.Time, error)
	// Extend moves the end of a lease; an error means that it is lost: nobody may act on it
	// any more.
	Extend(ctx context.Context, l Lease, until time.Time) error
	// Release gives leases back that were not used, to be due again at once. The attempt
	// stays counted, and is the one that the next Claim hands out.
	Release(ctx context.Context, l ...Lease)
	// Changed is signalled when something may have become due.
	Changed() <-chan struct{}
	// Scan calls yield for every recipient that is not final, oldest entry first, until
	// it returns false. It sees each once; what changes meanwhile it may see either way.
	Scan(ctx context.Context, yield func(Item) bool) error
	// Get loads an entry and the records of all its recipients. It returns ErrGone when
	// the entry is not (or no longer) there.
	Get(ctx context.Context, id ID) (*Entry, []Record, error)
	// Remembered reports whether a mark is set at the time now.
	Remembered(ctx context.Context, key string, now time.Time) (bool, error)
	// Close waits for commits under way and closes the store.
	Close() error
}

// Errors that a Store returns.
var (
	// ErrGone says that an entry or recipient is done or was never there.
	ErrGone = errors.New("queue: no such entry")
	// ErrBusy says that a recipient is being attempted now.
	ErrBusy = errors.New("queue: being attempted now")
	// ErrNoSpace says that disk or inodes are short: 452 4.3.1.
	ErrNoSpace = errors.New("queue: not enough space")
	// ErrLocked says that another process has the store.
	ErrLocked = errors.New("queue: in use by another process")
)
