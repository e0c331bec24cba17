package mailbox

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
)

// How long an answer about room is good for, and how long one is waited for: a client waits.
const (
	roomKeep = 10 * time.Second
	roomTime = 3 * time.Second
	maxRooms = 10_000
)

// Doorman is a mailbox plugin that may know whether it would take a message.
type Doorman interface {
	Room(ctx context.Context, recipient mail.Path, size int64) error
}

// Rooms asks mailbox plugins, before there is a message, whether they would take it, and
// remembers the answers for a few seconds: a refusal for messages of that size and above, a
// consent for those of that size and below. No answer means consent: the delivery will
// tell. It is safe for concurrent use.
type Rooms struct {
	backend func(name string) (Doorman, bool)
	log     *slog.Logger
	clock   func() time.Time
	known   *state.Cache[place, room]
}

type place struct {
	plugin    string
	recipient mail.Path
}

// room is what is known of a mailbox.
type room struct {
	fits    int64 // the largest size that was taken; below 0: none
	fitsEnd time.Time
	full    int64 // the smallest that was refused
	fullEnd time.Time
	status  mail.Status
}

// NewRooms returns Rooms that find plugins by their names in the configuration.
func NewRooms(backend func(name string) (Doorman, bool), log *slog.Logger, clock func() time.Time) *Rooms {
	return &Rooms{backend: backend, log: log, clock: clock, known: state.NewCache[place, room](maxRooms)}
}

// Ask returns why the plugin would not take a message of that size (in bytes; 0: not known)
// for the recipient now; the zero Status: it would, or there is no answer.
func (r *Rooms) Ask(ctx context.Context, plugin string, recipient mail.Path, size int64) mail.Status {
	backend, ok := r.backend(plugin)
	if !ok {
		return mail.Status{}
	}
	key := place{plugin, recipient.Fold()}
	now := r.clock()
	if k, ok := r.known.Get(key); ok {
		switch {
		case now.Before(k.fullEnd) && size >= k.full:
			return k.status
		case now.Before(k.fitsEnd) && size <= k.fits:
			return mail.Status{}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, roomTime)
	defer cancel()
	err := backend.Room(ctx, recipient, size)
	var st mail.Status
	if err != nil {
		if !errors.As(err, &st) {
			r.log.Warn("mailbox does not say whether it has room", "plugin", plugin, "to", recipient.String(), "error", err)
			return mail.Status{}
		}
	}
	r.known.Update(key, func(k *room) { k.learn(size, st, now) })
	return st
}

// learn takes in what was said about a size.
func (k *room) learn(size int64, st mail.Status, now time.Time) {
	until := now.Add(roomKeep)
	if st.IsZero() {
		if size >= k.fits || !now.Before(k.fitsEnd) {
			k.fits, k.fitsEnd = size, until
		}
		if size >= k.full {
			k.full, k.fullEnd = math.MaxInt64, time.Time{}
		}
		return
	}
	if size <= k.full || !now.Before(k.fullEnd) {
		k.full, k.fullEnd, k.status = size, until, st
	}
	if size <= k.fits {
		k.fits, k.fitsEnd = -1, time.Time{}
	}
}
