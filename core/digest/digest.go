// Package digest tells recipients once a day what is held for them in quarantine.
//
// A recipient gets one message a day at most, also over restarts, and only if something has
// been held for him since the last one. What is listed is what was held before the time of day
// at which digests are sent and not before that of the last; a day on which the gateway did not
// run is made up for. The message and the mark that it was made are one commit. The package
// refuses to know how mail comes into quarantine and what can be done with it.
//
// A Digest is safe for concurrent use.
package digest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Quarantine lists what is held.
type Quarantine interface {
	Quarantine(ctx context.Context, s admin.Search, yield func(admin.Quarantined) bool) error
}

// Intake makes queue entries of messages that the gateway writes, as intake.Intake does.
type Intake interface {
	Reply(ctx context.Context, to mail.Path, h mail.Header, body []byte, word, planner string) (queue.Add, trace.Event, error)
}

// Store is the queue.
type Store interface {
	Commit(ctx context.Context, b queue.Batch) error
	Remembered(ctx context.Context, key string, now time.Time) (bool, error)
}

// Times keeps durably up to when something is done.
type Times interface {
	Time(ctx context.Context, name string) (time.Time, error)
	SetTime(ctx context.Context, name string, at time.Time) error
}

// Options of a Digest.
type Options struct {
	Hostname   string
	Postmaster mail.Path // who is asked to release something
	Quarantine Quarantine
	Intake     Intake
	Store      Store
	Times      Times
	Trace      trace.Recorder
	Log        *slog.Logger
	Clock      func() time.Time
	Location   *time.Location // whose time of day counts; nil: time.Local
}

// Rules are what a reload may change.
type Rules struct {
	Daily                bool // else there are no digests
	Hour, Minute, Second int
	// Wants reports whether the recipients of a domain get digests.
	Wants func(ctx context.Context, d mail.Domain) bool
}

// Digest sends digests.
type Digest struct {
	Options
	rules   atomic.Pointer[Rules]
	changed chan struct{}
}

// New returns a Digest; Run makes it work.
func New(o Options, r Rules) *Digest {
	if o.Location == nil {
		o.Location = time.Local
	}
	d := &Digest{Options: o, changed: make(chan struct{}, 1)}
	d.rules.Store(&r)
	return d
}

