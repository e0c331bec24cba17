package intake

import (
	"context"
	"slices"
	"testing"

	"github.com/postern-mail/postern/core/dsn"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// What the gateway itself says is of class report, and goes on as that.
func TestReportsAreAClass(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, plain)
	es, _ := r.entries()
	if es[0].Class != queue.Mail {
		t.Errorf("mail is of class %s", es[0].Class)
	}
	adds, _ := r.in.Reports(es[0], []Notice{{Action: dsn.Failed, Status: no}})
	if len(adds) != 1 || adds[0].Entry.Class != queue.Report {
		t.Errorf("a DSN: %+v", adds)
	}
	b, _ := r.in.Resume(ctx, adds[0].Entry, []int{0}, adds[0].Records)
	if len(b.Add) != 1 || b.Add[0].Entry.Class != queue.Report {
		t.Errorf("a DSN after the pipeline: %+v", b.Add)
	}
	reply, _, err := r.in.Reply(ctx, mail.MustPath("b@x.test"), mail.NewHeader([]byte("Subject: away\r\n\r\n")), nil, "auto-replied", "sieve")
	if err != nil || reply.Entry.Class != queue.Report {
		t.Errorf("a reply: %+v %v", reply, err)
	}
	for origin, want := range map[mail.Origin]queue.Class{mail.Internal: queue.Report, mail.Submitted: queue.Mail, mail.Fetched: queue.Mail} {
		text, err := r.submit(Submission{Plugin: "p", Origin: origin, ReversePath: mail.MustPath("from@y.test"), Recipients: []mail.Path{mail.MustPath("a@x.test")}}, plain)
		if err != nil {
			t.Fatal(err)
		}
		id, err := queue.ParseID(text)
		if err != nil {
			t.Fatal(err)
		}
		if e, _, err := r.store.Get(ctx, id); err != nil || e.Class != want {
			t.Errorf("submitted as %s: class %s, %v", origin, e.Class, err)
		}
	}
}

// A version keeps its class, whatever is made of it.
func TestVersionsKeepTheirClass(t *testing.T) {
	var asked []string
	r := newRig(t, func(m *mail.Message) (*sdk.Verdict, error) {
		asked = append(asked, m.Envelope.Recipients[0].Path.Local)
		return sdk.Continue(), nil
	})
	e := &queue.Entry{ID: 7, Family: 6, Class: queue.Journal, Envelope: *envelope(mail.Incoming, "archive@x.test"), Header: mail.NewHeader([]byte("Subject: report\r\n\r\n"))}
	e.Envelope.ID = e.ID.String()
	records := []queue.Record{{State: queue.Pending, Attempts: 1}}
	check := func(what string, class queue.Class) {
		t.Helper()
		if class != queue.Journal {
			t.Errorf("%s: class %s", what, class)
		}
	}
	b, _ := r.in.Resume(context.Background(), e, []int{0}, records)
	if len(b.Add) != 1 || !b.Add[0].Entry.Run.Complete || len(asked) != 1 {
		t.Fatalf("%+v, asked for %v", b, asked)
	}
	check("resumed", b.Add[0].Entry.Class)
	check("kept", r.in.Kept(e, 0, queue.Keep{}, Edited{}, false).Entry.Class)
	held, _ := r.in.Convicted(e, 0, "p", "stack")
	check("convicted", held.Entry.Class)
	sent, err := r.in.Redirected(context.Background(), e, 0, mail.MustPath("b@y.test"), Edited{}, "sieve", false)
	if err != nil {
		t.Fatal(err)
	}
	check("redirected", sent.Entry.Class)
}

// A report to who sent as an alias goes to whom the alias leads to; what the directory does not
// know now goes to the address.
func TestReportsToAliases(t *testing.T) {
	for from, want := range map[string][]string{
		"alias@x.test": {"a@x.test"}, "group@x.test": {"a@x.test", "b@x.test"}, "from@y.test": {"from@y.test"}, "broken@x.test": {"broken@x.test"},
	} {
		r := newRig(t)
		env := envelope(mail.Submitted, "c@z.test")
		env.ReversePath = mail.MustPath(from)
		r.receive(env, pipeline.SMTPClient, "Subject: s\r\n\r\nx\r\n")
		es, _ := r.entries()
		adds, _ := r.in.Reports(es[0], []Notice{{Action: dsn.Failed, Status: mail.Permanent(550, 1, 1, "no")}})
		if len(adds) != 1 {
			t.Errorf("%s: %d reports", from, len(adds))
			continue
		}
		var got []string
		for i, to := range adds[0].Entry.Envelope.Recipients {
			got = append(got, to.Path.String())
			if original := to.Original; (original.String() == from) != (got[i] != from) || to.Notify != mail.NotifyNever {
				t.Errorf("%s: recipient %+v", from, to)
			}
		}
		if !slices.Equal(got, want) || len(adds[0].Records) != len(want) {
			t.Errorf("%s: report to %v with %d records", from, got, len(adds[0].Records))
		}
	}
}
