package clientname_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-mail/postern/core/clientname"
	"github.com/postern-mail/postern/core/resolver"
	"github.com/postern-mail/postern/core/resolver/resolvertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted counts questions, and how many are under way.
type counted struct {
	lookup      func(ctx context.Context, addr netip.Addr) (string, error) // verified names
	asked       atomic.Int64
	mu          sync.Mutex
	now, atOnce int
}

func (c *counted) LookupPTR(ctx context.Context, addr netip.Addr) (string, bool, error) {
	c.asked.Add(1)
	c.mu.Lock()
	c.now++
	c.atOnce = max(c.atOnce, c.now)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}()
	name, err := c.lookup(ctx, addr)
	return name, err == nil, err
}

// named is a name that has to be verified.
func named(t *testing.T, name string, verified bool) string {
	t.Helper()
	if verified != (name != "") {
		t.Errorf("%q: verified %t", name, verified)
	}
	return name
}

// clock is a time that tests move on.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time        { return time.Unix(1_800_000_000, c.at.Load()) }
func (c *clock) pass(by time.Duration) { c.at.Add(int64(by)) }

var one = netip.MustParseAddr("192.0.2.1")

// silent is a DNS that does not answer.
func silent(ctx context.Context, _ netip.Addr) (string, error) {
	<-ctx.Done()
	return "", fmt.Errorf("%w: %w", resolver.ErrTemporary, ctx.Err())
}

func TestNames(t *testing.T) {
	zones := resolvertest.Zones{
		"192.0.2.1":         {PTR: []string{"mx.example.org"}},
		"2001:db8::1":       {PTR: []string{"mx.example.org"}},
		"mx.example.org":    {Addrs: []string{"192.0.2.1", "2001:db8::1"}},
		"192.0.2.2":         {PTR: []string{"mx.example.org"}}, // leads elsewhere
		"192.0.2.3":         {PTR: []string{"gone.example.org", "mx.example.org", "three.example.org"}},
		"three.example.org": {Addrs: []string{"192.0.2.3"}},
		"192.0.2.4":         {Err: resolver.ErrTemporary},
		"127.0.0.1":         {PTR: []string{"me.example.org"}},
		"me.example.org":    {Addrs: []string{"127.0.0.1"}},
	}
	n := clientname.New(clientname.Options{Resolver: zones})
	for addr, want := range map[string]string{
		"192.0.2.1": "mx.example.org", "::ffff:192.0.2.1": "mx.example.org", "2001:db8::1": "mx.example.org", "2001:db8::1%eth0": "mx.example.org",
		"192.0.2.2": "mx.example.org, they say", "192.0.2.3": "three.example.org", "192.0.2.4": "", "192.0.2.5": "", "127.0.0.1": "", "::1": "", "::ffff:127.0.0.1": "",
	} {
		for range 2 {
			got, verified := n.Name(t.Context(), netip.MustParseAddr(addr))
			if got != "" && !verified {
				got += ", they say"
			}
			if got != want || got == "" && verified {
				t.Errorf("%s: %q, want %q", addr, got, want)
			}
		}
	}
	if got, verified := n.Name(t.Context(), netip.Addr{}); got != "" || verified {
		t.Errorf("no client: %q", got)
	}
	none := (*clientname.Names)(nil)
	none.Begin(one)
	if got, verified := none.Name(t.Context(), one); got != "" || verified {
		t.Errorf("nil: %q", got)
	}
}

// What a resolver gives that is no host name does not get through, verified or not.
func TestNamesAreHostNames(t *testing.T) {
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 62)+".", 5), ".")
	for name, want := range map[string]bool{
		"mx.example.org": true, "a": true, "1.example": true, "xn--bcher-kva.example": true, strings.Repeat("a", 63) + ".test": true, long[:253]: true,
		"": false, "MX.example.org": false, "a\r\nX-Evil: 1.test": false, `a\010b.test`: false, "a b.test": false, "a_b.test": false, "b\xfccher.test": false, "bücher.test": false,
		"a..test": false, ".test": false, "test.": false, "-a.test": false, "a-.test": false, strings.Repeat("a", 64) + ".test": false, long[:254]: false,
		"192.0.2.1": false, "[192.0.2.1]": false, "2001:db8::1": false, "a)(b.test": false, "<a>.test": false,
	} {
		r := &counted{lookup: func(context.Context, netip.Addr) (string, error) { return name, nil }}
		n := clientname.New(clientname.Options{Resolver: r})
		if got, verified := n.Name(t.Context(), one); named(t, got, verified) != "" && got != name || (got != "") != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// A DNS that does not answer is waited for once, by all sessions of a client together, and
// asked again after a minute; what it did answer counts for five.
func TestSilence(t *testing.T) { synctest.Test(t, testSilence) }

func testSilence(t *testing.T) {
	c := &clock{}
	r := &counted{lookup: silent}
	n := clientname.New(clientname.Options{Resolver: r, Clock: c.now})
	ask := func(want string, asked int64) {
		t.Helper()
		begun := time.Now() // as timers have it
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				n.Begin(one)
				if got, verified := n.Name(context.Background(), one); named(t, got, verified) != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("waited for %v", took)
		}
		if got := r.asked.Load(); got != asked {
			t.Errorf("asked %d times, want %d", got, asked)
		}
	}
	ask("", 1)
	c.pass(time.Minute - 1)
	ask("", 1)
	c.pass(1)
	ask("", 2)
	c.pass(time.Minute)
	r.lookup = func(context.Context, netip.Addr) (string, error) { return "", resolver.ErrNotFound }
	ask("", 3)
	c.pass(5*time.Minute - 1)
	ask("", 3)
	c.pass(1)
	r.lookup = func(context.Context, netip.Addr) (string, error) { return "mx.example.org", nil }
	ask("mx.example.org", 4)
	c.pass(5*time.Minute - 1)
	ask("mx.example.org", 4)
	c.pass(1)
	ask("mx.example.org", 5)
}

