package expand_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/expand"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// marks is a store that knows what is to be remembered.
type marks struct {
	queue.Store
	until map[string]time.Time
}

func (m *marks) Remembered(_ context.Context, key string, now time.Time) (bool, error) {
	return m.until[key].After(now), nil
}

// away is a planner that sends everything on.
type away struct{ to []mail.Path }

func (a away) Plan(context.Context, *mail.Message, int64, func(io.Reader) (mail.Body, error)) (*sdk.Plan, map[int]mail.Body, error) {
	p := &sdk.Plan{}
	for _, to := range a.to {
		p.Redirect(to)
	}
	return p, nil, nil
}

func address(t *testing.T, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestL12RedirectedOnce: what was redirected to a recipient he sends on one time, whatever its header says, or
// recipients who redirect to each other make any number of messages of one.
func TestL12RedirectedOnce(t *testing.T) {
	store := &marks{until: make(map[string]time.Time)}
	now := time.Unix(1e9, 0)
	clock := func() time.Time { return now }
	in := intake.New(intake.Options{Hostname: "mx.example.org", IDs: &queue.IDs{}, Store: store, Clock: clock, Log: slog.New(slog.DiscardHandler)},
		intake.Rules{Hops: 100, Destination: func(mail.Path) string { return "there" },
			Expand: func(_ context.Context, p mail.Path) ([]mail.Path, error) { return []mail.Path{p}, nil }})
	planner := away{[]mail.Path{address(t, "c@example.org"), address(t, "d@example.org")}}
	x := &expand.Expander{Intake: in, Log: slog.New(slog.DiscardHandler), Clock: clock, Planner: func(string) (expand.Planner, bool) { return planner, true }}
	var ids queue.IDs
	family := ids.New(now)
	sentOn := func(origin mail.Origin, family queue.ID, to string) bool {
		t.Helper()
		id := ids.New(now)
		e := &queue.Entry{ID: id, Family: family, Header: mail.NewHeader([]byte("Subject: x\r\n\r\n")),
			Envelope: mail.Envelope{ID: id.String(), Origin: origin, Recipients: []mail.Recipient{{Path: address(t, to)}}}}
		out, err := x.Plan(t.Context(), "sieve", e, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Remember {
			store.until[m.Key] = m.Until
		}
		if n := len(out.Add); n != 0 && n != 2 {
			t.Fatalf("%d messages are sent on", n)
		}
		return len(out.Add) == 2
	}
	for i, c := range []struct {
		origin mail.Origin
		family queue.ID
		to     string
		want   bool
	}{
		{mail.Incoming, family, "b@example.org", true},
		{mail.Incoming, family, "b@example.org", true}, // another way to him, not a circle
		{mail.Redirected, family, "b@example.org", true},
		{mail.Redirected, family, "b@example.org", false},
		{mail.Redirected, family, "B@example.org", false},
		{mail.Redirected, family, "e@example.org", true},
		{mail.Redirected, ids.New(now), "b@example.org", true},
	} {
		if got := sentOn(c.origin, c.family, c.to); got != c.want {
			t.Errorf("%d: sent on: %t", i, got)
		}
	}
	if now = now.Add(25 * time.Hour); !sentOn(mail.Redirected, family, "b@example.org") {
		t.Error("remembered for more than a day")
	}
}

// writer is a planner that sends everything on, answers and notifies.
type writer struct{ to mail.Path }

func (w writer) Plan(context.Context, *mail.Message, int64, func(io.Reader) (mail.Body, error)) (*sdk.Plan, map[int]mail.Body, error) {
	h := mail.NewHeader([]byte("Subject: x\r\n\r\n"))
	return new(sdk.Plan).Redirect(w.to).Vacation(h, []byte("x\r\n")).Notify(w.to, h, []byte("x\r\n")), nil, nil
}

// What cannot reach anybody, for an account is disabled, does not keep the message waiting.
func TestRefusedTargets(t *testing.T) {
	now := time.Unix(1e9, 0)
	clock := func() time.Time { return now }
	gone, broken := address(t, "gone@example.org"), address(t, "broken@example.org")
	down := errors.New("no route to the database")
	in := intake.New(intake.Options{Hostname: "mx.example.org", IDs: &queue.IDs{}, Store: &marks{}, Clock: clock, Log: slog.New(slog.DiscardHandler)},
		intake.Rules{Hops: 100, Destination: func(mail.Path) string { return "there" }, Expand: func(_ context.Context, p mail.Path) ([]mail.Path, error) {
			switch p {
			case gone:
				return nil, mail.Permanent(550, 2, 1, "Mailbox is disabled")
			case broken:
				return nil, down
			}
			return []mail.Path{p}, nil
		}})
	var ids queue.IDs
	plan := func(to mail.Path) (*expand.Outcome, error) {
		x := &expand.Expander{Intake: in, Log: slog.New(slog.DiscardHandler), Clock: clock, Planner: func(string) (expand.Planner, bool) { return writer{to}, true }}
		id := ids.New(now)
		e := &queue.Entry{ID: id, Family: id, Header: mail.NewHeader([]byte("Subject: x\r\n\r\n")),
			Envelope: mail.Envelope{ID: id.String(), Origin: mail.Incoming, ReversePath: to, Recipients: []mail.Recipient{{Path: address(t, "b@example.org")}}}}
		return x.Plan(t.Context(), "sieve", e, 0)
	}
	if out, err := plan(address(t, "c@example.org")); err != nil || len(out.Add) != 3 {
		t.Errorf("%v, %v", out, err)
	}
	if out, err := plan(gone); err != nil || len(out.Add) != 0 || out.Record.State != 0 || out.Keep.Folder != "" {
		t.Errorf("refused: %+v, %v", out, err)
	}
	if out, err := plan(broken); !errors.Is(err, down) {
		t.Errorf("down: %+v, %v", out, err)
	}
}
