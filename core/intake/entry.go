package intake

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// PipelineDestination is the destination key of recipients whose entry has not been
// through the pipeline.
const PipelineDestination = "pipeline"

// QuarantineTime is how long quarantined mail is kept where the rules do not say.
const QuarantineTime = 30 * 24 * time.Hour

// quarantine is how long quarantined mail is kept.
func (r *Rules) quarantine() time.Duration {
	if r.Quarantine > 0 {
		return r.Quarantine
	}
	return QuarantineTime
}

// source is the message that entries are made of.
type source struct {
	id       queue.ID // for the first entry; 0: each gets a new one
	family   queue.ID
	received time.Time
	env      mail.Envelope
	class    queue.Class
	rules    *Rules
}

// batch makes the entries of what a run settled.
func (in *Intake) batch(src source, s pipeline.Settlement) queue.Batch {
	var b queue.Batch
	for i := range s.Versions {
		v := &s.Versions[i]
		if v.Disposition == pipeline.Discard {
			in.Trace.Record(trace.Event{Type: trace.Discarded, ID: src.env.ID, Family: src.family.String(), To: versionTo(v), Reason: v.Reason})
			continue
		}
		if v.Disposition == pipeline.Reject && !v.Class.IsCopy() && src.env.Client.Class != mail.Stranger {
			// The sender is known: tell him. Strangers' mail is held, for the sender may be
			// forged, and a report would be backscatter.
			failed := in.entry(&src, v)
			in.Trace.Record(trace.Event{Type: trace.Failed, ID: failed.Envelope.ID, Family: src.family.String(), To: versionTo(v), Status: v.Status, Reason: v.Reason})
			reports, events := in.Reports(failed, refusals(v))
			b.Add = append(b.Add, reports...)
			for _, e := range events {
				in.Trace.Record(e)
			}
			continue
		}
		for _, v := range in.sentOn(&src, v) {
			e := in.entry(&src, v)
			b.Add = append(b.Add, queue.Add{Entry: e, Records: in.records(src.rules, e, v)})
		}
	}
	return b
}

// entry makes the queue entry of a version.
func (in *Intake) entry(src *source, v *pipeline.Version) *queue.Entry {
	id := src.id
	src.id = 0
	if id == 0 {
		id = in.IDs.New(in.Clock())
	}
	env := src.env
	env.ID = id.String()
	env.ReversePath = v.ReversePath
	env.Recipients = make([]mail.Recipient, len(v.Recipients))
	for i, r := range v.Recipients {
		env.Recipients[i] = r.Recipient
	}
	return &queue.Entry{ID: id, Family: src.family, Received: src.received, Envelope: env,
		Header: v.Header, Body: v.Body, Class: v.Class, Run: judged(v)}
}

// judged is a version's run, with the plugin that wants it held.
func judged(v *pipeline.Version) queue.Run {
	run := v.Run
	if v.By != "" && (v.Disposition == pipeline.Quarantine || v.Disposition == pipeline.Reject) {
		notes := make(map[string]string, len(run.Notes)+1)
		maps.Copy(notes, run.Notes)
		notes[queue.QuarantineNote] = v.By
		run.Notes = notes
	}
	return run
}

// records are the first records of an entry's recipients.
func (in *Intake) records(rules *Rules, e *queue.Entry, v *pipeline.Version) []queue.Record {
	now := in.Clock()
	rs := make([]queue.Record, len(e.Envelope.Recipients))
	for i := range rs {
		r := queue.Record{State: queue.Pending, Attempts: 1, Next: in.Backoff.Next(now, 1)}
		if e.Run.Complete {
			r.Destination = rules.Destination(e.Envelope.Recipients[i].Path)
		} else {
			r.Destination = PipelineDestination
		}
		switch v.Disposition {
		case pipeline.Quarantine:
			r.State, r.Reason, r.Expires = queue.Held, v.Reason, now.Add(rules.quarantine())
		case pipeline.Convict:
			r.State, r.Reason, r.Expires = queue.Held, v.Reason, now.Add(rules.quarantine())
		case pipeline.Reject:
			r.State, r.Expires = queue.Held, now.Add(rules.quarantine())
			r.Reason, r.Status = "refused after other recipients were accepted: "+v.Reason, v.Status
		case pipeline.Park:
			r.State, r.Reason = queue.Parked, v.Reason
		}
		rs[i] = r
	}
	return rs
}