// A resolver that does not keep to its time holds up nobody, and is not asked about the client
// again while it is at it.
func TestStuckResolver(t *testing.T) { synctest.Test(t, testStuckResolver) }

func testStuckResolver(t *testing.T) {
	release := make(chan struct{})
	r := &counted{lookup: func(context.Context, netip.Addr) (string, error) { <-release; return "late.example.org", nil }}
	n := clientname.New(clientname.Options{Resolver: r})
	for range 3 {
		if got, verified := n.Name(t.Context(), one); named(t, got, verified) != "" {
			t.Error(got)
		}
	}
	if got := r.asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
	close(release)
}

// Who goes away does not wait, and the look-up goes on for others.
func TestCallerLeaves(t *testing.T) {
	release := make(chan struct{})
	r := &counted{lookup: func(context.Context, netip.Addr) (string, error) { <-release; return "mx.example.org", nil }}
	n := clientname.New(clientname.Options{Resolver: r, Timeout: time.Minute})
	gone, leave := context.WithCancel(t.Context())
	leave()
	if got, verified := n.Name(gone, one); named(t, got, verified) != "" {
		t.Error(got)
	}
	close(release)
	if got, verified := n.Name(t.Context(), one); named(t, got, verified) != "mx.example.org" || r.asked.Load() != 1 {
		t.Error(got, r.asked.Load())
	}
}

// No more than so many questions at a time; those that get no turn within their time have no name.
func TestParallel(t *testing.T) { synctest.Test(t, testParallel) }

func testParallel(t *testing.T) {
	r := &counted{lookup: silent}
	n := clientname.New(clientname.Options{Resolver: r, Parallel: 3})
	addr := one
	var wg sync.WaitGroup
	for range 20 {
		client := addr
		wg.Go(func() { n.Name(context.Background(), client) })
		addr = addr.Next()
	}
	wg.Wait()
	synctest.Wait()
	if r.atOnce != 3 || r.asked.Load() == 0 {
		t.Errorf("%d at once, %d in all", r.atOnce, r.asked.Load())
	}
}

// What is kept is bounded: what is known gives way, what is under way does not.
func TestSize(t *testing.T) {
	release := make(chan struct{})
	r := &counted{lookup: func(context.Context, netip.Addr) (string, error) { return "mx.example.org", nil }}
	n := clientname.New(clientname.Options{Resolver: r, Size: 3, Timeout: time.Minute})
	a := [4]netip.Addr{one}
	for i := range 3 {
		a[i+1] = a[i].Next()
	}
	for range 2 {
		for _, addr := range a[:3] {
			n.Name(t.Context(), addr)
		}
	}
	if got := r.asked.Load(); got != 3 {
		t.Errorf("three of three: asked %d times", got)
	}
	if name, _ := n.Name(t.Context(), a[3]); name == "" {
		t.Error("the fourth has no name")
	}
	again := r.asked.Load()
	for _, addr := range a {
		n.Name(t.Context(), addr)
	}
	if r.asked.Load() == again {
		t.Error("four of three are kept")
	}

	r = &counted{lookup: func(context.Context, netip.Addr) (string, error) { <-release; return "mx.example.org", nil }}
	n = clientname.New(clientname.Options{Resolver: r, Size: 3, Timeout: time.Minute})
	for _, addr := range a[:3] {
		n.Begin(addr)
	}
	if got, verified := n.Name(t.Context(), a[3]); named(t, got, verified) != "" { // and it does not wait
		t.Error(got)
	}
	close(release)
	for _, addr := range a {
		if got, verified := n.Name(t.Context(), addr); named(t, got, verified) != "mx.example.org" {
			t.Errorf("%s: %q", addr, got)
		}
	}
}

// Clients on loopback, as in most tests of speed, cost nothing.
func TestLoopbackIsFree(t *testing.T) {
	n := clientname.New(clientname.Options{Resolver: resolvertest.Zones{}})
	loopback := netip.MustParseAddr("127.0.0.1")
	if got := testing.AllocsPerRun(100, func() { n.Begin(loopback); n.Name(t.Context(), loopback) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
