package intake

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

func (r *rig) submit(s Submission, text string) (string, error) {
	return r.in.Submit(context.Background(), s, strings.NewReader(text))
}

func TestSubmitIsCommittedBeforeItsPipeline(t *testing.T) {
	r := newRig(t)
	id, err := r.submit(Submission{Plugin: "clock", Origin: mail.Submitted, ReversePath: mail.MustPath("from@y.test"),
		Recipients: []mail.Path{mail.MustPath("group@x.test"), mail.MustPath("a@x.test")}}, "Subject: x\r\nBcc: secret@x.test\r\n\r\nbody\xe9")
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	e, records, err := r.store.Get(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	if e.Run.Complete || len(e.Run.Done) != 1 || e.Run.Done[0] != "clock" {
		t.Errorf("the run is %+v", e.Run)
	}
	if len(records) != 2 || records[0].Destination != PipelineDestination || records[0].State != queue.Pending {
		t.Errorf("the records are %+v", records)
	}
	if e.Header.Has("Bcc") || !e.Header.Has("Date") || !e.Header.Has("Message-ID") || !strings.HasPrefix(string(e.Header.Block()), "Received: from mx.test") {
		t.Errorf("the header is\n%s", e.Header.Block())
	}
	if string(e.Body.Inline) != "body\xe9\r\n" || e.Envelope.BodyType != mail.Body8BitMIME || e.Envelope.UTF8 || e.Envelope.Client.Class != mail.Authenticated {
		t.Errorf("the entry is %+v", e)
	}
}

func TestSubmitRefuses(t *testing.T) {
	to := []mail.Path{mail.MustPath("a@x.test")}
	for name, tt := range map[string]struct {
		text string
		max  int64
		code int
	}{
		"bare LF":      {"Subject: x\r\n\r\na\nb\r\n", 0, 554},
		"bare CR":      {"Subject: x\r\n\r\na\rb\r\n", 0, 554},
		"CR at end":    {"Subject: x\r\n\r\na\r", 0, 554},
		"NUL":          {"Subject: x\r\n\r\na\x00b\r\n", 0, 554},
		"too large":    {"Subject: x\r\n\r\nab\r\n", 17, 552},
		"large header": {"Subject: " + strings.Repeat("x", 5000) + "\r\n\r\n", 0, 552},
	} {
		for _, oneByte := range []bool{false, true} {
			r := newRig(t)
			in := strings.NewReader(tt.text)
			s := Submission{Origin: mail.Fetched, Recipients: to, MaxSize: tt.max}
			var err error
			if oneByte {
				_, err = r.in.Submit(context.Background(), s, iotest.OneByteReader(in))
			} else {
				_, err = r.in.Submit(context.Background(), s, in)
			}
			var st mail.Status
			if !errors.As(err, &st) || st.Code != tt.code {
				t.Errorf("%s: error is %v, want %d", name, err, tt.code)
			}
		}
	}
	r := newRig(t)
	if _, err := r.submit(Submission{Origin: mail.Fetched, Recipients: to, MaxSize: 18}, "Subject: x\r\n\r\nab\r\n"); err != nil {
		t.Errorf("a message of exactly the limit: %v", err)
	}
	if _, err := r.submit(Submission{Origin: mail.Fetched, Recipients: []mail.Path{mail.MustPath("broken@x.test")}}, "Subject: x\r\n\r\n"); mail.StatusOf(err).Permanent() || err == nil {
		t.Errorf("a directory that is down: %v", err)
	}
	if _, err := r.in.Submit(context.Background(), Submission{Origin: mail.Fetched, Recipients: to}, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("Subject: x\r\n\r\nabc\r\n")))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a plugin that goes away: %v", err)
	}
}
