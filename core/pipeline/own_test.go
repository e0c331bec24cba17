package pipeline

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// owner is a filter with header fields of its own.
type owner struct {
	filter
	owns []string
}

func (o owner) Manifest() sdk.Manifest { return sdk.Manifest{Owns: o.owns} }

// with the fields that a stranger brings.
func brought(fields string, rcpts ...string) Message {
	m := message(rcpts...)
	m.Header = mail.NewHeader([]byte(fields + "Subject: s\r\n\r\n"))
	return m
}

const forgedFields = "X-Spam-Flag: NO\r\nX-Other: kept\r\nx-spam-SCORE:\r\n -5\r\nX-Spam: no\r\nX-Spam-Flag: NO\r\n"

// What a message says of itself in a plugin's name is gone, whatever comes of the call, and the
// plugin's own words and the fields of nobody stay.
func TestOwnedFields(t *testing.T) {
	says := func(v *sdk.Verdict) filter {
		return func(*mail.Message) (*sdk.Verdict, error) { return v, nil }
	}
	fails := func(reason string) filter {
		return func(*mail.Message) (*sdk.Verdict, error) { return nil, failure(reason) }
	}
	for name, tt := range map[string]struct {
		f      filter
		policy OnFailure
		want   string
	}{
		"continue":    {says(sdk.Continue()), "", "deliver from: a X-Other: kept;"},
		"add":         {says(sdk.Continue().AddHeader("X-Spam-Flag", "YES")), "", "deliver from: a X-Spam-Flag: YES;X-Other: kept;"},
		"the same":    {says(sdk.Continue().InsertHeader(-1, "X-Spam-Flag", "NO").InsertHeader(1, "X-Spam-Flag", "NO")), "", "deliver from: a X-Spam-Flag: NO;X-Other: kept;"},
		"change":      {says(sdk.Continue().ChangeHeader(1, "X-Spam-Flag", "YES")), "", "deliver from: a X-Other: kept;X-Spam-Flag: YES;"},
		"remove":      {says(sdk.Continue().RemoveHeader(-1, "X-Spam-Flag").AddHeader("X-Spam-Flag", "YES")), "", "deliver from: a X-Spam-Flag: YES;X-Other: kept;"},
		"quarantine":  {says(sdk.Quarantine("odd")), "", "quarantine from: a X-Other: kept;"},
		"reject":      {says(sdk.Reject(mail.Permanent(550, 7, 1, "no"))), "", "reject from: a X-Other: kept;"},
		"unscanned":   {says(sdk.Unscanned("too large")), FailAccept, "deliver from: a X-Postern-Unscanned: p0 (too large);X-Other: kept;"},
		"down":        {fails("down"), FailAccept, "deliver from: a X-Postern-Unscanned: p0 (down);X-Other: kept;"},
		"timeout":     {fails("timeout"), FailAccept, "deliver from: a X-Postern-Unscanned: p0 (timeout);X-Other: kept;"},
		"parked":      {fails("down"), FailPark, "park from: a " + strings.ReplaceAll(forgedFields, "\r\n", ";")},
		"tempfail":    {says(sdk.Tempfail(mail.Temporary(451, 7, 1, "later"))), "", "defer from: a " + strings.ReplaceAll(forgedFields, "\r\n", ";")},
		"convicted":   {fails("convicted"), FailAccept, "convict from: a " + strings.ReplaceAll(forgedFields, "\r\n", ";")},
		"not applied": {says(sdk.Continue().AddHeader("X-Ours", "y").AddHeader("bad name", "x")), "", "defer from: a " + strings.ReplaceAll(forgedFields, "\r\n", ";")},
	} {
		seen := ""
		s := steps(func(m *mail.Message) (*sdk.Verdict, error) {
			seen = string(m.Header.Block())
			return tt.f(m)
		})
		s[0].Filter = owner{s[0].Filter.(filter), []string{"X-SPAM*"}}
		s[0].OnFailure.Default = tt.policy
		got := describe(run(s, brought(forgedFields, "a@x.test")))
		// What "the same" inserts at the end stands behind the Subject.
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
		if seen != forgedFields+"Subject: s\r\n\r\n" {
			t.Errorf("%s: the plugin did not see the message as it came: %q", name, seen)
		}
	}
}

