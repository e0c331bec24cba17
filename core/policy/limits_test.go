package policy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// send asks for one message.
func (r *rig) send(addr string) string {
	c := &mail.Client{Addr: netip.MustParseAddr(addr)}
	return short(r.Mail(context.Background(), c, mail.MustPath("x@ext.example"), 0))
}

// TestC10MessageRate: the limit, one below and one above; the window slides.
func TestC10MessageRate(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MessagesPerMinute = 10 })
	for i := 1; i <= 12; i++ {
		want := ""
		if i > 10 {
			want = "450 4.7.1"
		}
		if got := r.send(stranger); got != want {
			t.Errorf("message %d: %q, want %q", i, got, want)
		}
	}
	if got := r.send("192.0.2.67"); got != "" {
		t.Errorf("another client: %q", got)
	}
	// Half a minute into the next window half of the last one still counts.
	r.now = r.now.Add(90 * time.Second)
	for i := 1; i <= 6; i++ {
		want := ""
		if i > 5 {
			want = "450 4.7.1"
		}
		if got := r.send(stranger); got != want {
			t.Errorf("message %d in the next window: %q, want %q", i, got, want)
		}
	}
	r.now = r.now.Add(2 * time.Minute)
	for i := 1; i <= 10; i++ {
		if got := r.send(stranger); got != "" {
			t.Errorf("message %d much later: %q", i, got)
		}
	}
	// A clock that was set back does not refuse for ever.
	r.now = r.now.Add(-time.Hour)
	if got := r.send(stranger); got != "" {
		t.Errorf("after the clock was set back: %q", got)
	}
}

// TestC12IPv6Rotation: a /64 is one client.
func TestC12IPv6Rotation(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MessagesPerMinute = 10 })
	refused := 0
	for i := range 1000 {
		if r.send(fmt.Sprintf("2001:db8:0:1::%x", i)) != "" {
			refused++
		}
	}
	if refused != 990 {
		t.Errorf("%d of 1000 refused, want 990", refused)
	}
	if got := r.send("2001:db8:0:2::1"); got != "" {
		t.Errorf("the next /64: %q", got)
	}
}

func TestRecipientRate(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.RecipientsPerHour = 20 })
	for i := 1; i <= 21; i++ {
		want := ""
		if i > 20 {
			want = "450 4.7.1"
		}
		if got := r.rcpt(t, stranger, "", "", "alice@gw.example"); got != want {
			t.Errorf("recipient %d: %q, want %q", i, got, want)
		}
		// What is refused anyway is not counted, and is refused as before.
		if got := r.rcpt(t, stranger, "", "", "nobody@gw.example"); got != "550 5.1.1" {
			t.Errorf("unknown recipient: %q", got)
		}
	}
	r.now = r.now.Add(2 * time.Hour)
	if got := r.rcpt(t, stranger, "", "", "alice@gw.example"); got != "" {
		t.Errorf("later: %q", got)
	}
}

// TestClientLimits: the smallest network that has the client counts.
func TestClientLimits(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Limits = Limits{Connections: 50, Recipients: 200}
		o.Networks = []NetworkLimits{
			{prefixes("10.0.0.0/8"), Limits{Connections: 8}},
			{prefixes("10.1.0.0/16", "2001:db8::/32"), Limits{Connections: 16, Recipients: 300}},
			{prefixes("10.0.0.0/7"), Limits{Connections: 7}},
		}
	})
	for addr, want := range map[string]Limits{
		"192.0.2.1":        {Connections: 50, Recipients: 200},
		"10.2.0.1":         {Connections: 8, Recipients: 1000},
		"10.1.0.1":         {Connections: 16, Recipients: 300},
		"::ffff:10.1.0.1":  {Connections: 16, Recipients: 300},
		"11.0.0.1":         {Connections: 7, Recipients: 1000},
		"2001:db8::1%eth0": {Connections: 16, Recipients: 300},
	} {
		if got := r.ClientLimits(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %+v, want %+v", addr, got, want)
		}
	}
	if got := r.ClientLimits(netip.Addr{}); got.Connections != 50 {
		t.Errorf("no address: %+v", got)
	}
}

// TestReloadKeepsCounts: a new policy goes on counting where the old one stopped.
func TestReloadKeepsCounts(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MessagesPerMinute = 2 })
	r.send(stranger)
	r.send(stranger)
	o := r.Policy.Options
	o.Previous = r.Policy
	next, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if next.Previous != nil {
		t.Error("the old policy is kept alive")
	}
	r.Policy = next
	if got := r.send(stranger); got != "450 4.7.1" {
		t.Errorf("after the reload: %q", got)
	}
}

// TestBoundedMemory: an attack from everywhere is forgotten, not kept.
func TestBoundedMemory(t *testing.T) {
	l := newCounters().messages
	now := time.Unix(1_800_000_000, 0)
	for i := range trackedClients + 1000 {
		within(l, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 10, time.Minute, now)
	}
	if n := l.Len(); n != trackedClients {
		t.Errorf("%d clients are remembered", n)
	}
}

// TestConcurrentCounts: none is lost, none is let through.
func TestConcurrentCounts(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MessagesPerMinute = 100 })
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if r.send(stranger) == "" {
					mu.Lock()
					taken++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if taken != 100 {
		t.Errorf("%d of 400 taken, the limit is 100", taken)
	}
}

func BenchmarkRecipient(b *testing.B) {
	p, err := New(Options{Directory: known{}, Limits: Limits{RecipientsPerHour: 1 << 30}})
	if err != nil {
		b.Fatal(err)
	}
	e := &mail.Envelope{Client: mail.Client{Addr: netip.MustParseAddr(stranger)}}
	rcpt := mail.MustPath("alice@gw.example")
	b.ReportAllocs()
	for b.Loop() {
		if s := p.Recipient(context.Background(), e, rcpt); !s.IsZero() {
			b.Fatal(s)
		}
	}
}

// known is a directory that knows everybody.
type known struct{}

func (known) Local(_ context.Context, d mail.Domain) (mail.Domain, bool, error) { return d, true, nil }
func (known) Resolve(_ context.Context, p mail.Path) ([]mail.Path, error) {
	return []mail.Path{p}, nil
}
