package delivery

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk/mail"
)

// put commits journal reports to addresses, ready for delivery.
func (r *rig) put(to ...string) {
	r.t.Helper()
	var b queue.Batch
	ids := &queue.IDs{}
	for _, a := range to {
		id, p := ids.New(r.clock.Now()), mail.MustPath(a)
		e := &queue.Entry{ID: id, Family: id, Class: queue.Journal, Received: r.clock.Now(), Header: mail.NewHeader([]byte("Subject: report\r\n\r\n")), Run: queue.Run{Complete: true}}
		e.Envelope = mail.Envelope{ID: id.String(), ReversePath: mail.MustPath("postmaster@mx.test"), Recipients: []mail.Recipient{{Path: p, Notify: mail.NotifyFailure}}}
		b.Add = append(b.Add, queue.Add{Entry: e, Records: []queue.Record{{State: queue.Pending, Attempts: 1, Next: r.clock.Now().Add(5 * time.Minute), Destination: "smtp:" + p.Domain.String()}}})
	}
	if err := r.store.Commit(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// archive is a next hop whose recipient keep hangs until open.
type archive struct {
	mu        sync.Mutex
	now, most int
	entered   chan struct{}
	open      func()
}

func newArchive(r *rig) *archive {
	opened := make(chan struct{})
	a := &archive{entered: make(chan struct{}, 100), open: sync.OnceFunc(func() { close(opened) })}
	r.t.Cleanup(a.open)
	r.next.say(func(to mail.Path) mail.Status {
		if to.Local == "keep" {
			a.mu.Lock()
			a.now++
			a.most = max(a.most, a.now)
			a.mu.Unlock()
			a.entered <- struct{}{}
			<-opened
			a.mu.Lock()
			a.now--
			a.mu.Unlock()
		}
		return mail.OK(250, 0, 0, "ok")
	})
	return a
}

// An archive that hangs takes its class's share and no more, neither of its next hop nor of all
// slots, and mail goes on, also to the same host.
func TestClassesApart(t *testing.T) {
	for name, c := range map[string]struct {
		archive string // "%d" makes each report's next hop another
		share   int
	}{"one next hop": {"keep@same.test", 1}, "many": {"keep@d%d.test", 2}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a := newArchive(r)
			var to []string
			for i := range 10 {
				if to = append(to, c.archive); name == "many" {
					to[i] = fmt.Sprintf(c.archive, i)
				}
			}
			r.put(to...)
			for range c.share {
				<-a.entered
			}
			for range 20 {
				r.send("a@x.test", "b@same.test")
			}
			for range 20 {
				if got := r.attempt(); got.to[0].Local != "b" {
					t.Errorf("%v was attempted", got.to)
				}
			}
			for range 20 {
				r.ev.wait(t, trace.Delivered)
			}
			a.mu.Lock()
			if a.most != c.share {
				t.Errorf("%d reports at once, want %d", a.most, c.share)
			}
			a.mu.Unlock()
			a.open()
			for range 10 {
				r.attempt()
				r.ev.wait(t, trace.Delivered)
			}
			if a.most > c.share {
				t.Errorf("%d reports at once in the end", a.most)
			}
		})
	}
}

// A next hop that one class does not reach is left alone by that class.
func TestClassesFailApart(t *testing.T) {
	d := destinations{m: make(map[lane]*destination)}
	report, letter := lane{queue.Journal, "h"}, lane{queue.Mail, "h"}
	for range 2 {
		d.begin(report)
		d.end(report, false, 5, epoch)
	}
	if n := d.room(report, 5, epoch); n != 0 {
		t.Errorf("room for %d reports", n)
	}
	if n := d.room(letter, 20, epoch); n != initialWindow {
		t.Errorf("room for %d of mail", n)
	}
	d.reopen([]string{"h"})
	if n := d.room(report, 5, epoch); n != 1 {
		t.Errorf("room for %d reports after reopen", n)
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct{ limit, mail, other int }{{1, 1, 1}, {3, 3, 1}, {4, 4, 1}, {7, 7, 1}, {8, 8, 2}, {100, 100, 25}} {
		if m, o := shareOf(queue.Mail, c.limit), shareOf(queue.Report, c.limit); m != c.mail || o != c.other {
			t.Errorf("of %d: %d and %d", c.limit, m, o)
		}
	}
}

// A journal report is tried for as long as its class is, and its end is told to its own
// reverse-path.
func TestJournalLifetime(t *testing.T) {
	r := newRig(t)
	r.next.say(func(to mail.Path) mail.Status {
		if to.Local == "postmaster" {
			return mail.OK(250, 0, 0, "ok")
		}
		return mail.Temporary(450, 2, 0, "later")
	})
	r.put("keep@archive.test")
	r.attempt()
	r.ev.wait(t, trace.Deferred)
	r.later(30*24*time.Hour - time.Second)
	r.attempt()
	r.ev.wait(t, trace.Deferred)
	r.later(time.Hour)
	r.attempt()
	if e := r.ev.wait(t, trace.Expired); e.To != "keep@archive.test" {
		t.Errorf("%+v", e)
	}
	if report := r.attempt(); report.to[0].Local != "postmaster" || !report.from.IsZero() {
		t.Errorf("%+v", report)
	}
}
