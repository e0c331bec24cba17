// Package admin steers a gateway: what the commands do, and later the API and the web UI.
//
// [Queue] works on a queue store; [Server] offers it, and more, over HTTP on the control
// socket; [Client] is the other end and has the same methods, so a command works alike on a
// running gateway and on the queue of one that is stopped.
package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
)

// Recipient is one recipient of a queued message, as commands print it.
type Recipient struct {
	ID        string     `json:"id"`
	From      string     `json:"from"`
	Recipient string     `json:"recipient"`
	State     string     `json:"state"`
	Attempts  int        `json:"attempts"`
	Next      *time.Time `json:"next_attempt"` // when due again; null when it is not pending
	Reason    string     `json:"reason"`       // the last reply, or why it is held or parked
	NextHop   string     `json:"next_hop"`
	Active    bool       `json:"active"` // being attempted now
	Class     string     `json:"class"`  // mail, copy, journal or report
}

// Message is one queued version of a message.
type Message struct {
	ID         string      `json:"id"`
	Family     string      `json:"family"`
	Origin     string      `json:"origin"`
	Received   time.Time   `json:"received"`
	Size       int64       `json:"size"` // bytes
	Copy       bool        `json:"copy"`
	Class      string      `json:"class"`
	Plugins    []string    `json:"plugins"`         // those that have answered
	Stack      string      `json:"stack,omitempty"` // of the plugin that died of it
	Recipients []Recipient `json:"recipients"`
	Header     string      `json:"header"`
}

// Cause is a group of deferred, held or parked mail with one root cause.
type Cause struct {
	Count   int       `json:"count"`
	State   string    `json:"state"`
	NextHop string    `json:"next_hop"`
	Reason  string    `json:"reason"`
	Oldest  time.Time `json:"oldest"`
	Example string    `json:"example"` // queue id of one of them
	Class   string    `json:"class"`
}

// Change is what can be done to queued mail.
type Change string

// The changes.
const (
	Retry   Change = "retry"   // pending or parked: attempt now
	Hold    Change = "hold"    // keep until released
	Release Change = "release" // held: attempt now
	Delete  Change = "delete"  // remove, telling nobody
)

// Selection says which mail a change is for: the recipients of these queue ids (of a
// version, or of the message as received), or all; with a class, what of that is of the class.
type Selection struct {
	IDs    []string `json:"ids"`
	All    bool     `json:"all"`
	Class  string   `json:"class,omitempty"`
	Reason string   `json:"reason,omitempty"` // of a hold
}

// ErrNotFound says that nothing in the queue has that id.
var ErrNotFound = errors.New("not in the queue: it was delivered, removed, or never there")

// Queue steers a store.
type Queue struct {
	Store queue.Store
	Trace trace.Recorder
	Clock func() time.Time
	// Lifetime is how long released mail is tried again, from now; nil: as if it had not been held.
	Lifetime func(queue.Class) time.Duration
	// Reopen is told the next hops of what a retry or release makes due; nil without a gateway.
	Reopen func(destinations []string)
}

// ofClass returns what tells mail of the class with that name; "" is every class.
func ofClass(name string) (func(queue.Class) bool, error) {
	if name == "" {
		return func(queue.Class) bool { return true }, nil
	}
	class, err := queue.ParseClass(name)
	return func(c queue.Class) bool { return c == class }, err
}

// List calls yield for every recipient in the queue, or of one class, oldest first, until it
// returns false.
func (q *Queue) List(ctx context.Context, class string, yield func(Recipient) bool) error {
	wanted, err := ofClass(class)
	if err != nil {
		return err
	}
	var e *queue.Entry
	var failed error
	err = q.Store.Scan(ctx, func(i queue.Item) bool {
		if !wanted(i.Class) {
			return true
		}
		if e == nil || e.ID != i.ID {
			var err error
			if e, _, err = q.Store.Get(ctx, i.ID); errors.Is(err, queue.ErrGone) {
				e = nil
				return true
			} else if err != nil {
				failed = err
				return false
			}
		}
		return yield(describe(e, i))
	})
	return errors.Join(err, failed)
}