// Of two owners of a field the second does not touch what the first has put in, in one go and
// when the message waited for the second; what neither put in is gone.
func TestOwnedFieldsOfTwo(t *testing.T) {
	first := func(*mail.Message) (*sdk.Verdict, error) {
		return sdk.Continue().AddHeader("X-Spam-Flag", "first"), nil
	}
	up := true
	second := func(*mail.Message) (*sdk.Verdict, error) {
		if !up {
			return nil, failure("down")
		}
		return sdk.Continue().AddHeader("X-Spam-Flag", "second"), nil
	}
	s := steps(first, second)
	s[0].Filter = owner{first, []string{"X-Spam-Flag"}}
	s[1].Filter = owner{second, []string{"X-Spam*"}}
	s[1].OnFailure.Default = FailPark
	want := "deliver from: a X-Spam-Flag: second;X-Spam-Flag: first;X-Other: kept;"
	expect(t, run(s, brought(forgedFields, "a@x.test")), want)

	up = false
	v := run(s, brought(forgedFields, "a@x.test"))
	expect(t, v, "park from: a X-Spam-Flag: first;X-Other: kept;x-spam-SCORE:; -5;X-Spam: no;")
	up = true
	m := message("a@x.test")
	m.Header, m.Run = v[0].Header, v[0].Run
	expect(t, run(s, m), want)

	// A run that is over does not begin anew: what our plugins wrote is not taken from released mail.
	m.Header, m.Run = mail.NewHeader([]byte("X-Spam-Flag: ours\r\nSubject: s\r\n\r\n")), queue.Run{Done: []string{"p0", "p1"}}
	expect(t, run(s, m), "deliver from: a X-Spam-Flag: ours;")

	// Mail of an origin for which a plugin is not called keeps what it brings.
	m = brought(forgedFields, "a@x.test")
	m.Envelope.Origin = mail.Submitted
	expect(t, run(s, m), "deliver from: a "+strings.ReplaceAll(forgedFields, "\r\n", ";"))
}

// Recipients may fare differently, and copies are made of what the message has become.
func TestOwnedFieldsOfVersions(t *testing.T) {
	f := func(m *mail.Message) (*sdk.Verdict, error) {
		if m.Envelope.Recipients[0].Path.Local == "archive" {
			return sdk.Continue(), nil
		}
		v := sdk.Continue().For(1, sdk.Outcome{Action: sdk.ActionTempfail, Status: mail.Temporary(451, 7, 1, "later")})
		return v.AddHeader("X-Spam-Flag", "YES").Only(0).AddCopy(mail.MustPath("archive@x.test"), mail.Path{}), nil
	}
	s := steps(f)
	s[0].Filter = owner{f, []string{"X-Spam-Flag"}}
	const one = "X-Spam-Flag: NO\r\n"
	expect(t, run(s, brought(one, "a@x.test", "b@x.test", "c@x.test")),
		"deliver from: a X-Spam-Flag: YES;", "defer from: b X-Spam-Flag: NO;", "deliver from: c", "deliver! : archive X-Spam-Flag: YES;")
}

type keepTrace []trace.Event

func (k *keepTrace) Record(e trace.Event) { *k = append(*k, e) }

// The trace names what was removed, and by whom.
func TestOwnedFieldsInTrace(t *testing.T) {
	fields := forgedFields
	for n := range 50 {
		fields += fmt.Sprintf("X-Spam-%d: x\r\n", n)
	}
	s := steps(func(*mail.Message) (*sdk.Verdict, error) { return nil, failure("down") })
	s[0].Filter = owner{s[0].Filter.(filter), []string{"X-Spam*"}}
	s[0].OnFailure.Default = FailAccept
	var k keepTrace
	New(Options{Steps: s, Trace: &k, Clock: time.Now}).Run(context.Background(), brought(fields, "a@x.test"))
	want := "down: plugin is down; removed what the message brought: X-Spam-Flag, x-spam-SCORE, X-Spam, X-Spam-0, X-Spam-1, X-Spam-2, X-Spam-3, X-Spam-4, X-Spam-5, X-Spam-6 and others"
	if len(k) != 1 || k[0].Plugin != "p0" || k[0].Reason != want {
		t.Errorf("%+v", k)
	}
}

// A header full of such fields costs no more than one of the same size.
func TestManyForgedFields(t *testing.T) {
	s := steps(func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue().AddHeader("X-Spam", "ours"), nil })
	s[0].Filter = owner{s[0].Filter.(filter), []string{"X-Spam*"}}
	v := run(s, brought(strings.Repeat("X-Spam:\r\n", 100_000), "a@x.test"))
	expect(t, v, "deliver from: a X-Spam: ours;")
}
