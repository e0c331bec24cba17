package pipeline

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// apply turns a verdict on v into versions: one for each group of recipients that the
// verdict treats alike, and one for each copy. body is what the verdict's new body is.
func (s *Step) apply(v Version, verdict *sdk.Verdict, body mail.Body) []Version {
	run := s.remember(v.Run, verdict)
	var out []Version
	for _, group := range groups(v, verdict) {
		nv := v
		nv.Run = run
		nv.Recipients = group.recipients
		s.judge(&nv, group.outcome)
		if nv.Disposition <= Quarantine {
			if err := edit(&nv, verdict.Edits, group.edits, body); err != nil {
				// The host checks edits before; what still cannot be applied must not be
				// half applied.
				nv = v
				nv.Recipients = group.recipients
				nv.Disposition, nv.Status = Defer, mail.Temporary(451, 3, 0, "Message cannot be checked now, try again later")
				nv.Reason = fmt.Sprintf("plugin %s: %v", s.Name, err)
			}
		}
		if len(nv.Recipients) > 0 {
			out = append(out, nv)
		}
	}
	return append(out, s.aside(v, verdict, run, out, body)...)
}

// aside makes the versions for copies and for removed recipients.
func (s *Step) aside(v Version, verdict *sdk.Verdict, run queue.Run, made []Version, body mail.Body) []Version {
	var out []Version
	for _, e := range verdict.Edits {
		switch e.Kind {
		case sdk.Copy:
			c := v
			if len(made) > 0 { // with the edits of the same verdict
				c.Header, c.Body = made[0].Header, made[0].Body
			}
			c.Class = queue.Copy
			if e.BodyDraft != "" {
				c.Header, c.Body = mail.NewHeader([]byte(e.Value)), body
				c.Class = queue.Journal
			}
			c.Run, c.Disposition = run, Deliver
			c.ReversePath = e.ReversePath
			c.Recipients = []Recipient{{mail.Recipient{Path: e.Path, Notify: mail.NotifyFailure}, -1}}
			out = append(out, c)
		case sdk.RecipientRemove:
			for _, r := range v.Recipients {
				if r.Path == e.Path {
					d := v
					d.Run, d.Recipients = run, []Recipient{r}
					d.Disposition, d.Reason = Discard, "recipient removed by plugin "+s.Name
					out = append(out, d)
				}
			}
		}
	}
	return out
}

// judge sets the disposition of an outcome. Quarantine holds until a later plugin refuses.
func (s *Step) judge(v *Version, o sdk.Outcome) {
	switch o.Action {
	case sdk.ActionReject:
		v.Disposition, v.Status, v.Reason, v.By = Reject, o.Status, "plugin "+s.Name, s.Name
	case sdk.ActionTempfail:
		// One that answered tempfail is not done: it is asked again.
		v.Disposition, v.Status, v.Reason = Defer, o.Status, "plugin "+s.Name+": "+o.Status.Text
		v.Run.Done = v.Run.Done[:len(v.Run.Done)-1]
	case sdk.ActionDiscard:
		v.Disposition, v.Reason = Discard, "plugin "+s.Name+": "+o.Reason
	case sdk.ActionQuarantine:
		v.Disposition, v.Reason, v.By = Quarantine, "plugin "+s.Name+": "+o.Reason, s.Name
	case sdk.ActionUnscanned:
		v.Disposition, v.Status = Defer, mail.Temporary(451, 3, 0, "Message cannot be checked now, try again later")
		v.Reason = "plugin " + s.Name + ": unscanned: " + o.Reason
		v.Run.Done = v.Run.Done[:len(v.Run.Done)-1]
	}
}

// group is the recipients that a verdict treats alike.
type group struct {
	outcome    sdk.Outcome
	edits      []int // indexes of the verdict's edits that apply
	recipients []Recipient
}

func groups(v Version, verdict *sdk.Verdict) []*group {
	if len(verdict.PerRecipient) == 0 && !slices.ContainsFunc(verdict.Edits, func(e sdk.Edit) bool { return e.Recipients != nil }) {
		all := make([]int, len(verdict.Edits))
		for i := range all {
			all[i] = i
		}
		return []*group{{verdict.Outcome, all, slices.Clone(v.Recipients)}}
	}
	var out []*group
	for i, r := range v.Recipients {
		g := group{outcome: verdict.Outcome}
		if o, ok := verdict.PerRecipient[i]; ok {
			g.outcome = o
		}
		for k, e := range verdict.Edits {
			if e.Recipients == nil || slices.Contains(e.Recipients, i) {
				g.edits = append(g.edits, k)
			}
		}
		j := slices.IndexFunc(out, func(o *group) bool { return o.outcome == g.outcome && slices.Equal(o.edits, g.edits) })
		if j < 0 {
			j = len(out)
			out = append(out, &g)
		}
		out[j].recipients = append(out[j].recipients, r)
	}
	return out
}