func describe(e *queue.Entry, i queue.Item) Recipient {
	r := Recipient{ID: i.ID.String(), From: e.Envelope.ReversePath.String(), Recipient: e.Envelope.Recipients[i.Recipient].Path.String(),
		State: i.State.String(), Attempts: i.Attempts, Reason: i.Reason, NextHop: i.Destination, Active: i.Leased, Class: e.Class.String()}
	if r.Reason == "" && !i.Status.IsZero() {
		r.Reason = i.Status.Error()
	}
	if i.State == queue.Pending {
		if i.Status.IsZero() {
			r.Attempts-- // the first attempt is counted with the accepting commit
		}
		next := i.Next.UTC().Truncate(time.Second)
		r.Next = &next
	}
	return r
}

// Show returns a message's versions by a queue id.
func (q *Queue) Show(ctx context.Context, id string) ([]Message, error) {
	ids, err := q.find(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	var ms []Message
	for _, id := range ids {
		e, records, err := q.Store.Get(ctx, id)
		if errors.Is(err, queue.ErrGone) {
			continue
		} else if err != nil {
			return nil, err
		}
		m := Message{ID: e.ID.String(), Family: e.Family.String(), Origin: e.Envelope.Origin.String(), Received: e.Received.UTC(),
			Size: int64(len(e.Header.Block())) + e.Body.Size, Copy: e.Class.IsCopy(), Class: e.Class.String(), Plugins: e.Run.Done, Stack: e.Run.Notes[queue.StackNote], Header: string(e.Header.Block())}
		for n, r := range records {
			m.Recipients = append(m.Recipients, describe(e, queue.Item{ID: e.ID, Recipient: n, Record: r}))
		}
		ms = append(ms, m)
	}
	if len(ms) == 0 {
		return nil, ErrNotFound
	}
	return ms, nil
}

// Change applies c to the selected mail and returns how many recipients it changed. What is
// being attempted now can be deleted, but not held, which is an error; and it needs no retry.
func (q *Queue) Change(ctx context.Context, c Change, s Selection) (int, error) {
	results, busy, err := q.changes(ctx, c, s)
	if err != nil {
		return 0, err
	}
	total, late, err := q.commit(ctx, c, s, results)
	if err == nil && busy+late > 0 && c == Hold {
		err = fmt.Errorf("%d recipients are being attempted now and were not held (%d were): try again", busy+late, total)
	}
	return total, err
}

// commit makes changes, and returns how many it made and how many it did not, because the
// recipient is being attempted now.
func (q *Queue) commit(ctx context.Context, c Change, s Selection, results []queue.Result) (total, busy int, err error) {
	for chunk := range slices.Chunk(results, 1000) {
		err := q.steer(ctx, c, s, chunk)
		if err == nil {
			total += len(chunk)
			continue
		}
		if !errors.Is(err, queue.ErrGone) && !errors.Is(err, queue.ErrBusy) {
			return total, busy, err
		}
		for i := range chunk { // some were finished or begun meanwhile: one by one
			switch err := q.steer(ctx, c, s, chunk[i:i+1]); {
			case err == nil:
				total++
			case errors.Is(err, queue.ErrBusy):
				busy++
			case !errors.Is(err, queue.ErrGone):
				return total, busy, err
			}
		}
	}
	if q.Reopen != nil && (c == Retry || c == Release) {
		hops := make(map[string]bool)
		for _, r := range results {
			hops[r.Record.Destination] = true
		}
		q.Reopen(slices.Collect(maps.Keys(hops)))
	}
	return total, busy, nil
}

// changes are the results that c means for the selected mail, and how many recipients are
// left out because they are being attempted now.
func (q *Queue) changes(ctx context.Context, c Change, s Selection) (results []queue.Result, busy int, err error) {
	var ids []queue.ID
	if !s.All {
		if len(s.IDs) == 0 {
			return nil, 0, errors.New("name queue ids, or say all")
		}
		if ids, err = q.find(ctx, s.IDs); err != nil {
			return nil, 0, err
		}
	}
	wanted, err := ofClass(s.Class)
	if err != nil {
		return nil, 0, err
	}
	now := q.Clock()
	err = q.Store.Scan(ctx, func(i queue.Item) bool {
		if !s.All && !slices.Contains(ids, i.ID) || !wanted(i.Class) {
			return true
		}
		r, ok := c.apply(i, now, s.Reason)
		if c == Release && ok && q.Lifetime != nil {
			r.Expires = now.Add(q.Lifetime(i.Class))
		}
		switch {
		case ok && i.Leased && c != Delete:
			busy++
		case ok:
			results = append(results, queue.Result{ID: i.ID, Recipient: i.Recipient, Record: r, Idle: c != Delete})
		}
		return true
	})
	return results, busy, err
}

// steer commits some of the changes.
func (q *Queue) steer(ctx context.Context, c Change, s Selection, results []queue.Result) error {
	if err := q.Store.Commit(ctx, queue.Batch{Results: results}); err != nil {
		return err
	}
	for _, r := range results {
		q.Trace.Record(trace.Event{Type: trace.Steered, ID: r.ID.String(), Action: string(c), Reason: s.Reason})
	}
	return nil
}

// apply returns the new record of a recipient, and whether the change is for its state.
func (c Change) apply(i queue.Item, now time.Time, reason string) (queue.Record, bool) {
	r := i.Record
	switch c {
	case Retry:
		if r.State != queue.Pending && r.State != queue.Parked {
			return r, false
		}
		r.State, r.Next, r.Reason = queue.Pending, now, ""
	case Release:
		if r.State != queue.Held {
			return r, false
		}
		r.State, r.Next, r.Reason, r.Expires = queue.Pending, now, "", time.Time{}
	case Hold:
		if r.State == queue.Held {
			return r, false
		}
		if reason == "" {
			reason = "held by an admin"
		}
		r.State, r.Reason, r.Expires = queue.Held, reason, time.Time{}
	case Delete:
		r.State, r.Reason = queue.Deleted, reason
	default:
		return r, false
	}
	return r, true
}

// find returns the ids of the versions that the given ids mean.
func (q *Queue) find(ctx context.Context, texts []string) ([]queue.ID, error) {
	var ids []queue.ID
	for _, text := range texts {
		id, err := queue.ParseID(text)
		if err != nil {
			return nil, err
		}
		before := len(ids)
		err = q.Store.Scan(ctx, func(i queue.Item) bool {
			if (i.ID == id || i.Family == id) && !slices.Contains(ids, i.ID) {
				ids = append(ids, i.ID)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		if len(ids) == before {
			return nil, fmt.Errorf("%s is %w", text, ErrNotFound)
		}
	}
	return ids, nil
}

// Summary groups what waits by root cause, the largest group first.
func (q *Queue) Summary(ctx context.Context) ([]Cause, error) {
	type key struct{ state, hop, reason, class string }
	groups := make(map[key]*Cause)
	err := q.Store.Scan(ctx, func(i queue.Item) bool {
		k := key{i.State.String(), i.Destination, cause(i), i.Class.String()}
		g := groups[k]
		if g == nil {
			g = &Cause{State: k.state, NextHop: k.hop, Reason: k.reason, Oldest: i.ID.Time().UTC(), Example: i.ID.String(), Class: k.class}
			groups[k] = g
		}
		g.Count++
		return true
	})
	if err != nil {
		return nil, err
	}
	causes := make([]Cause, 0, len(groups))
	for _, g := range groups {
		causes = append(causes, *g)
	}
	sort.Slice(causes, func(a, b int) bool {
		x, y := causes[a], causes[b]
		if x.Count != y.Count {
			return x.Count > y.Count
		}
		return x.NextHop+x.Reason+x.Class < y.NextHop+y.Reason+y.Class
	})
	return causes, nil
}

// particular is what differs between messages with the same root cause: addresses,
// numbers and ids in a reply.
var particular = regexp.MustCompile(`<[^>]*>|\S+@\S+|\b[0-9a-zA-Z]*[0-9][0-9a-zA-Z]{5,}\b`)

func cause(i queue.Item) string {
	switch {
	case i.Reason != "":
		return i.Reason
	case i.Status.IsZero():
		return "waiting for its first attempt"
	}
	s := i.Status
	s.Text = particular.ReplaceAllString(s.Text, "…")
	return s.Error()
}
