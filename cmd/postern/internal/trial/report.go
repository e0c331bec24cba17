package trial

import (
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Report is what one trial found out.
type Report struct {
	envelope Envelope
	text     []byte                 // as it is sent
	next     func(mail.Path) string // next hop

	reply    wireReply   // the last one that counts
	answers  []wireReply // to RCPT, by recipient; nil: MAIL was refused
	asked    []question  // in order
	ran      bool        // the pipeline has
	versions []pipeline.Version
}

// question is one call of a plugin, with its answer.
type question struct {
	plugin  string
	stage   string // of a gate: "connect", "MAIL"; "" for a message
	about   string // whom: a recipient
	answer  pipeline.Answer
	verdict string
	failure string // why there was no verdict
	changed bool
	bodies  [][]string // what differs in the body, by version after it: files are soon gone
}

func (r *Report) filter(a pipeline.Answer) {
	q := question{plugin: a.Plugin, answer: a}
	q.judge(a.Verdict, a.Err)
	q.changed = altered(a)
	q.bodies = make([][]string, len(a.After))
	for i, v := range a.After {
		if rewritten(a.Before, v) {
			q.bodies[i] = diffBodies(a.Before.Body, v.Body)
		}
	}
	if a.Before.Class.IsCopy() {
		q.about = "the copy for " + addressees(a.Before)
	} else if len(a.Before.Recipients) < r.accepted() {
		q.about = addressees(a.Before)
	}
	r.asked = append(r.asked, q)
}

// accepted is how many recipients the client was allowed.
func (r *Report) accepted() (n int) {
	for _, a := range r.answers {
		if a.Code/100 == 2 {
			n++
		}
	}
	return n
}

func (r *Report) gate(name string, a *sdk.Attempt, v *sdk.Verdict, err error, millis float64) {
	q := question{plugin: name, stage: a.Stage.String(), answer: pipeline.Answer{Plugin: name, Verdict: v, Millis: millis}}
	if a.Stage == sdk.AtRcpt {
		q.about = "<" + a.Recipient.String() + ">"
	}
	q.judge(v, err)
	r.asked = append(r.asked, q)
}

// judge puts the verdict in a word.
func (q *question) judge(v *sdk.Verdict, err error) {
	switch {
	case err != nil:
		q.verdict, q.failure = sdk.ActionUnscanned.String(), strings.TrimPrefix(err.Error(), "unscanned: ")
	case v == nil:
		q.verdict, q.failure = sdk.ActionUnscanned.String(), "no answer"
	case v.Action == sdk.ActionUnscanned:
		q.verdict, q.failure = v.Action.String(), v.Reason
	default:
		q.verdict = v.Action.String()
		for _, i := range slices.Sorted(maps.Keys(v.PerRecipient)) {
			if q.verdict == sdk.ActionContinue.String() {
				q.verdict = v.PerRecipient[i].Action.String()
			}
		}
	}
}

// altered reports whether the message, or its envelope, is another than before. A copy that
// a plugin makes changes nothing of the message.
func altered(a pipeline.Answer) bool {
	if a.Verdict != nil && slices.ContainsFunc(a.Verdict.Edits, func(e sdk.Edit) bool { return e.Kind == sdk.RecipientAdd || e.Kind == sdk.RecipientRemove }) {
		return true
	}
	return slices.ContainsFunc(a.After, func(v pipeline.Version) bool {
		return v.Class == a.Before.Class && (v.ReversePath != a.Before.ReversePath || string(v.Header.Block()) != string(a.Before.Header.Block()) || rewritten(a.Before, v))
	})
}

// rewritten reports whether b has another body than a.
func rewritten(a, b pipeline.Version) bool { return !pipeline.SameBody(a.Body, b.Body) }

func addressees(v pipeline.Version) string {
	var names []string
	for i, r := range v.Recipients {
		if i == 5 {
			names = append(names, "…")
			break
		}
		names = append(names, "<"+r.Path.String()+">")
	}
	return strings.Join(names, ", ")
}

// The words of dispositions.
const (
	tryDeliver    = "deliver"
	tryReject     = "reject"
	tryDefer      = "defer"
	tryDiscard    = "discard"
	tryQuarantine = "quarantine"
)

// word is one of the five for what becomes of a version. Mail that waits for a plugin is
// deferred, and held is held.
func word(d pipeline.Disposition) string {
	switch d {
	case pipeline.Deliver:
		return tryDeliver
	case pipeline.Quarantine, pipeline.Convict:
		return tryQuarantine
	case pipeline.Discard:
		return tryDiscard
	case pipeline.Reject:
		return tryReject
	}
	return tryDefer
}

// refusal is the word for a reply that does not accept; "" for one that does.
func (w wireReply) refusal() string {
	switch w.Code / 100 {
	case 2, 3:
		return ""
	case 5:
		return tryReject
	}
	return tryDefer
}

func (r *Report) disposition() string {
	if d := r.reply.refusal(); d != "" {
		return d
	}
	said := make(map[string]bool)
	for _, v := range r.versions {
		if !v.Class.IsCopy() {
			said[word(v.Disposition)] = true
		}
	}
	for _, d := range []string{tryDeliver, tryQuarantine, tryDefer} {
		if said[d] {
			return d
		}
	}
	return tryDiscard
}

// tryRoute is where the message goes for one recipient.
type tryRoute struct {
	Recipient   string `json:"recipient"`
	Disposition string `json:"disposition"`
	NextHop     string `json:"next_hop"`
}

// routes are those of the recipients in the client's order, then of what plugins added, then
// of copies. Of a message that was refused nothing goes anywhere.
func (r *Report) routes() []tryRoute {
	out := []tryRoute{}
	refused := r.reply.refusal()
	for i, to := range r.envelope.To {
		switch {
		case i < len(r.answers) && r.answers[i].refusal() != "":
			out = append(out, tryRoute{Recipient: to.String(), Disposition: r.answers[i].refusal()})
		case r.ran:
			out = append(out, r.goes(func(v pipeline.Version, n pipeline.Recipient) bool {
				return !v.Class.IsCopy() && n.From >= 0 && (n.Path == to || n.Original == to) && !slices.Contains(r.envelope.To[:i], to)
			})...)
		default:
			out = append(out, tryRoute{Recipient: to.String(), Disposition: refused})
		}
	}
	if refused == "" {
		out = append(out, r.goes(func(v pipeline.Version, n pipeline.Recipient) bool { return !v.Class.IsCopy() && n.From < 0 })...)
		out = append(out, r.goes(func(v pipeline.Version, _ pipeline.Recipient) bool { return v.Class.IsCopy() })...)
	}
	return out
}

// goes are the routes of some recipients.
func (r *Report) goes(which func(pipeline.Version, pipeline.Recipient) bool) (out []tryRoute) {
	for _, v := range r.versions {
		for _, to := range v.Recipients {
			if !which(v, to) {
				continue
			}
			line := tryRoute{Recipient: to.Path.String(), Disposition: word(v.Disposition)}
			if v.Disposition == pipeline.Deliver {
				line.NextHop = r.next(to.Path)
			}
			out = append(out, line)
		}
	}
	return out
}

// result is the version whose header is shown: the first that is delivered, else the first
// that is a version of the message itself.
func (r *Report) result() (pipeline.Version, bool) {
	for _, want := range []func(pipeline.Version) bool{
		func(v pipeline.Version) bool { return !v.Class.IsCopy() && v.Disposition == pipeline.Deliver },
		func(v pipeline.Version) bool { return !v.Class.IsCopy() },
	} {
		if i := slices.IndexFunc(r.versions, want); i >= 0 {
			return r.versions[i], true
		}
	}
	return pipeline.Version{}, false
}

// tryPlugin is one plugin in the result.
type tryPlugin struct {
	Name    string             `json:"name"`
	Verdict string             `json:"verdict"`
	Millis  float64            `json:"ms"`
	Changed bool               `json:"changed"`
	Scores  map[string]float64 `json:"scores"`
	Notes   map[string]string  `json:"notes"`
}

// plugins has each plugin once, in the order in which they were asked first. What a plugin
// said first counts; about a copy it is asked after the message itself.
func (r *Report) plugins() []tryPlugin {
	out := []tryPlugin{}
	for _, q := range r.asked {
		i := slices.IndexFunc(out, func(p tryPlugin) bool { return p.Name == q.plugin })
		if i < 0 {
			i = len(out)
			out = append(out, tryPlugin{Name: q.plugin, Verdict: sdk.ActionContinue.String(), Scores: map[string]float64{}, Notes: map[string]string{}})
		}
		p := &out[i]
		if p.Verdict == sdk.ActionContinue.String() {
			p.Verdict = q.verdict
		}
		p.Millis += q.answer.Millis
		p.Changed = p.Changed || q.changed
		if v := q.answer.Verdict; v != nil {
			addNew(p.Scores, v.Scores)
			addNew(p.Notes, v.Notes)
		}
		if q.failure != "" {
			addNew(p.Notes, map[string]string{"unscanned": q.failure})
		}
	}
	for i := range out {
		out[i].Millis = float64(int64(out[i].Millis*1000+0.5)) / 1000
	}
	return out
}

func addNew[V any](to, from map[string]V) {
	for k, v := range from {
		if _, there := to[k]; !there {
			to[k] = v
		}
	}
}

// WriteJSON writes the result as one line.
func (r *Report) WriteJSON(w io.Writer) error {
	line := struct {
		Disposition string      `json:"disposition"`
		Reply       wireReply   `json:"reply"`
		Plugins     []tryPlugin `json:"plugins"`
		Headers     [][2]string `json:"headers"`
		Routes      []tryRoute  `json:"routes"`
	}{r.disposition(), r.reply, r.plugins(), [][2]string{}, r.routes()}
	if v, ok := r.result(); ok {
		for _, f := range v.Header.Fields {
			line.Headers = append(line.Headers, [2]string{f.Name, f.Value()})
		}
	}
	enc := terminal.JSON(w)
	return enc.Encode(line)
}