// edit applies the chosen edits to v in order.
func edit(v *Version, edits []sdk.Edit, chosen []int, body mail.Body) error {
	for _, k := range chosen {
		e := edits[k]
		var err error
		switch e.Kind {
		case sdk.HeaderInsert:
			err = v.Header.Insert(e.Index, e.Name, e.Value)
		case sdk.HeaderChange:
			if e.Value == "" {
				v.Header.Remove(e.Name, e.Index)
			} else if found, cerr := v.Header.Change(e.Name, e.Index, e.Value); cerr != nil || found {
				err = cerr
			} else {
				err = v.Header.Append(e.Name, e.Value) // as the milter protocol does
			}
		case sdk.HeaderRemove:
			v.Header.Remove(e.Name, e.Index)
		case sdk.RecipientAdd:
			if !slices.ContainsFunc(v.Recipients, func(r Recipient) bool { return r.Path == e.Path }) {
				v.Recipients = append(v.Recipients, Recipient{mail.Recipient{Path: e.Path}, -1})
			}
		case sdk.RecipientRemove:
			v.Recipients = slices.DeleteFunc(v.Recipients, func(r Recipient) bool { return r.Path == e.Path })
		case sdk.ReversePath:
			v.ReversePath = e.Path
		case sdk.BodyReplace:
			v.Body = body
		case sdk.Copy:
		default:
			err = fmt.Errorf("edit %d is not known here", e.Kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remember adds what a plugin said to the run. It never writes into maps or slices that
// another version may share.
func (s *Step) remember(run queue.Run, verdict *sdk.Verdict) queue.Run {
	run.Done = done(run.Done, s.Name)
	for name, score := range verdict.Scores {
		run.Scores = with(run.Scores, s.Name+"/"+name, score)
	}
	for name, note := range verdict.Notes {
		run.Notes = with(run.Notes, s.Name+"/"+name, note)
	}
	return run
}

func done(names []string, name string) []string { return append(slices.Clip(names), name) }

func with[V any](m map[string]V, key string, value V) map[string]V {
	m = maps.Clone(m)
	if m == nil {
		m = make(map[string]V)
	}
	m[key] = value
	return m
}

// merge puts versions together that differ in their recipients only.
func merge(versions []Version) []Version {
	var out []Version
	for _, v := range versions {
		i := slices.IndexFunc(out, func(o Version) bool { return equal(o, v) })
		if i < 0 {
			out = append(out, v)
			continue
		}
		for _, r := range v.Recipients {
			if r.From >= 0 || !slices.ContainsFunc(out[i].Recipients, func(o Recipient) bool { return o.Path == r.Path }) {
				out[i].Recipients = append(out[i].Recipients, r)
			}
		}
	}
	for i := range out {
		slices.SortStableFunc(out[i].Recipients, func(a, b Recipient) int { return place(a) - place(b) })
	}
	return out
}

// place sorts recipients as the client gave them, added ones last.
func place(r Recipient) int {
	if r.From < 0 {
		return 1 << 30
	}
	return r.From
}

func equal(a, b Version) bool {
	return a.Disposition == b.Disposition && a.Class == b.Class && a.ReversePath == b.ReversePath &&
		a.Status == b.Status && a.Reason == b.Reason &&
		SameBody(a.Body, b.Body) && bytes.Equal(a.Header.Block(), b.Header.Block()) &&
		slices.Equal(a.Run.Done, b.Run.Done) && maps.Equal(a.Run.Scores, b.Run.Scores) && maps.Equal(a.Run.Notes, b.Run.Notes)
}

// SameBody reports whether two bodies are known to be the same without reading them.
func SameBody(a, b mail.Body) bool {
	if a.Path != "" || b.Path != "" {
		return a.Path == b.Path && a.Offset == b.Offset && a.Size == b.Size
	}
	return len(a.Inline) == len(b.Inline) && (len(a.Inline) == 0 || &a.Inline[0] == &b.Inline[0] || bytes.Equal(a.Inline, b.Inline))
}
