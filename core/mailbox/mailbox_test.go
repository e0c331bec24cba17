package mailbox

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type storing struct {
	got *sdk.Delivery
	err error
}

func (s *storing) Deliver(_ context.Context, d *sdk.Delivery) error {
	s.got = d
	return s.err
}

func entry() *queue.Entry {
	h, body := mail.SplitMessage([]byte("Return-Path: <forged@example.net>\r\nSubject: x\r\nreturn-path: <two@example.net>\r\n\r\nbody\r\n"))
	return &queue.Entry{ID: 77, Header: h, Body: mail.InlineBody(body), Envelope: mail.Envelope{ReversePath: mail.MustPath("from@example.com"),
		Recipients: []mail.Recipient{{Path: mail.MustPath("a@example.org")}, {Path: mail.MustPath("b@example.org")}}}}
}

// The header gets the two fields of final delivery, and the plugin hears how the message is
// to be kept, for one recipient.
func TestDeliver(t *testing.T) {
	s := &storing{}
	tr := &Transport{Log: slog.New(slog.DiscardHandler), Backend: func(name string) (Backend, bool) { return s, name == "box" }}
	e := entry()
	st, err := tr.Deliver(t.Context(), "box", e, 1, queue.Keep{Folder: "x", Flags: []string{"$y"}, Create: true}, true)
	if err != nil || !st.Success() {
		t.Fatal(st, err)
	}
	d := s.got
	if d.Key != e.ID.String()+"-1" || d.Recipient != e.Envelope.Recipients[1].Path || d.Folder != "x" || len(d.Flags) != 1 || !d.Create || !d.Fresh || len(d.Message.Envelope.Recipients) != 1 {
		t.Errorf("%+v", d)
	}
	if got := string(d.Message.Header.Block()); got != "Return-Path: <from@example.com>\r\nDelivered-To: b@example.org\r\nSubject: x\r\n\r\n" {
		t.Errorf("header %q", got)
	}
	if string(e.Header.Block())[:25] != "Return-Path: <forged@exam" {
		t.Error("the entry was changed")
	}
	if st, _ := tr.Deliver(t.Context(), "other", e, 0, queue.Keep{}, false); !st.Temporary() {
		t.Errorf("no such plugin: %v", st)
	}
	for _, c := range []struct {
		err  error
		want int
	}{{errors.New("x"), 451}, {mail.Permanent(554, 2, 0, "no"), 554}, {mail.Temporary(452, 2, 2, "full"), 452}} {
		s.err = c.err
		if st, err := tr.Deliver(t.Context(), "box", e, 0, queue.Keep{}, false); st.Code != c.want || err == nil || s.got.Fresh {
			t.Errorf("%v: %v, %v", c.err, st, err)
		}
	}
}

// roomy has room up to a size.
type roomy struct {
	limit int64
	err   error
	asked int
}

func (r *roomy) Room(_ context.Context, _ mail.Path, size int64) error {
	r.asked++
	if r.err != nil {
		return r.err
	}
	if size > r.limit {
		return mail.Temporary(452, 2, 2, "Mailbox full")
	}
	return nil
}

func TestRooms(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	box := &roomy{limit: 1000}
	r := NewRooms(func(name string) (Doorman, bool) { return box, name == "box" }, slog.New(slog.DiscardHandler), func() time.Time { return now })
	ann := mail.MustPath("Ann@example.org")
	ask := func(what string, to mail.Path, size int64, full bool, asked int) {
		t.Helper()
		before := box.asked
		st := r.Ask(t.Context(), "box", to, size)
		if st.IsZero() == full || full && st.Code != 452 || box.asked-before != asked {
			t.Errorf("%s: %v, asked %d times", what, st, box.asked-before)
		}
	}
	ask("fits", ann, 500, false, 1)
	ask("smaller", mail.MustPath("ann@example.org"), 0, false, 0)
	ask("larger", ann, 900, false, 1)
	ask("too large", ann, 1001, true, 1)
	ask("larger still", ann, 5000, true, 0)
	ask("fits all the same", ann, 900, false, 0)
	ask("somebody else", mail.MustPath("bob@example.org"), 900, false, 1)
	box.limit = -1
	now = now.Add(roomKeep - 1)
	ask("remembered", ann, 0, false, 0)
	now = now.Add(1)
	ask("full now", ann, 0, true, 1)
	ask("at any size", ann, 100, true, 0)
	box.limit = 1 << 40
	now = now.Add(roomKeep)
	ask("emptied", ann, 5000, false, 1)
	ask("known", ann, 5000, false, 0)
	box.err = errors.New("down")
	ask("no answer", ann, 6000, false, 1)
	ask("is not remembered", ann, 6000, false, 1)
	box.err = mail.Permanent(552, 2, 3, "too large")
	if st := r.Ask(t.Context(), "box", ann, 6000); st.Code != 552 {
		t.Error(st)
	}
	if st := r.Ask(t.Context(), "other", ann, 0); !st.IsZero() {
		t.Error(st)
	}
}
