// Package reinject is where the gateway takes back what an outside content filter brings: a
// waiting room and no door. Whoever has handed a message to a filter waits here under a
// token; what comes in on a listener of role reinjection is given to who waits for it, and to
// nobody else.
//
// Promises:
//   - A message without exactly one header field [mail.ReinjectField], or with a token that
//     nobody waits under (any more), is refused for good: it will never be awaited again. An
//     address, loopback least of all, is no reason to trust a message.
//   - Tokens have 130 random bits, are made here, and are forgotten with the wait. Each
//     recipient of the message that is awaited comes back at most once.
//   - A success says that who waits will get the message if it still waits when it looks.
//     Nothing here is durable, and nothing needs to be: the message that was handed to the
//     filter is still its client's, or in the queue, until the one who waits has decided.
//
// It knows neither queue nor plugins. A Desk is safe for concurrent use, a Wait too.
package reinject

import (
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"sync"

	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

// Options of a Desk.
type Options struct {
	Spool *spool.Spool
	Log   *slog.Logger
}

// Limits are what a message that comes back may have; a reload may change them.
type Limits struct {
	Header int   // bytes of the header block
	Body   int64 // bytes of the body
}

// Desk knows who waits.
type Desk struct {
	o Options

	mu     sync.Mutex
	limits Limits
	waits  map[[sha256.Size]byte]*Wait // by hash: looking one up takes as long, however much of it is right
}

// New returns a Desk at which nobody waits.
func New(o Options, l Limits) *Desk {
	return &Desk{o: o, limits: l, waits: make(map[[sha256.Size]byte]*Wait)}
}

// Reload makes l the limits of messages that come back from now on.
func (d *Desk) Reload(l Limits) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limits = l
}

// Wait is one message that is with a filter.
type Wait struct {
	desk  *Desk
	token string

	mu      sync.Mutex
	over    bool              // nothing is taken any more
	left    map[mail.Path]int // recipients that have not come back
	headers int               // bytes of header blocks
	parts   []part
}

// part is one message that came back.
type part struct {
	message *mail.Message
	content *spool.Writer
}

// Await begins a wait for a message with these recipients. The caller closes it.
func (d *Desk) Await(recipients []mail.Path) *Wait {
	w := &Wait{desk: d, token: rand.Text(), left: make(map[mail.Path]int, len(recipients))}
	for _, r := range recipients {
		w.left[r.Fold()]++ // a filter may write an address in another way
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits[sha256.Sum256([]byte(w.token))] = w
	return w
}

// Token is what has to come back with the message.
func (w *Wait) Token() string { return w.token }

// Take ends the wait and returns what came back until then: of the envelope, reverse-path
// and recipients. The bodies are there until Close.
func (w *Wait) Take() []*mail.Message {
	w.forget()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	all := make([]*mail.Message, len(w.parts))
	for i, p := range w.parts {
		all[i] = p.message
	}
	return all
}

// Close ends the wait and gives up what came back.
func (w *Wait) Close() {
	w.forget()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, p := range w.parts {
		p.content.Abort()
	}
	w.parts = nil
}

func (w *Wait) forget() {
	w.desk.mu.Lock()
	defer w.desk.mu.Unlock()
	delete(w.desk.waits, sha256.Sum256([]byte(w.token)))
}

// Waiting is how many messages are with a filter.
func (d *Desk) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waits)
}