// Resume runs the rest of the pipeline for recipients of an entry that no client waits
// for, and returns the batch that puts the outcome in the entry's place. What the batch
// refers to is durable. The caller calls end and says whether it committed the batch.
func (in *Intake) Resume(ctx context.Context, e *queue.Entry, numbers []int, records []queue.Record) (b queue.Batch, end func(committed bool)) {
	rules := in.rules.Load()
	fresh := bodies{spool: in.Spool}
	b = in.resume(ctx, rules, &fresh, e, numbers, records)
	if err := fresh.sync(b); err != nil {
		in.Log.Error("a body that a plugin wrote cannot be stored, trying again later", "id", e.ID.String(), "error", err)
		fresh.end(false)
		b = queue.Batch{}
		for i, n := range numbers {
			r := records[i]
			r.State, r.Destination, r.Reason = queue.Pending, PipelineDestination, "a body that a plugin wrote could not be stored"
			b.Results = append(b.Results, queue.Result{ID: e.ID, Recipient: n, Record: r})
		}
	}
	in.traceBatch(b)
	return b, fresh.end
}

func (in *Intake) resume(ctx context.Context, rules *Rules, fresh *bodies, e *queue.Entry, numbers []int, records []queue.Record) queue.Batch {
	env := e.Envelope
	env.Recipients = make([]mail.Recipient, len(numbers))
	for i, n := range numbers {
		env.Recipients[i] = e.Envelope.Recipients[n]
	}
	versions := rules.Pipeline.Run(ctx, pipeline.Message{Envelope: env, Family: e.Family.String(), Header: e.Header, Body: e.Body, Class: e.Class, Run: e.Run,
		Bodies: fresh.For(rules)})
	settled := pipeline.Settle(versions, len(numbers), pipeline.NoClient)
	if parked, ok := unchanged(settled.Versions, e); ok {
		// Nothing happened but that the same plugin is still missing: the entry stays.
		var b queue.Batch
		for i, n := range numbers {
			r := records[i]
			r.State, r.Reason, r.Destination = queue.Parked, parked.Reason, PipelineDestination
			b.Results = append(b.Results, queue.Result{ID: e.ID, Recipient: n, Record: r})
		}
		in.traceResults(e, b.Results)
		return b
	}
	b := in.batch(source{family: e.Family, received: e.Received, env: e.Envelope, class: e.Class, rules: rules}, settled)
	for _, a := range b.Add {
		if a.Entry.Family == e.Family { // what is a report begins its own life
			a.Prolong(records[0].Expires)
		}
	}
	for i, n := range numbers {
		r := records[i]
		r.State, r.Reason = queue.Replaced, ""
		b.Results = append(b.Results, queue.Result{ID: e.ID, Recipient: n, Record: r})
	}
	return b
}

// unchanged reports whether a run only parked the whole entry where it was.
func unchanged(versions []pipeline.Version, e *queue.Entry) (pipeline.Version, bool) {
	if len(versions) != 1 || versions[0].Disposition != pipeline.Park || !slices.Equal(versions[0].Run.Done, e.Run.Done) {
		return pipeline.Version{}, false
	}
	return versions[0], true
}

// traceBatch records what became of mail that does not simply go on.
func (in *Intake) traceBatch(b queue.Batch) {
	for _, a := range b.Add {
		for i, r := range a.Records {
			event := trace.Event{ID: a.Entry.ID.String(), Family: a.Entry.Family.String(), To: a.Entry.Envelope.Recipients[i].Path.String(), Status: r.Status, Reason: r.Reason}
			switch r.State {
			case queue.Held:
				event.Type = trace.HeldBack
			case queue.Parked:
				event.Type = trace.Waiting
			default:
				continue
			}
			in.Trace.Record(event)
		}
	}
}

func (in *Intake) traceResults(e *queue.Entry, results []queue.Result) {
	for _, r := range results {
		in.Trace.Record(trace.Event{Type: trace.Waiting, ID: e.ID.String(), Family: e.Family.String(), To: e.Envelope.Recipients[r.Recipient].Path.String(), Reason: r.Record.Reason})
	}
}

func versionTo(v *pipeline.Version) string {
	rs := make([]mail.Recipient, len(v.Recipients))
	for i, r := range v.Recipients {
		rs[i] = r.Recipient
	}
	return recipients(rs)
}
