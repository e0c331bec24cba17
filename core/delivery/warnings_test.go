package delivery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// warnAll lets time pass, and all mail that waits be tried, until each message has had its warning or
// has missed it, and n warnings are told of. It returns the messages that somebody was warned of.
func (r *rig) warnAll(d time.Duration, n int) map[string]int {
	r.t.Helper()
	r.later(d)
	told := make(map[string]int)
	waits := func(i queue.Item) bool { return i.Class == queue.Mail && (!i.Warned || i.Leased) }
	for {
		select {
		case e := <-r.ev:
			if e.Type == trace.Reported && strings.HasPrefix(e.Reason, "delayed ") {
				told[e.To]++
				n--
			}
		default:
			if n <= 0 && !slices.ContainsFunc(r.items(), waits) {
				return told
			}
		}
	}
}

// L-13: a next hop is down for hours, with many messages of one sender and few of others: each message
// is warned of once at most, and the one sender is not flooded; nobody is warned of warnings.
func TestL13WarningStorm(t *testing.T) {
	r := newRig(t)
	r.next.say(func(mail.Path) mail.Status { return mail.Temporary(450, 2, 0, "later") })
	go func() {
		for {
			select {
			case <-r.next.attempts: // only what is told of them matters
			case <-t.Context().Done():
				return
			}
		}
	}()
	send := func(from string, n int) {
		for i := range n {
			r.send(from, fmt.Sprintf("b%d@y.test", i), "c@y.test")
		}
	}
	send("a@x.test", 3*warnings)
	send("A@x.test", 1) // the same mailbox
	send("few@x.test", warnings)
	if told := r.warnAll(5*time.Hour, 2*warnings); told["a@x.test"]+told["A@x.test"] != warnings || told["few@x.test"] != warnings || len(told) > 3 {
		t.Errorf("warned were %v", told)
	}
	// What was left out is not sent later.
	if told := r.warnAll(12*time.Hour, 0); len(told) != 0 {
		t.Errorf("warned later were %v", told)
	}
	send("a@x.test", 1)
	if told := r.warnAll(12*time.Hour, 1); told["a@x.test"] != 1 || len(told) != 1 {
		t.Errorf("warned of another message were %v", told)
	}
}

// L-05: a report that expires is given up with a line in the trace, as one that is refused, and there
// is none about it.
func TestL05ReportExpires(t *testing.T) {
	r := newRig(t)
	r.next.say(func(to mail.Path) mail.Status {
		if to.Local == "a" {
			return mail.Temporary(450, 2, 0, "later")
		}
		return mail.Permanent(550, 1, 1, "no")
	})
	r.send("a@x.test", "b@y.test")
	r.attempt()
	report := r.ev.wait(t, trace.Reported)
	r.attempt()
	r.ev.wait(t, trace.Deferred)
	r.later(6 * 24 * time.Hour)
	r.attempt()
	if e := r.ev.wait(t, trace.Expired); e.Family != report.Family || e.To != "a@x.test" {
		t.Errorf("%+v", e)
	}
	if items := r.items(); len(items) > 0 {
		t.Errorf("left: %+v", items)
	}
}
