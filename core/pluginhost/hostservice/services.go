package hostservice

import (
	"context"
	"io"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Services are the parts of the gateway that plugins may ask for something, each plugin
// what its manifest declares. A call of one that is nil fails for now.
type Services struct {
	Submitter    Submitter
	Logins       Logins
	Accounts     Accounts
	Data         Data
	Certificates Certificates
	State        State
	Memory       Memory
	Reinjections Reinjections
	Folders      Folders
}

// Submission is a message that a plugin hands in.
type Submission struct {
	Plugin      string // the plugin's name in the configuration
	Origin      mail.Origin
	ReversePath mail.Path
	Recipients  []mail.Path
	Client      mail.Client // of fetched mail, as the plugin says
	// Message is header, blank line and body, as the plugin sent them: unchecked.
	Message io.Reader
}

// Submitter takes messages into the queue.
type Submitter interface {
	// Submit returns the queue id when the message is durable. An error that is a
	// [mail.Status] is the answer about the message.
	Submit(ctx context.Context, s Submission) (string, error)
}

// Logins runs SASL exchanges, under the limits on failed log-ins.
type Logins interface {
	Mechanisms() []string
	// Begin begins an exchange with one of them.
	Begin(ctx context.Context, c *mail.Client, mechanism string) (Login, error)
}

// Login is one SASL exchange.
type Login interface {
	// Next takes a response; nil: the client sent no initial one. An error that is a
	// [mail.Status] is the answer for the client.
	Next(response []byte) (challenge []byte, done bool, err error)
	// Account is who has logged in, after the last step.
	Account() mail.Path
}

// Accounts knows what addresses are.
type Accounts interface {
	// Lookup returns what the address stands for, nothing if there is no such address, and
	// whether its domain is ours. An error means that it is not known now.
	Lookup(ctx context.Context, address mail.Path) (sdk.Account, error)
}

// Data keeps what plugins store about accounts, durably and each plugin for itself.
type Data interface {
	// GetData returns a Datum of version 0 if there is none.
	GetData(ctx context.Context, plugin string, account mail.Path, key string) (sdk.Datum, error)
	// PutData writes (nil: removes) a value if its version is the one given (0: none,
	// [sdk.AnyVersion]), else it is [sdk.ErrConflict]. It returns the new version. An error
	// that is a permanent [mail.Status] says that it can never be.
	PutData(ctx context.Context, plugin string, account mail.Path, key string, value []byte, version int64) (int64, error)
	// ListData returns at most max data without values after one, in order of account and
	// key. The zero Path: of all accounts.
	ListData(ctx context.Context, plugin string, account mail.Path, prefix string, after sdk.Datum, max int) ([]sdk.Datum, error)
}

// Certificates has the certificate of the listeners.
type Certificates interface {
	// PEM returns the certificate with its chain, and its private key (PKCS #8).
	PEM() (certificate, key []byte, err error)
}

// State keeps small facts in memory, for each plugin its own.
type State interface {
	Get(plugin, key string) (value []byte, ok bool)
	// Put writes, or with nil removes, a fact. A lifetime of 0 is no limit.
	Put(plugin, key string, value []byte, lifetime time.Duration)
	// CompareAndSwap does so if the fact is old (nil: if there is none).
	CompareAndSwap(plugin, key string, old, value []byte, lifetime time.Duration) bool
	// Count adds to a number and returns the sum.
	Count(plugin, key string, delta int64, lifetime time.Duration) int64
}

// Memory knows what plans have remembered.
type Memory interface {
	Remembered(ctx context.Context, plugin string, recipient mail.Path, key string) (bool, error)
}

// Folders knows which folders mailboxes have.
type Folders interface {
	// Folders lists those of a recipient's mailbox, for a plugin that is not that mailbox; nil:
	// what takes his mail does not tell. An error means that it is not known now; one that is a
	// permanent [mail.Status], that it will never be told.
	Folders(ctx context.Context, plugin string, recipient mail.Path) (*sdk.FolderList, error)
}

// Reinjections waits for what outside content filters bring back.
type Reinjections interface {
	// Await begins a wait of a plugin for a message with these recipients.
	Await(plugin string, recipients []mail.Path) (Awaited, error)
}

// Awaited is one such wait.
type Awaited interface {
	// Token is what has to come back with the message.
	Token() string
	// Take ends the wait and returns what came back: of the envelope, reverse-path and
	// recipients. The bodies are there until Close.
	Take() []*mail.Message
	// Close ends the wait and gives up what came back.
	Close()
}

// Limits of what plugins may ask for.
const (
	maxStateKey     = 256
	maxStateValue   = 4 << 10
	maxDataValue    = 1 << 20
	maxDataList     = 500
	maxSubmitTo     = 1000
	maxSubmitPiece  = 64 << 10
	maxSubmits      = 8 // at a time, of one plugin
	maxResponse     = 16 << 10
	maxAwaited      = 10_000 // recipients of one wait
	maxLogFields    = 32
	maxLogText      = 4 << 10
	maxCounters     = 64
	maxCounterName  = 64
	longestLifetime = 10 * 365 * 24 * time.Hour
)
