package intake

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// What a local recipient's plan makes of a message, to be committed together with the end
// of his record.

// redirectedFrom is the field that tells who has redirected a message: other servers use it too.
const redirectedFrom = "X-Sieve-Redirected-From"

// Edited is what a recipient makes of a message before he keeps it or sends it on: nil where it
// stays as it is.
type Edited struct {
	Header *mail.Header
	Body   *mail.Body
	// EightBit says that the body may have bytes that are not ASCII.
	EightBit bool
	// Own says that it is another message, which nobody has sent.
	Own bool
}

// Kept is the message as one recipient keeps it. Only the first way in which he keeps it
// is the message itself, and reports its delivery; the others are copies.
func (in *Intake) Kept(e *queue.Entry, recipient int, keep queue.Keep, edited Edited, isCopy bool) queue.Add {
	env := e.Envelope
	r := env.Recipients[recipient]
	if isCopy || edited.Own {
		env.Origin, r.Notify = mail.Copied, mail.NotifyNever
	}
	if edited.Own {
		env.ReversePath, env.Return, env.EnvelopeID = mail.Path{}, 0, ""
	}
	env.Recipients = []mail.Recipient{r}
	kept := in.version(e, env, e.Header)
	in.edit(kept, edited)
	kept.Run, kept.Keep = e.Run, &keep
	return queue.Add{Entry: kept, Records: in.records(in.rules.Load(), kept, &pipeline.Version{})}
}

// Convicted is the message as it is held for one recipient because a plugin died of it at
// the delivery, with what the plugin said. The events are to be recorded when it is durable.
func (in *Intake) Convicted(e *queue.Entry, recipient int, plugin, stack string) (queue.Add, []trace.Event) {
	env := e.Envelope
	env.Recipients = []mail.Recipient{env.Recipients[recipient]}
	held := in.version(e, env, e.Header)
	held.Run, held.Keep = e.Run, e.Keep
	held.Run.Notes = maps.Clone(e.Run.Notes)
	if held.Run.Notes == nil {
		held.Run.Notes = make(map[string]string)
	}
	held.Run.Notes[queue.StackNote] = stack
	v := &pipeline.Version{Disposition: pipeline.Convict, Reason: "convicted: plugin " + plugin + " died twice on this message"}
	event := trace.Event{Type: trace.Plugin, ID: held.ID.String(), Family: e.Family.String(), Plugin: plugin, Action: "convicted"}
	waits := trace.Event{Type: trace.HeldBack, ID: event.ID, Family: event.Family, To: env.Recipients[0].Path.String(), Reason: v.Reason}
	return queue.Add{Entry: held, Records: in.records(in.rules.Load(), held, v)}, []trace.Event{event, waits}
}

// version is another version of a message that is in the queue.
func (in *Intake) version(e *queue.Entry, env mail.Envelope, h mail.Header) *queue.Entry {
	id := in.IDs.New(in.Clock())
	env.ID = id.String()
	return &queue.Entry{ID: id, Family: e.Family, Received: e.Received, Envelope: env, Header: h, Body: e.Body, Class: e.Class}
}

// edit makes a version what a recipient has made of it. What only we may say, he does not say.
func (in *Intake) edit(e *queue.Entry, by Edited) {
	if by.Header != nil {
		h := *by.Header
		h.Separate()
		given := make(map[string]int)
		for _, f := range e.Header.Fields {
			if claimsUs(f, in.Hostname) {
				given[string(f.Raw())]++
			}
		}
		h.RemoveIf(func(f mail.Field) bool {
			if !claimsUs(f, in.Hostname) {
				return false
			}
			given[string(f.Raw())]--
			return given[string(f.Raw())] < 0
		})
		e.Envelope.UTF8 = e.Envelope.UTF8 || isASCII(e.Header.Block()) && !isASCII(h.Block())
		e.Header = h
	}
	if by.Body != nil {
		e.Body = *by.Body
		if by.EightBit {
			e.Envelope.BodyType = mail.Body8BitMIME
		}
	}
}

// Leads says whether an address leads to somebody to whom an account may send; the error is a
// mail.Status if it does not.
func (in *Intake) Leads(ctx context.Context, by, to mail.Path) error {
	rules := in.rules.Load()
	if rules.Reaches != nil {
		if err := rules.Reaches(ctx, by, to); err != nil {
			return fmt.Errorf("intake: %s: %w", to, err)
		}
	}
	_, err := in.leads(ctx, rules, to)
	return err
}

