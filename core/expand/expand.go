// Package expand turns what a local recipient wants done with a message (a plan: of a Sieve
// script, say) into ordinary queue records, in one atomic step.
//
// A plan that keeps the message once and does nothing else needs no commit: it is delivered
// as planned. Of any other plan core/intake makes entries (the message as it is kept, sent
// on, replied to), and they, what is to be remembered, and the end of the recipient's
// record are for one batch: a plan is carried out as a whole, once, or not at all. An entry
// that is kept says how, and nobody is asked again about it.
//
// The package calls planners and commits nothing. It is safe for concurrent use.
package expand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Planner makes plans: a planner plugin. It is called once for each local recipient, who is
// the one recipient of m, after queueing, and has no side effects. The plan has been
// checked against the plugin's rights.
type Planner interface {
	// Bodies that the planner wrote, of at most max bytes each, are handed to keep, and come
	// back by the number of their action.
	Plan(ctx context.Context, m *mail.Message, max int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Plan, map[int]mail.Body, error)
}

// Expander asks planners and expands their plans.
type Expander struct {
	// Planner finds a planner by its name in the configuration.
	Planner func(name string) (Planner, bool)
	Intake  *intake.Intake
	Log     *slog.Logger
	Clock   func() time.Time
}

// Outcome is what becomes of a message at one recipient.
type Outcome struct {
	// Record has the state, status and reason of the recipient's record, to be committed
	// with what follows; a zero state: nothing of that, deliver now, as Keep says.
	Record   queue.Record
	Keep     queue.Keep
	Add      []queue.Add
	Remember []queue.Mark
	Events   []trace.Event // to record once all that is durable
	// End, unless it is nil, is to be told whether what is in Add was committed.
	End func(committed bool)
}

// MarkKey names what a plugin's plan for a recipient has remembered, in the queue.
func MarkKey(plugin string, recipient mail.Path, key string) string {
	return plugin + "\x00" + recipient.Fold().String() + "\x00" + key
}

// Plan asks the planner of that name about one recipient of an entry. An error means "try
// again later".
func (x *Expander) Plan(ctx context.Context, planner string, e *queue.Entry, recipient int) (*Outcome, error) {
	p, ok := x.Planner(planner)
	if !ok {
		return nil, fmt.Errorf("planner %s is not configured", planner)
	}
	env := e.Envelope
	env.Recipients = []mail.Recipient{e.Envelope.Recipients[recipient]}
	drafts := x.Intake.Drafts()
	plan, bodies, err := p.Plan(ctx, &mail.Message{Envelope: env, Header: e.Header, Body: e.Body, Scores: e.Run.Scores, Notes: e.Run.Notes}, drafts.Max(), drafts.Keep)
	if err != nil {
		drafts.End(false)
		return nil, err
	}
	w := &work{Expander: x, planner: planner, entry: e, number: recipient, to: env.Recipients[0].Path, bodies: bodies, eightBit: drafts.EightBit()}
	out, err := w.carryOut(ctx, plan)
	if err == nil {
		err = drafts.Sync(out.Add)
	}
	if err != nil {
		drafts.End(false)
		return nil, err
	}
	out.End = drafts.End
	return out, nil
}

// work is one plan being expanded.
type work struct {
	*Expander
	planner string
	entry   *queue.Entry
	number  int
	to      mail.Path
	bodies  map[int]mail.Body // by number of the action
	keeps   []kept
	sent    []sent
	out     Outcome

	eightBit bool
}

// kept is one way in which the message is kept, sent one in which it is redirected.
type (
	kept struct {
		queue.Keep
		edited intake.Edited
	}
	sent struct {
		to     mail.Path
		edited intake.Edited
	}
)

// edited is what an action makes of the message first.
func (w *work) edited(i int, a *sdk.PlanAction) intake.Edited {
	e := intake.Edited{Own: a.Own}
	if len(a.Header.Block()) > 0 {
		e.Header = &a.Header
	}
	if b, ok := w.bodies[i]; ok {
		e.Body, e.EightBit = &b, w.eightBit
	}
	return e
}

