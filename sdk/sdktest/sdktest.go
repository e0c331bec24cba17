// Package sdktest checks plugins. [Filter], [Gate], [Planner], [Mailbox], [Folders], [Directory], [Service]
// and [Observer] hold an author's value against the contract in the process of the test: the answers
// go through the same checks as in the gateway. [Binary] does the same, and much more, with the executable, in a process of its own.
// Neither needs a gateway or a network.
package sdktest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

// Filter calls a filter as the gateway does: with a deadline, without the body when the
// manifest does not ask for it. It fails the test when the verdict breaks the contract or
// goes beyond the manifest, and when the message was changed. It returns the answer; for a
// new body that the filter wrote see [Body].
func Filter(t testing.TB, f sdk.Filter, man sdk.Manifest, m *mail.Message) (*sdk.Verdict, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d := draft.Draft{}
	if man.May&sdk.MayReplaceBody != 0 {
		d.Path = filepath.Join(t.TempDir(), "draft")
		if err := os.WriteFile(d.Path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx = draft.With(ctx, &d)
	seen := *m
	if man.Needs == sdk.NeedHeader {
		seen.Body = mail.Body{}
	}
	block, body := string(m.Header.Block()), string(m.Body.Inline)
	v, err := f.Filter(ctx, &seen)
	if string(m.Header.Block()) != block || string(m.Body.Inline) != body {
		t.Error("the filter changed the message that it was given")
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return nil, err
	case v == nil:
		t.Error("the filter returned neither a verdict nor an error")
		return nil, errors.New("no verdict")
	}
	if err := wire.CheckDraft(v, man, &m.Envelope, d.Path); err != nil {
		t.Errorf("the verdict breaks the contract: %v", err)
	}
	if body, ok := Body(t, v); ok && !draft.WireForm(body) {
		t.Error("the new body breaks the contract: it has a bare CR, a bare LF or a NUL")
	}
	return v, nil
}

// Body returns the new body of a verdict that [Filter] returned, the message's or that of a copy;
// false if it has none. It is there until the test ends.
func Body(t testing.TB, v *sdk.Verdict) ([]byte, bool) {
	t.Helper()
	for _, e := range v.Edits {
		if e.BodyDraft != "" {
			b, err := os.ReadFile(e.BodyDraft)
			if err != nil {
				t.Fatal(err)
			}
			return b, true
		}
	}
	return nil, false
}

// Gate calls a gate as the gateway does. It fails the test when the gate did not ask for
// the stage, and when the verdict breaks the contract or goes beyond the manifest. It
// returns the answer.
func Gate(t testing.TB, g sdk.Gate, man sdk.Manifest, a *sdk.Attempt) (*sdk.Verdict, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if man.Stages&a.Stage == 0 {
		t.Errorf("the manifest does not ask for %s: the gateway would not call", a.Stage)
	}
	v, err := g.Gate(ctx, a)
	switch {
	case err != nil:
		return nil, err
	case v == nil:
		t.Error("the gate returned neither a verdict nor an error")
		return nil, errors.New("no verdict")
	}
	if err := wire.CheckGate(v, man); err != nil {
		t.Errorf("the verdict breaks the contract: %v", err)
	}
	return v, nil
}

// Apply makes the header edits of a verdict.
func Apply(v *sdk.Verdict, h *mail.Header) error {
	for _, e := range v.Edits {
		var err error
		switch e.Kind {
		case sdk.HeaderInsert:
			err = h.Insert(e.Index, e.Name, e.Value)
		case sdk.HeaderRemove:
			h.Remove(e.Name, e.Index)
		case sdk.HeaderChange:
			if e.Value == "" {
				h.Remove(e.Name, e.Index)
			} else {
				_, err = h.Change(e.Name, e.Index, e.Value)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Mailbox checks what every mailbox promises: a delivery succeeds, the same key again
// succeeds and stores nothing, and another key stores again. Stored counts what is there
// for a recipient.
func Mailbox(t *testing.T, b sdk.Mailbox, recipient mail.Path, stored func(*testing.T) int) {
	t.Helper()
	deliver := func(key string) {
		t.Helper()
		h, body := mail.SplitMessage([]byte("From: a@example.com\r\nSubject: " + key + "\r\n\r\nbody\r\n"))
		m := &mail.Message{
			Envelope: mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming, Recipients: []mail.Recipient{{Path: recipient}}},
			Header:   h,
			Body:     mail.InlineBody(body),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := b.Deliver(ctx, &sdk.Delivery{Key: key, Recipient: recipient, Message: m}); err != nil {
			t.Fatalf("delivery %s: %v", key, err)
		}
	}
	before := stored(t)
	for _, step := range []struct {
		key  string
		want int
	}{{"0c1f3k9w2m4xq.0", 1}, {"0c1f3k9w2m4xq.0", 1}, {"0c1f3k9w2m4xq.1", 2}, {"0c1f3k9w2m4xq.0", 2}} {
		deliver(step.key)
		if got := stored(t) - before; got != step.want {
			t.Fatalf("after delivery %s there are %d messages, want %d", step.key, got, step.want)
		}
	}
}
