package local

import (
	"context"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

func testEntry(id queue.ID, body string, to ...string) (*queue.Entry, []queue.Record) {
	e := &queue.Entry{ID: id, Family: id, Received: time.Now(), Header: mail.NewHeader([]byte("Subject: hi\r\n\r\n")), Body: mail.InlineBody([]byte(body))}
	e.Envelope = mail.Envelope{ID: id.String(), Origin: mail.Incoming, ReversePath: mail.MustPath("a@example.org")}
	var recs []queue.Record
	for _, r := range to {
		p := mail.MustPath(r)
		e.Envelope.Recipients = append(e.Envelope.Recipients, mail.Recipient{Path: p})
		recs = append(recs, queue.Record{State: queue.Pending, Destination: p.Domain.String(), Attempts: 1, Next: time.Now().Add(5 * time.Minute)})
	}
	return e, recs
}

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	sp, err := spool.Open(spool.Options{Dir: dir + "/spool"})
	if err != nil {
		t.Fatal(err)
	}
	open := func() *Store {
		t.Helper()
		s, err := Open(Options{Dir: dir + "/queue", Content: sp})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ctx := context.Background()
	s := open()
	var ids queue.IDs
	id := ids.New(time.Now())
	e, recs := testEntry(id, "hello", "x@example.com", "y@example.com", "z@example.net")
	if err := s.Commit(ctx, queue.Batch{Add: []queue.Add{{Entry: e, Records: recs}}}); err != nil {
		t.Fatal(err)
	}
	leases, _, err := s.Claim(ctx, queue.Claim{Now: time.Now(), Max: 10})
	if err != nil || len(leases) != 2 {
		t.Fatal(leases, err)
	}
	l := leases[0]
	for i, n := range l.Recipients {
		rec := l.Records[i]
		rec.State = queue.Delivered
		if err := s.Commit(ctx, queue.Batch{Results: []queue.Result{{ID: id, Recipient: n, Record: rec}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	leases, _, err = s.Claim(ctx, queue.Claim{Now: time.Now(), Max: 10})
	if err != nil || len(leases) != 1 || leases[0].Records[0].Attempts != 2 {
		t.Fatal(leases, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
