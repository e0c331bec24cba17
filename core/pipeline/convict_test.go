package pipeline

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// deadly is the failure of a plugin that died of the message.
type deadly struct{ stack string }

func (deadly) Error() string        { return "it died twice on this message" }
func (deadly) Reason() string       { return "convicted" }
func (d deadly) StackTrace() string { return d.stack }

func TestConvicted(t *testing.T) {
	kill := true
	asked := 0
	dies := func(*mail.Message) (*sdk.Verdict, error) {
		if kill {
			return nil, deadly{"goroutine 7 " + strings.Repeat("x", 20<<10)}
		}
		return sdk.Continue(), nil
	}
	s := steps(func(*mail.Message) (*sdk.Verdict, error) { return sdk.Continue(), nil }, dies,
		func(m *mail.Message) (*sdk.Verdict, error) { asked++; return sdk.Continue(), nil })
	s[1].OnFailure = FailurePolicy{Default: FailReject} // is not asked
	m := message("a@x.test", "b@x.test")
	vs := run(s, m)
	expect(t, vs, "convict from: a b")
	v := vs[0]
	if v.Run.Complete || len(v.Run.Done) != 1 || asked != 0 {
		t.Errorf("run is %+v, the next plugin was asked %d times", v.Run, asked)
	}
	if v.Reason != "convicted: plugin p1 died twice on this message" {
		t.Errorf("reason is %q", v.Reason)
	}
	if stack := v.Run.Notes[queue.StackNote]; !strings.HasPrefix(stack, "goroutine 7") || len(stack) != 8<<10 {
		t.Errorf("%d bytes of stack", len(stack))
	}
	settled := Settle(vs, 2, SMTPClient)
	if !settled.Reply.IsZero() || len(settled.Versions) != 1 {
		t.Errorf("settled as %+v", settled)
	}
	// Released, it tries again where it was, and nothing of the conviction is left.
	kill = false
	m.Run = v.Run
	vs = run(s, m)
	expect(t, vs, "deliver from: a b")
	if _, ok := vs[0].Run.Notes[queue.StackNote]; ok || !vs[0].Run.Complete || asked != 1 {
		t.Errorf("run is %+v", vs[0].Run)
	}
}

// A hostile client can neither fill the queue nor keep the plugin dying.
func TestConvictionsAreCapped(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	asked := 0
	s := steps(func(*mail.Message) (*sdk.Verdict, error) { asked++; return nil, deadly{} })
	p := New(Options{Steps: s, Trace: discardTrace{}, Clock: func() time.Time { return now }})
	ask := func(addr string) Disposition {
		m := message("a@x.test")
		m.Envelope.Client.Addr = netip.MustParseAddr(addr)
		return p.Run(context.Background(), m)[0].Disposition
	}
	for i := range convictionsPerHour {
		if d := ask("2001:db8::1"); d != Convict {
			t.Fatalf("message %d: %v", i+1, d)
		}
	}
	before := asked
	if d := ask("2001:db8::2"); d != Defer || asked != before { // the same /64
		t.Errorf("one more: %v, asked %v", d, asked != before)
	}
	if d := ask("192.0.2.1"); d != Convict {
		t.Errorf("another client: %v", d)
	}
	now = now.Add(time.Hour)
	if d := ask("2001:db8::1"); d != Convict {
		t.Errorf("an hour later: %v", d)
	}
	c := &Convictions{}
	for i := range maxOffenders {
		if !c.Add("p", mail.Client{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, now) {
			t.Fatal("full too early")
		}
	}
	if c.Add("p", mail.Client{Addr: netip.MustParseAddr("192.0.2.9")}, now) {
		t.Error("not bounded")
	}
	if !c.Add("p", mail.Client{Addr: netip.MustParseAddr("192.0.2.9")}, now.Add(time.Hour)) {
		t.Error("full for ever")
	}
}