func (w *work) carryOut(ctx context.Context, plan *sdk.Plan) (*Outcome, error) {
	var reject, discard *sdk.PlanAction
	for i := range plan.Actions {
		switch a := &plan.Actions[i]; a.Kind {
		case sdk.PlanKeep:
			w.keeps = append(w.keeps, kept{queue.Keep{Folder: a.Folder, Flags: a.Flags, Create: a.Create}, w.edited(i, a)})
		case sdk.PlanRedirect:
			w.redirect(a.Path, w.edited(i, a))
		case sdk.PlanDiscard:
			discard = a
		case sdk.PlanReject:
			reject = a
		}
	}
	now := w.Clock()
	if err := w.deliverable(ctx); err != nil {
		return nil, err
	}
	if err := w.once(ctx, now); err != nil {
		return nil, err
	}
	if !w.stays() && reject == nil && discard == nil {
		w.keeps = append(w.keeps, kept{}) // mail is not lost by accident
	}
	if err := w.messages(ctx, plan); err != nil {
		return nil, err
	}
	for _, m := range plan.Remember {
		w.out.Remember = append(w.out.Remember, queue.Mark{Key: MarkKey(w.planner, w.to, m.Key), Until: now.Add(m.Lifetime)})
	}
	w.notes(plan.Notes)
	if len(w.keeps) == 1 && w.keeps[0].edited == (intake.Edited{}) && len(w.sent) == 0 && len(w.out.Add) == 0 && len(w.out.Remember) == 0 {
		return &Outcome{Keep: w.keeps[0].Keep, Events: w.out.Events}, nil
	}
	first := true // the first way in which the message stays or goes on is the message itself
	for _, k := range w.keeps {
		w.out.Add = append(w.out.Add, w.Intake.Kept(w.entry, w.number, k.Keep, k.edited, !first))
		first = first && k.edited.Own
	}
	for _, s := range w.sent {
		add, err := w.Intake.Redirected(ctx, w.entry, w.number, s.to, s.edited, w.planner, !first)
		if err != nil {
			return nil, err
		}
		w.out.Add, first = append(w.out.Add, add), false
	}
	w.settle(reject, discard)
	return &w.out, nil
}

// notes puts what the planner has to say into the trace.
func (w *work) notes(notes []string) {
	for _, n := range notes {
		w.out.Events = append(w.out.Events, trace.Event{Type: trace.Plugin, ID: w.entry.ID.String(), Family: w.entry.Family.String(), To: w.to.String(),
			Plugin: w.planner, Action: "note", Reason: n})
	}
}

// known reports whether the sender is known: he logged in, is in a relay network, or a plugin vouches
// for the reverse-path. Anybody else may have been forged.
func (w *work) known() bool {
	if w.entry.Envelope.Client.Class != mail.Stranger {
		return true
	}
	for name, value := range w.entry.Run.Notes {
		if strings.HasSuffix(name, "/authenticated") && value != "" {
			return true
		}
	}
	return false
}

// settle says what becomes of the recipient's record.
func (w *work) settle(reject, discard *sdk.PlanAction) {
	r := &w.out.Record
	switch {
	case reject != nil && w.known():
		r.State, r.Status = queue.Failed, reject.Status
	case reject != nil:
		// RFC 5429 §2.2.1 permits it where the sender may be forged: a bounce would hit
		// somebody else.
		r.State, r.Reason = queue.Discarded, "rejected by the recipient, the sender is not known: "+reject.Status.Error()
	case w.stays():
		r.State, r.Reason = queue.Replaced, w.summary()
	default:
		r.State, r.Reason = queue.Discarded, discard.Reason
	}
}

// stays reports whether the message itself is kept or sent on.
func (w *work) stays() bool {
	return len(w.sent) > 0 || slices.ContainsFunc(w.keeps, func(k kept) bool { return !k.edited.Own })
}

