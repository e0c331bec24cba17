// Package pipeline runs the plugins over a message, one after the other in the
// configuration's order, and returns what becomes of every recipient.
//
// A message travels as versions: a header block, a body, a reverse-path and recipients.
// A plugin is called once per version. Verdicts or edits that differ between recipients
// split a version, equal versions merge again, so there are never more versions than
// recipients and copies. A run can be resumed: plugins named in [queue.Run] are not asked
// again. The package only returns dispositions; it commits and replies nothing.
//
// A Pipeline is immutable and safe for concurrent use; a reload makes a new one.
package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Filter is a plugin as the pipeline calls it. The verdict has been checked against the
// plugin's rights. An error that has a Reason method (down, timeout, error) says by it why
// there is no answer.
type Filter interface {
	Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error)
}

// Step is a plugin in its place.
type Step struct {
	Name      string
	Filter    Filter
	Origins   []mail.Origin // the mail it is called for
	Timeout   time.Duration // for one call; 0: the message's deadline only
	OnFailure FailurePolicy
}

// Options of a Pipeline.
type Options struct {
	Steps   []Step
	Timeout time.Duration // for all plugins together; 0: no limit
	Trace   trace.Recorder
	Clock   func() time.Time
	// Convictions are those so far; nil: none.
	Convictions *Convictions
	// Tally counts what plugins and their failure policies decide; nil: nobody wants to know.
	Tally *Tally
	// Allowed returns which of the message's recipients, by number, want mail of its sender
	// whatever it looks like; nil: nobody does. It is for plugins to honour that judge what is
	// wanted, as [sdk.NoteAllowed], and never for those that judge what is dangerous.
	Allowed func(ctx context.Context, m *mail.Message) []int
	// Witness is told of every answer; nil: nobody is.
	Witness Witness
}

// Pipeline is the configured order of plugins.
type Pipeline struct{ Options }

// New returns the pipeline that o describes.
func New(o Options) *Pipeline {
	if o.Convictions == nil {
		o.Convictions = &Convictions{}
	}
	if o.Tally == nil {
		o.Tally = &Tally{}
	}
	return &Pipeline{o}
}

// Message is what goes into a run.
type Message struct {
	Envelope mail.Envelope
	Family   string // queue id of the message as received, for the trace
	Header   mail.Header
	Body     mail.Body
	Class    queue.Class
	Run      queue.Run
	// Bodies takes what plugins put in the place of Body; nil: they cannot.
	Bodies *Bodies
}

// Disposition is what becomes of a version.
type Disposition uint8

// The dispositions.
const (
	Deliver    Disposition = iota // go on to the queue and the next hop
	Quarantine                    // hold
	Discard                       // throw away, on record
	Reject                        // refuse for good
	Defer                         // refuse for now
	Park                          // accept, and wait for the plugin that could not be asked
	Convict                       // accept and hold: a plugin died of it
)

// String is the name used in traces.
func (d Disposition) String() string {
	return [...]string{"deliver", "quarantine", "discard", "reject", "defer", "park", "convict"}[d]
}

// Version is one version of the message with its disposition.
type Version struct {
	ReversePath mail.Path
	Recipients  []Recipient
	Header      mail.Header
	Body        mail.Body
	Class       queue.Class
	Run         queue.Run
	Disposition Disposition
	Status      mail.Status // of Reject and Defer
	Reason      string      // of Quarantine, Discard, Park and Convict
	By          string      // the plugin that said Quarantine or Reject
}

// Recipient is a recipient of a version.
type Recipient struct {
	mail.Recipient
	// From is its number in the message that went into the run; -1 when a plugin added it.
	From int
}

