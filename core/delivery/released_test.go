package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/admin"
	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type holder struct{}

func (holder) Filter(context.Context, *mail.Message) (*sdk.Verdict, error) {
	return sdk.Quarantine("looks odd"), nil
}

func quarantining() pipeline.Step {
	return pipeline.Step{Name: "spam", Filter: holder{}, Origins: []mail.Origin{mail.Submitted}}
}

// What was held for longer than mail is tried is tried that long once it is released: it is
// neither given up at the first deferral nor reported as late.
func TestReleasedMailIsTriedAnew(t *testing.T) {
	r := newRig(t, quarantining())
	id := r.send("a@x.test", "b@y.test")
	r.ev.wait(t, trace.HeldBack)
	r.next.say(func(mail.Path) mail.Status { return mail.Temporary(450, 2, 0, "later") })
	r.later(20 * 24 * time.Hour)
	q := &admin.Queue{Store: r.store, Trace: r.ev, Clock: r.clock.Now, Lifetime: lifetime}
	if n, err := q.Change(t.Context(), admin.Release, admin.Selection{IDs: []string{id}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r.attempt()
	r.ev.wait(t, trace.Deferred)
	if items := r.items(); len(items) != 1 || items[0].State != queue.Pending || items[0].Warned {
		t.Errorf("after the first deferral: %+v", items)
	}
	r.later(lifetime(queue.Mail))
	r.attempt()
	if e := r.ev.wait(t, trace.Expired); e.To != "b@y.test" {
		t.Errorf("%+v", e)
	}
}

// Quarantined mail that nobody releases goes when its time is over, and nobody is told.
func TestQuarantineExpires(t *testing.T) {
	r := newRig(t, quarantining())
	id := r.send("a@x.test", "b@y.test")
	r.ev.wait(t, trace.HeldBack)
	items := r.items()
	if len(items) != 1 || !items[0].Expires.Equal(r.clock.Now().Add(30*24*time.Hour)) {
		t.Fatalf("held: %+v", items)
	}
	r.clock.advance(30*24*time.Hour - time.Second)
	r.d.watch(t.Context())
	if len(r.items()) != 1 {
		t.Fatal("gone too early")
	}
	r.clock.advance(2 * time.Second)
	r.d.watch(t.Context())
	if e := r.ev.wait(t, trace.Expired); e.ID != id {
		t.Errorf("%+v", e)
	}
	if items := r.items(); len(items) > 0 {
		t.Errorf("left: %+v", items)
	}
}