// summary says what was made of the message, for the trace.
func (w *work) summary() string {
	var s []string
	for _, k := range w.keeps {
		what := "kept in "
		if k.edited.Own {
			what = "a copy of what was sent kept in "
		}
		s = append(s, what+fmt.Sprintf("%q", k.Folder))
	}
	for _, r := range w.sent {
		s = append(s, "redirected to "+r.to.String())
	}
	if n := len(w.out.Add) - len(w.keeps) - len(w.sent); n > 0 {
		s = append(s, fmt.Sprintf("%d messages sent", n))
	}
	return strings.Join(s, ", ")
}

// redirect notes where the message goes, each address once. What would go round in circles
// is kept instead: to the recipient himself, by a recipient that has redirected this very
// message before, or after too many hops.
func (w *work) redirect(to mail.Path, edited intake.Edited) {
	for _, s := range w.sent {
		if s.to == to {
			return
		}
	}
	if to.Fold() == w.to.Fold() || w.Intake.Looping(w.entry.Header, w.to) {
		w.keepInstead(to, "in a loop")
		return
	}
	w.sent = append(w.sent, sent{to, edited})
}

func (w *work) keepInstead(of mail.Path, reason string) {
	w.Log.Warn("not redirected, kept instead", "id", w.entry.ID.String(), "to", w.to.String(), "redirect", of.String(), "reason", reason)
	for _, k := range w.keeps {
		if k.Folder == "" && !k.edited.Own {
			return
		}
	}
	w.keeps = append(w.keeps, kept{})
}

// deliverable keeps what would go to an address of ours that gets no mail, of a disabled account say:
// the message must not wait for that to change.
func (w *work) deliverable(ctx context.Context) error {
	sent := w.sent
	w.sent = nil
	for _, s := range sent {
		switch err := w.Intake.Leads(ctx, w.to, s.to); {
		case refused(err):
			w.keepInstead(s.to, err.Error())
		case err != nil:
			return err
		default:
			w.sent = append(w.sent, s)
		}
	}
	return nil
}

// refused reports whether an error is an answer that will not change by itself.
func refused(err error) bool {
	var s mail.Status
	return errors.As(err, &s) && s.Permanent()
}

// onceFor is for how long it is remembered that a recipient has redirected a message.
const onceFor = 24 * time.Hour

// once lets a recipient redirect what was redirected to him one time only, by whatever way it comes:
// the header alone, which the plans on the way can change, would not end loops, nor keep some
// recipients who redirect to each other from making thousands of messages of one.
func (w *work) once(ctx context.Context, now time.Time) error {
	if len(w.sent) == 0 || w.entry.Envelope.Origin != mail.Redirected {
		return nil
	}
	key := MarkKey("", w.to, "redirected "+w.entry.Family.String()) // no plugin has this name
	again, err := w.Intake.Store.Remembered(ctx, key, now)
	if err != nil {
		return err
	}
	if again {
		w.keepInstead(w.sent[0].to, "in a loop")
		w.sent = nil
		return nil
	}
	w.out.Remember = append(w.out.Remember, queue.Mark{Key: key, Until: now.Add(onceFor)})
	return nil
}

// messages makes the replies and notifications.
func (w *work) messages(ctx context.Context, plan *sdk.Plan) error {
	for _, a := range plan.Actions {
		to, word := a.Path, "auto-generated"
		switch a.Kind {
		case sdk.PlanVacation:
			to, word = w.entry.Envelope.ReversePath, "auto-replied"
		case sdk.PlanNotify:
		default:
			continue
		}
		if to.IsZero() {
			continue // RFC 3834 §2: no reply to a null reverse-path
		}
		var add queue.Add
		var event trace.Event
		err := w.Intake.Leads(ctx, w.to, to)
		if err == nil {
			add, event, err = w.Intake.Reply(ctx, to, a.Header, a.Body, word, w.planner)
		}
		if refused(err) {
			w.Log.Info("reply or notification not sent", "id", w.entry.ID.String(), "of", w.to.String(), "to", to.String(), "reason", err.Error())
			continue
		} else if err != nil {
			return err
		}
		w.out.Add, w.out.Events = append(w.out.Add, add), append(w.out.Events, event)
	}
	return nil
}