// Reload makes r the rules.
func (d *Digest) Reload(r Rules) {
	d.rules.Store(&r)
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// lookAgain is how often the clock is looked at: somebody may have set it, and what failed is
// tried again.
const lookAgain = time.Minute

// Run sends digests when they are due, until ctx ends.
func (d *Digest) Run(ctx context.Context) {
	for {
		wait := lookAgain
		if next, err := d.Tick(ctx); err != nil && ctx.Err() == nil {
			d.Log.Error("digests cannot be sent, trying again", "error", err)
		} else if !next.IsZero() {
			wait = min(wait, max(next.Sub(d.Clock()), time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-d.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// The names of times.
const (
	doneTime = "digest"       // when digests were sent last
	fromTime = "digest since" // what was held before is listed already
)

// Tick sends what is due, and returns when there will be more to do; the zero Time if digests
// are off. After an error it is to be called again: nobody gets anything twice.
func (d *Digest) Tick(ctx context.Context) (next time.Time, err error) {
	rules := d.rules.Load()
	if !rules.Daily {
		return time.Time{}, nil
	}
	due, next := rules.around(d.Clock().In(d.Location))
	done, err := d.Times.Time(ctx, doneTime)
	if err != nil {
		return next, err
	}
	if done.IsZero() { // digests are new here: the first one comes when the time comes
		return next, d.Times.SetTime(ctx, doneTime, due)
	}
	if !dayBefore(done.In(d.Location), due) {
		return next, nil
	}
	from, err := d.Times.Time(ctx, fromTime)
	if err != nil {
		return next, err
	}
	if err := d.send(ctx, rules, from, due); err != nil {
		return next, err
	}
	return next, errors.Join(d.Times.SetTime(ctx, fromTime, due), d.Times.SetTime(ctx, doneTime, due))
}

// around returns the last time for digests, now or before, and the next.
func (r *Rules) around(now time.Time) (last, next time.Time) {
	at := func(days int) time.Time {
		return time.Date(now.Year(), now.Month(), now.Day()+days, r.Hour, r.Minute, r.Second, 0, now.Location())
	}
	if today := at(0); !today.After(now) {
		return today, at(1)
	}
	return at(-1), at(0)
}

// dayBefore reports whether a is on a day before that of b.
func dayBefore(a, b time.Time) bool { return a.Format(time.DateOnly) < b.Format(time.DateOnly) }

// maxListed is how many messages one digest lists; it says how many more there are.
const maxListed = 200

// list is what is held for one recipient.
type list struct {
	to    mail.Path
	held  []admin.Quarantined
	total int
}

// send tells everybody what was held from one time up to another.
func (d *Digest) send(ctx context.Context, rules *Rules, from, until time.Time) error {
	lists := make(map[mail.Path]*list)
	err := d.Quarantine.Quarantine(ctx, admin.Search{Since: from}, func(h admin.Quarantined) bool {
		if h.Held.Before(until) && h.Origin != mail.Internal.String() {
			gather(ctx, rules, lists, h)
		}
		return ctx.Err() == nil
	})
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	for _, to := range slices.SortedFunc(maps.Keys(lists), func(a, b mail.Path) int { return strings.Compare(a.String(), b.String()) }) {
		if err := d.tell(ctx, lists[to], until); err != nil {
			return err
		}
	}
	return nil
}

// gather puts a message on the list of each of its recipients that gets one.
func gather(ctx context.Context, rules *Rules, lists map[mail.Path]*list, h admin.Quarantined) {
	var seen []mail.Path
	for i := range h.Recipients {
		p, ok := addressee(ctx, rules, &h, i)
		key := p.Fold()
		if !ok || slices.Contains(seen, key) {
			continue
		}
		seen = append(seen, key)
		l := lists[key]
		if l == nil {
			l = &list{to: p}
			lists[key] = l
		}
		if l.total++; len(l.held) < maxListed {
			l.held = append(l.held, h)
		}
	}
}

// addressee is who gets the digest for a recipient: he himself, or, if an alias led away from
// us, the alias, unless it led to one of us as well.
func addressee(ctx context.Context, rules *Rules, h *admin.Quarantined, i int) (mail.Path, bool) {
	wants := func(text string) (mail.Path, bool) {
		p, err := mail.ParsePath(text)
		return p, err == nil && rules.Wants(ctx, p.Domain)
	}
	if p, ok := wants(h.Recipients[i]); ok {
		return p, true
	}
	for k, original := range h.Originals {
		if _, ok := wants(h.Recipients[k]); ok && original == h.Originals[i] {
			return mail.Path{}, false
		}
	}
	return wants(h.Originals[i])
}

// remembered is how long it is remembered that a digest was made: longer than it takes to
// note that all were.
const remembered = 3 * 24 * time.Hour

// tell sends one digest, if that has not been done.
func (d *Digest) tell(ctx context.Context, l *list, until time.Time) error {
	key := fmt.Sprintf("digest/%d/%s", until.Unix(), l.to.Fold())
	now := d.Clock()
	if told, err := d.Store.Remembered(ctx, key, now); err != nil || told {
		return err
	}
	h, body := d.message(l)
	add, event, err := d.Intake.Reply(ctx, l.to, h, body, "auto-generated", "")
	var answer mail.Status
	if errors.As(err, &answer) && answer.Permanent() {
		d.Log.Warn("no digest for a recipient", "to", l.to.String(), "error", err)
		return nil
	} else if err != nil {
		return err
	}
	if err := d.Store.Commit(ctx, queue.Batch{Add: []queue.Add{add}, Remember: []queue.Mark{{Key: key, Until: now.Add(remembered)}}}); err != nil {
		return err
	}
	d.Trace.Record(event)
	return nil
}
