package intake

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/dsn"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// Notice is what may have to be told about one recipient of an entry.
type Notice struct {
	Recipient int // its number
	Action    dsn.Action
	Status    mail.Status
	Until     time.Time // of a delay: how long it will be tried
}

// Reports makes the notifications that notices about e call for, to be committed together
// with the results that caused them: one for failures, one for delays, one for successes,
// each about all recipients concerned. A null reverse-path gets none (RFC 5321 §6.1).
//
// A copy made by a plugin has a reverse-path of its own and is reported there, never to
// the sender of the message. The events are to be recorded once the batch is durable.
func (in *Intake) Reports(e *queue.Entry, notices []Notice) ([]queue.Add, []trace.Event) {
	if e.Envelope.ReversePath.IsZero() && slices.ContainsFunc(notices, func(n Notice) bool { return n.Action == dsn.Failed || n.Action == dsn.Expired }) {
		in.Log.Info("no report for a null reverse-path", "id", e.ID.String())
	}
	var adds []queue.Add
	var events []trace.Event
	for _, kind := range [][]dsn.Action{{dsn.Failed, dsn.Expired}, {dsn.Delayed}, {dsn.Delivered, dsn.Relayed}} {
		var told []dsn.Recipient
		for _, n := range notices {
			r := e.Envelope.Recipients[n.Recipient]
			if (n.Action == kind[0] || n.Action == kind[len(kind)-1]) && dsn.Wanted(e.Envelope.ReversePath, r.Notify, n.Action) {
				told = append(told, dsn.Recipient{Path: r.Path, Original: r.Original, ORCPT: r.ORCPT, Action: n.Action, Status: n.Status,
					LastAttempt: in.Clock(), WillRetryUntil: n.Until})
			}
		}
		if len(told) == 0 {
			continue
		}
		if add, ok := in.report(e, told); ok {
			adds = append(adds, add)
			id := add.Entry.Envelope.ID
			events = append(events, trace.Event{Type: trace.Reported, ID: id, Family: id, To: e.Envelope.ReversePath.String(), Reason: told[0].Action.String() + " " + e.ID.String()})
		}
	}
	return adds, events
}

func (in *Intake) report(e *queue.Entry, told []dsn.Recipient) (queue.Add, bool) {
	rules, now := in.rules.Load(), in.Clock()
	to, err := in.reported(rules, rules.sender(e.Envelope.ReversePath))
	if err != nil {
		in.Log.Info("no report for a sender who does not exist", "id", e.ID.String(), "from", e.Envelope.ReversePath.String())
		return queue.Add{}, false
	}
	msg, err := dsn.Build(dsn.Options{Hostname: in.Hostname, Postmaster: in.Postmaster, Now: now}, dsn.Report{
		ID: e.ID.String(), ReversePath: rules.sender(e.Envelope.ReversePath), EnvelopeID: e.Envelope.EnvelopeID, Return: e.Envelope.Return, UTF8: e.Envelope.UTF8,
		Arrival: e.Received, Header: e.Header, Body: e.Body, Recipients: told})
	if err != nil {
		in.Log.Error("cannot write a delivery report", "id", e.ID.String(), "error", err)
		return queue.Add{}, false
	}
	id := in.IDs.New(now)
	r := &queue.Entry{ID: id, Family: id, Class: queue.Report, Received: now, Header: msg.Header, Body: msg.Body}
	r.Envelope = mail.Envelope{ID: id.String(), Origin: mail.Internal, UTF8: msg.UTF8, Recipients: to}
	for _, n := range to {
		r.Envelope.UTF8 = r.Envelope.UTF8 || !n.Path.IsASCII()
	}
	if msg.EightBit {
		r.Envelope.BodyType = mail.Body8BitMIME
	}
	return queue.Add{Entry: r, Records: in.records(rules, r, &pipeline.Version{})}, true
}

// reported are the recipients of a report to a sender: behind an alias, who sends as it. The error
// is permanent: there is nobody. What is not known now is taken as it is.
func (in *Intake) reported(rules *Rules, sender mail.Path) ([]mail.Recipient, error) {
	targets := []mail.Path{sender}
	var s mail.Status
	if rules.Reaches != nil {
		if err := rules.Reaches(context.Background(), mail.Path{}, sender); errors.As(err, &s) && s.Permanent() {
			return nil, err
		}
	}
	if found, err := in.leads(context.Background(), rules, sender); err == nil {
		targets = found
	} else if errors.As(err, &s) && s.Permanent() {
		return nil, err
	}
	var out []mail.Recipient
	for _, t := range targets {
		r := mail.Recipient{Path: t, Notify: mail.NotifyNever}
		if t != sender {
			r.Original = sender
		}
		out = append(out, r)
	}
	return out, nil
}

// refusals are the notices about the recipients of a refused version.
func refusals(v *pipeline.Version) []Notice {
	ns := make([]Notice, len(v.Recipients))
	for i := range ns {
		ns[i] = Notice{Recipient: i, Action: dsn.Failed, Status: v.Status}
	}
	return ns
}