// Run asks every plugin that applies and has not answered yet. The versions it returns
// hold every recipient of m exactly once, and copies.
func (p *Pipeline) Run(ctx context.Context, m Message) []Version {
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Timeout)
		defer cancel()
	}
	first := Version{ReversePath: m.Envelope.ReversePath, Header: m.Header, Body: m.Body, Class: m.Class, Run: acquitted(m.Run)}
	first.Recipients = make([]Recipient, len(m.Envelope.Recipients))
	for i, r := range m.Envelope.Recipients {
		first.Recipients[i] = Recipient{r, i}
	}
	versions := []Version{first}
	for i := range p.Steps {
		step := &p.Steps[i]
		if !slices.Contains(step.Origins, m.Envelope.Origin) {
			continue
		}
		var next []Version
		for i, v := range versions {
			if v.Disposition > Quarantine || slices.Contains(v.Run.Done, step.Name) {
				next = append(next, v)
				continue
			}
			next = append(next, p.ask(ctx, step, m, v, step.whole(v, next, versions[i:]))...)
		}
		versions = merge(next)
	}
	for i := range versions {
		versions[i].Run.Complete = versions[i].Disposition <= Quarantine
	}
	if p.Witness != nil {
		p.Witness.Ended(versions)
	}
	return versions
}

// ask calls one plugin for one version, and tells it that of the whole message, if anything.
func (p *Pipeline) ask(ctx context.Context, step *Step, m Message, v Version, whole string) []Version {
	env := m.Envelope
	env.ReversePath = v.ReversePath
	env.Recipients = make([]mail.Recipient, len(v.Recipients))
	for i, r := range v.Recipients {
		env.Recipients[i] = r.Recipient
	}
	msg := &mail.Message{Envelope: env, Header: v.Header, Body: v.Body, Scores: v.Run.Scores, Notes: v.Run.Notes}
	p.allow(ctx, msg)
	if v.Disposition == Quarantine {
		msg.Notes = with(msg.Notes, sdk.NoteQuarantine, v.By)
	}
	if whole != "" {
		msg.Notes = with(msg.Notes, sdk.NoteEnvelope, whole)
	}
	callCtx := ctx
	if step.Timeout > 0 {
		var cancel context.CancelFunc
		callCtx, cancel = context.WithTimeout(ctx, step.Timeout)
		defer cancel()
	}
	begin := p.Clock()
	if p.Convictions.Barred(step.Name, env.Client, begin) {
		event := trace.Event{Type: trace.Plugin, ID: env.ID, Family: m.Family, Plugin: step.Name, Action: "not asked"}
		v = step.refuse(v, &event)
		p.Trace.Record(event)
		return []Version{v}
	}
	verdict, body, err := step.ask(callCtx, msg, m.Bodies)
	event := trace.Event{Type: trace.Plugin, ID: env.ID, Family: m.Family, Plugin: step.Name,
		Millis: float64(p.Clock().Sub(begin).Microseconds()) / 1000}
	if err == nil && verdict.Action == sdk.ActionUnscanned {
		err = &unscanned{verdict.Reason}
	}
	forged := p.forged(step, v)
	var split []Version
	switch {
	case err != nil && reasonOf(err) == Convicted:
		split = []Version{p.convict(step, v, env.Client, err, &event)}
	case err != nil && reasonOf(err) == Gateway:
		split = []Version{step.unable(v, err, &event)}
	case err != nil:
		choice := step.OnFailure.choose(reasonOf(err), env.Client.Class)
		p.Tally.noVerdict(step.Name, choice)
		split = []Version{step.failed(forged.marked, choice, err, &event)}
	default:
		split = step.apply(forged.marked, verdict, body)
		p.Tally.verdict(step.Name, v, split)
		event.Action, event.Status, event.Reason = verdict.Action.String(), verdict.Status, verdict.Reason
	}
	forged.remove(step, v, split, &event)
	if m := missed(step.Name, v.Run.Notes); m != "" {
		event.Reason = strings.TrimPrefix(event.Reason+"; "+m, "; ")
	}
	p.Trace.Record(event)
	p.testify(step.Name, v, verdict, err, event.Millis, split)
	return split
}

// unscanned is the failure of a plugin that answered that it could not look.
type unscanned struct{ why string }

func (u *unscanned) Error() string { return "unscanned: " + u.why }

// reasonOf says why there is no verdict, in the words of the configuration.
func reasonOf(err error) Reason {
	var r interface{ Reason() string }
	switch {
	case errors.As(err, &r):
		return Reason(r.Reason())
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Error
}
