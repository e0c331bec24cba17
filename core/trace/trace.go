// Package trace is the flight recorder: what happened to each message, one event a step.
//
// For now events go to the log, one line each with fixed keys, and the newest are kept in
// memory so that commands can show where a message went. Recording never fails and never
// waits for a disk. A Recorder is safe for concurrent use.
package trace

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Event is one step in a message's life. Empty fields do not apply.
type Event struct {
	Time time.Time `json:"time"`
	Type Type      `json:"type"`
	// ID is the queue id of the version, Family that of the message as received.
	ID        string      `json:"id,omitempty"`
	Family    string      `json:"family,omitempty"`
	From      string      `json:"from,omitempty"`
	To        string      `json:"to,omitempty"`
	Recipient int         `json:"-"`
	Client    string      `json:"client,omitempty"`
	Plugin    string      `json:"plugin,omitempty"`
	Action    string      `json:"action,omitempty"` // verdict of a plugin, or state of a recipient
	NextHop   string      `json:"next_hop,omitempty"`
	Status    mail.Status `json:"status,omitzero"`
	Reason    string      `json:"reason,omitempty"`
	Attempt   int         `json:"attempt,omitempty"`
	Size      int64       `json:"size,omitempty"` // bytes
	Millis    float64     `json:"ms,omitempty"`
}

// Type says what kind of step an event is; it is also the log message.
type Type string

// The types of events.
const (
	Accepted  Type = "accepted"  // queued: the client got its 250
	Refused   Type = "refused"   // a client got a 4yz or 5yz for a whole message
	Plugin    Type = "plugin"    // a plugin answered, or failed to
	Delivered Type = "delivered" // a next hop or a mailbox took it
	Deferred  Type = "deferred"  // an attempt failed for now
	Failed    Type = "failed"    // an attempt failed for good
	Expired   Type = "expired"   // the lifetime ended
	Discarded Type = "discarded" // a plugin threw it away
	HeldBack  Type = "held"      // quarantine, an admin, a rule
	Waiting   Type = "parked"    // waits for a plugin
	Planned   Type = "planned"   // a recipient's rules made something else of it
	Reported  Type = "dsn"       // a delivery status notification was queued
	Steered   Type = "steered"   // an admin changed it
)

// Recorder takes events.
type Recorder interface {
	Record(Event)
}

// Log is the Recorder that writes to a log and keeps the newest events.
type Log struct {
	log   *slog.Logger
	clock func() time.Time

	mu   sync.Mutex
	ring []Event
	next int // where the next event goes
}

var _ Recorder = (*Log)(nil)

// NewLog returns a Recorder that writes to log and keeps the newest keep events.
func NewLog(log *slog.Logger, keep int, clock func() time.Time) *Log {
	return &Log{log: log, clock: clock, ring: make([]Event, 0, keep)}
}

// Record writes one line and keeps the event.
func (l *Log) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = l.clock()
	}
	l.mu.Lock()
	if len(l.ring) < cap(l.ring) {
		l.ring = append(l.ring, e)
	} else if len(l.ring) > 0 {
		l.ring[l.next] = e
		l.next = (l.next + 1) % len(l.ring)
	}
	l.mu.Unlock()
	l.write(e)
}

// write makes the log line. Only what applies is in it, always in this order.
func (l *Log) write(e Event) {
	level := slog.LevelInfo
	if e.Type == Plugin && e.Action == "continue" {
		level = slog.LevelDebug
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	var buf [16]slog.Attr
	attrs := buf[:0]
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("id", e.ID)
	if e.Family != e.ID {
		text("family", e.Family)
	}
	text("client", e.Client)
	if e.From != "" || e.Type == Accepted {
		attrs = append(attrs, slog.String("from", e.From))
	}
	text("to", e.To)
	text("plugin", e.Plugin)
	text("action", e.Action)
	text("next_hop", e.NextHop)
	if !e.Status.IsZero() {
		attrs = append(attrs, slog.Int("code", e.Status.Code), slog.String("status", e.Status.EnhancedString()), slog.String("reply", e.Status.Text))
		text("remote", e.Status.Remote)
	}
	text("reason", e.Reason)
	if e.Attempt > 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if e.Size > 0 {
		attrs = append(attrs, slog.Int64("size", e.Size))
	}
	if e.Millis > 0 {
		attrs = append(attrs, slog.Float64("ms", e.Millis))
	}
	l.log.LogAttrs(context.Background(), level, string(e.Type), attrs...)
}

// Story returns the events kept of one message, by the id of any of its versions, oldest first.
func (l *Log) Story(id string) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	family := id
	for _, e := range l.ring {
		if e.ID == id && e.Family != "" {
			family = e.Family
		}
	}
	var story []Event
	for i := range l.ring {
		e := l.ring[(l.next+i)%len(l.ring)]
		if e.ID == id || e.ID == family || e.Family == family {
			story = append(story, e)
		}
	}
	return story
}
