package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Quarantined is a message, or a version of one, that is held because a plugin wanted so.
// Mail that an admin holds is not among them, nor what a plugin died of.
type Quarantined struct {
	ID         string    `json:"id"`
	Family     string    `json:"family"`
	Held       time.Time `json:"held"` // since when
	Expires    time.Time `json:"expires"`
	Plugin     string    `json:"plugin"`
	Reason     string    `json:"reason"`
	From       string    `json:"from"`       // reverse-path
	Recipients []string  `json:"recipients"` // for whom it is still held
	Originals  []string  `json:"originals"`  // what the client called them, in the same order
	Author     string    `json:"author"`     // the field From
	Subject    string    `json:"subject"`
	MessageID  string    `json:"message_id"`
	Size       int64     `json:"size"` // bytes
	Origin     string    `json:"origin"`
	// The rest is not in lists.
	Client string             `json:"client,omitempty"`
	Scores map[string]float64 `json:"scores,omitempty"` // by "plugin/name"
	Notes  map[string]string  `json:"notes,omitempty"`
	Header string             `json:"header,omitempty"`
	Text   string             `json:"text,omitempty"` // the beginning of its text
}

// Search says which quarantined mail is meant. Texts match in any case, as part of what is there.
type Search struct {
	Text      string    // in what commands list, and the Message-ID
	From      string    // in reverse-path or author
	Recipient string    // in a recipient, as he is called now or was called by the client
	Plugin    string    // the whole name
	Since     time.Time // held since then
}

func (s *Search) match(h *Quarantined) bool {
	contains := func(part string, in ...string) bool {
		part = strings.ToLower(part)
		return slices.ContainsFunc(in, func(text string) bool { return strings.Contains(strings.ToLower(text), part) })
	}
	to := slices.Concat(h.Recipients, h.Originals)
	return (s.Plugin == "" || s.Plugin == h.Plugin) && !h.Held.Before(s.Since) && contains(s.From, h.From, h.Author) && contains(s.Recipient, to...) &&
		contains(s.Text, append(to, h.ID, h.From, h.Author, h.Subject, h.MessageID, h.Reason)...)
}

// Quarantine calls yield for what is in quarantine, oldest first, until it returns false.
func (q *Queue) Quarantine(ctx context.Context, s Search, yield func(Quarantined) bool) error {
	var failed error
	var last queue.ID
	err := q.Store.Scan(ctx, func(i queue.Item) bool {
		if !quarantined(i.Record) || i.ID == last || i.ID.Time().Before(s.Since.Truncate(time.Millisecond)) {
			return true
		}
		last = i.ID
		e, records, err := q.Store.Get(ctx, i.ID)
		if errors.Is(err, queue.ErrGone) {
			return true
		} else if err != nil {
			failed = err
			return false
		}
		h, ok := describeHeld(e, records)
		return !ok || !s.match(&h) || yield(h)
	})
	return errors.Join(failed, err)
}

// quarantined reports whether a record may be one of quarantine; the entry says whether it
// is. What an admin holds does not expire.
func quarantined(r queue.Record) bool { return r.State == queue.Held && !r.Expires.IsZero() }

func describeHeld(e *queue.Entry, records []queue.Record) (Quarantined, bool) {
	h := Quarantined{ID: e.ID.String(), Family: e.Family.String(), Held: e.ID.Time().UTC(), Plugin: e.Run.Notes[queue.QuarantineNote], From: e.Envelope.ReversePath.String(),
		Author: words(e.Header.Get("From")), Subject: words(e.Header.Get("Subject")), MessageID: words(e.Header.Get("Message-ID")),
		Size: int64(len(e.Header.Block())) + e.Body.Size, Origin: e.Envelope.Origin.String()}
	for n, r := range records {
		if !quarantined(r) {
			continue
		}
		to := e.Envelope.Recipients[n]
		original := to.Original
		if original.IsZero() {
			original = to.Path
		}
		h.Recipients, h.Originals = append(h.Recipients, to.Path.String()), append(h.Originals, original.String())
		h.Expires, h.Reason = r.Expires.UTC(), r.Reason
		if !r.Status.IsZero() {
			h.Reason += ": " + r.Status.Error()
		}
	}
	return h, h.Plugin != "" && len(h.Recipients) > 0
}

// ShowQuarantined returns the versions of a message that are in quarantine, with all that is
// known of them.
func (q *Queue) ShowQuarantined(ctx context.Context, id string) ([]Quarantined, error) {
	ids, err := q.find(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	var out []Quarantined
	for _, id := range ids {
		e, records, err := q.Store.Get(ctx, id)
		if errors.Is(err, queue.ErrGone) {
			continue
		} else if err != nil {
			return nil, err
		}
		h, ok := describeHeld(e, records)
		if !ok {
			continue
		}
		h.Client, h.Scores, h.Header = clientText(e.Envelope.Client), e.Run.Scores, string(e.Header.Block())
		h.Notes = maps.Clone(e.Run.Notes)
		delete(h.Notes, queue.QuarantineNote)
		h.Text = firstText(e.Header, e.Body)
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil, notHeld(id)
	}
	return out, nil
}

func notHeld(id string) error {
	return fmt.Errorf("%s is not in quarantine: what else there is of it, postern queue show says", id)
}

func clientText(c mail.Client) string {
	if !c.Addr.IsValid() {
		return ""
	}
	text := c.Addr.String() + " (" + c.Helo + ")"
	if c.User != "" {
		text += " as " + c.User
	}
	return text
}

// ChangeQuarantined releases or deletes what is in quarantine of the messages with these ids,
// and nothing else of them, and returns for how many recipients.
func (q *Queue) ChangeQuarantined(ctx context.Context, c Change, ids []string) (int, error) {
	if c != Release && c != Delete {
		return 0, fmt.Errorf("%q is %w", c, ErrNotFound)
	}
	now := q.Clock()
	var results []queue.Result
	for _, text := range ids {
		versions, err := q.find(ctx, []string{text})
		if err != nil {
			return 0, err
		}
		before := len(results)
		for _, id := range versions {
			e, records, err := q.Store.Get(ctx, id)
			if errors.Is(err, queue.ErrGone) {
				continue
			} else if err != nil {
				return 0, err
			}
			if e.Run.Notes[queue.QuarantineNote] == "" {
				continue
			}
			for n, r := range records {
				if quarantined(r) && !slices.ContainsFunc(results, func(o queue.Result) bool { return o.ID == id && o.Recipient == n }) {
					results = append(results, q.result(c, queue.Item{ID: id, Class: e.Class, Recipient: n, Record: r}, now))
				}
			}
		}
		if len(results) == before && !slices.ContainsFunc(results, func(r queue.Result) bool { return slices.Contains(versions, r.ID) }) {
			return 0, notHeld(text)
		}
	}
	n, _, err := q.commit(ctx, c, Selection{Reason: "quarantine"}, results)
	return n, err
}

// result is what a change makes of a recipient in quarantine.
func (q *Queue) result(c Change, i queue.Item, now time.Time) queue.Result {
	r, _ := c.apply(i, now, "")
	if c == Release && q.Lifetime != nil {
		r.Expires = now.Add(q.Lifetime(i.Class))
	}
	return queue.Result{ID: i.ID, Recipient: i.Recipient, Record: r, Idle: true}
}