func (in *Intake) leads(ctx context.Context, rules *Rules, to mail.Path) ([]mail.Path, error) {
	targets, err := rules.Expand(ctx, to)
	switch {
	case err != nil:
		return nil, fmt.Errorf("intake: expand %s: %w", to, err)
	case len(targets) == 0:
		return nil, fmt.Errorf("intake: %s leads nowhere: %w", to, mail.Permanent(550, 1, 1, "No recipient is left"))
	}
	return targets, nil
}

// Redirected is the message as one recipient sends it on, with its reverse-path; plugins
// that take redirected mail see it, but for the one that planned it. An error is temporary.
func (in *Intake) Redirected(ctx context.Context, e *queue.Entry, recipient int, to mail.Path, edited Edited, planner string, isCopy bool) (queue.Add, error) {
	rules := in.rules.Load()
	from := e.Envelope.Recipients[recipient]
	env := e.Envelope
	env.Origin = mail.Redirected
	if isCopy {
		from.Notify = mail.NotifyNever
	}
	targets, err := in.leads(ctx, rules, to)
	if err != nil {
		return queue.Add{}, err
	}
	env.Recipients = nil
	for _, t := range targets {
		r := mail.Recipient{Path: t, Notify: from.Notify, ORCPT: from.ORCPT}
		if t != to {
			r.Original = to
		}
		env.Recipients = append(env.Recipients, r)
		env.UTF8 = env.UTF8 || !t.IsASCII()
	}
	sent := in.version(e, env, e.Header)
	in.edit(sent, edited)
	sent.Header.Prepend(redirectedFrom, from.Path.String())
	// The field is what loops are found by; to the world we are the host that sends it on.
	field := &receiving{in: in, now: in.Clock(), env: sent.Envelope}
	field.env.Client = mail.Client{Helo: in.Hostname, Protocol: "local"}
	sent.Header.PrependRaw(field.received())
	sent.Run = queue.Run{Done: []string{planner}, Scores: e.Run.Scores, Notes: e.Run.Notes}
	return queue.Add{Entry: sent, Records: in.records(rules, sent, &pipeline.Version{})}, nil
}

// Looping reports whether a message must not be redirected by a recipient: he has done so
// before, or it has been through too many hosts.
func (in *Intake) Looping(h mail.Header, recipient mail.Path) bool {
	hops := 0
	for _, f := range h.Fields {
		switch {
		case strings.EqualFold(f.Name, "Received"):
			hops++
		case strings.EqualFold(f.Name, redirectedFrom):
			if p, err := mail.ParsePath(strings.TrimSpace(f.Value())); err == nil && p.Fold() == recipient.Fold() {
				return true
			}
		}
	}
	return hops >= in.rules.Load().Hops
}

// Reply is a message that the gateway sends by itself, with the null reverse-path: word is
// why (RFC 3834 §5), planner the plugin that is behind it, if one is. Header and body are in wire form. The event is to be recorded when the
// entry is durable. An error is temporary.
func (in *Intake) Reply(ctx context.Context, to mail.Path, h mail.Header, body []byte, word, planner string) (queue.Add, trace.Event, error) {
	rules := in.rules.Load()
	now := in.Clock()
	h.RemoveIf(func(f mail.Field) bool { return claimsUs(f, in.Hostname) })
	m := &receiving{in: in, rules: rules, now: now, env: mail.Envelope{Origin: mail.Internal, UTF8: !to.IsASCII() || !isASCII(h.Block()),
		Recipients: []mail.Recipient{{Path: to, Notify: mail.NotifyNever}}}}
	if !isASCII(body) || m.env.UTF8 {
		m.env.BodyType = mail.Body8BitMIME
	}
	m.complete(&h, true)
	if !h.Has("Auto-Submitted") {
		h.Prepend("Auto-Submitted", word)
	}
	h.Separate()
	if err := m.expand(ctx); err != nil {
		return queue.Add{}, trace.Event{}, err
	}
	id := in.IDs.New(now)
	m.env.ID = id.String()
	e := &queue.Entry{ID: id, Family: id, Class: queue.Report, Received: now, Envelope: m.env, Header: h, Body: mail.InlineBody(body)}
	if planner != "" {
		e.Run.Done = []string{planner}
		word += " by " + planner
	}
	event := trace.Event{Type: trace.Reported, ID: m.env.ID, Family: m.env.ID, To: to.String(), Reason: word}
	return queue.Add{Entry: e, Records: in.records(rules, e, &pipeline.Version{})}, event, nil
}
