package greylist

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// rig is a plugin with a gateway, a clock and a DNS of the test's.
type rig struct {
	*Plugin
	t    *testing.T
	host *sdktest.Host
	dir  string
	now  time.Time
	mu   sync.Mutex
	dns  names
}

type names map[string]string

func (n names) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if name, ok := n[addr]; ok {
		return []string{name + "."}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return []netip.Addr{netip.MustParseAddr(a)}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func newRig(t *testing.T, settings string) *rig {
	t.Helper()
	r := &rig{t: t, host: sdktest.NewHost(t), dir: t.TempDir(), now: time.Unix(1_800_000_000, 0), dns: names{}}
	r.restart(settings)
	return r
}

// restart makes a new process of the plugin.
func (r *rig) restart(settings string) {
	r.t.Helper()
	r.Plugin = New()
	r.Plugin.now = func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now }
	r.Plugin.resolver = r.dns
	if err := r.Configure(r.t.Context(), sdk.Config{Settings: []byte(settings), DataDir: r.dir, Host: r.host.Handle}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) forgetState() {
	r.host.Lock()
	defer r.host.Unlock()
	clear(r.host.State)
}

func (r *rig) pass(d time.Duration) { r.mu.Lock(); r.now = r.now.Add(d); r.mu.Unlock() }

func attempt(client, from, to string) *sdk.Attempt {
	a := &sdk.Attempt{Stage: sdk.AtRcpt, Envelope: mail.Envelope{Origin: mail.Incoming}, Recipient: mail.MustPath(to)}
	a.Envelope.Client.Addr = netip.MustParseAddr(client)
	if from != "" {
		a.Envelope.ReversePath = mail.MustPath(from)
	}
	return a
}

// try returns the reply's text, or the result that was noted.
func (r *rig) try(client, from, to string) string {
	r.t.Helper()
	return r.ask(attempt(client, from, to))
}

func (r *rig) ask(a *sdk.Attempt) string {
	r.t.Helper()
	v, err := sdktest.Gate(r.t, r.Plugin, Manifest(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	if v.Action == sdk.ActionTempfail {
		return v.Status.Error()
	}
	return v.Notes["result"]
}

func (r *rig) want(want, client, from, to string) {
	r.t.Helper()
	if got := r.try(client, from, to); got != want {
		r.t.Errorf("%s from %s to %s: %q, want %q", client, from, to, got, want)
	}
}

const (
	alice = "alice@a.test"
	bob   = "bob@example.org"
)

func deferred(seconds int) string {
	return fmt.Sprintf("451 4.7.1 Greylisted, try again in %d seconds", seconds)
}

// A sender waits, and passes between the end of the delay and that of the window.
func TestWaits(t *testing.T) {
	r := newRig(t, `delay = "5m"
window = "4h"`)
	r.want(deferred(300), "192.0.2.1", alice, bob)
	r.pass(time.Minute)
	r.want(deferred(240), "192.0.2.1", alice, bob)
	r.pass(4*time.Minute - time.Second)
	r.want(deferred(1), "192.0.2.99", "ALICE@a.test", "Bob@example.org") // of the same network
	r.pass(time.Second)
	v, err := sdktest.Gate(t, r.Plugin, Manifest(), attempt("192.0.2.1", alice, bob))
	if err != nil || v.Action != sdk.ActionContinue || v.Notes["result"] != "passed: waited" || v.Notes["waited"] != "5m0s" {
		t.Errorf("%+v, %v", v, err)
	}
	r.want("passed: known", "192.0.2.7", alice, bob)
	r.want(deferred(300), "192.0.3.1", alice, bob)
	r.want(deferred(300), "192.0.2.1", "eve@a.test", bob)
	r.want(deferred(300), "192.0.2.1", alice, "carol@example.org")
	r.pass(4*time.Hour - time.Second)
	r.want("passed: waited", "192.0.3.1", alice, bob)
	r.pass(time.Second)
	r.want(deferred(300), "192.0.2.1", "eve@a.test", bob) // too late
}

// What changes from message to message does not make another sender.
func TestSenders(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"alice@a.test", "alice@a.test"},
		{"Alice+tag@a.test", "alice@a.test"},
		{"list-bounces+bob=example.org@a.test", "list-bounces@a.test"},
		{"bounce-12345-9f3c@a.test", "bounce-#-#@a.test"},
		{"prvs=0123abcdef=alice@a.test", "prvs=#=alice@a.test"},
		{"SRS0=XyZw=T6=b.test=alice@a.test", "srs0@a.test"},
		{`"a b"@a.test`, "a b@a.test"},
	} {
		if got := sender(mail.MustPath(tt.path)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
}

// What passes does so for a lifetime from its last message.
func TestLifetime(t *testing.T) {
	r := newRig(t, `lifetime = "80h"
window = "1h"
proven = 0`)
	r.try("192.0.2.1", alice, bob)
	r.pass(5 * time.Minute)
	r.want("passed: waited", "192.0.2.1", alice, bob)
	for range 3 {
		r.pass(80*time.Hour - time.Second)
		r.want("passed: known", "192.0.2.1", alice, bob)
	}
	r.pass(80 * time.Hour)
	r.want(deferred(300), "192.0.2.1", alice, bob)
}

func TestExempt(t *testing.T) {
	r := newRig(t, `networks = ["192.0.2.0/25", "2001:db8::/32", "198.51.100.7", "::ffff:198.51.101.0/120"]`)
	for client, want := range map[string]string{
		"192.0.2.127": "passed: network", "192.0.2.128": deferred(300), "2001:db8:ffff::1": "passed: network",
		"2001:db9::1": deferred(300), "198.51.100.7": "passed: network", "::ffff:198.51.100.7": "passed: network", "198.51.100.8": deferred(300), "198.51.101.1": "passed: network",
	} {
		r.want(want, client, alice, bob)
	}
	r.want("passed: null reverse-path", "203.0.113.1", "", bob)
	a := attempt("203.0.113.1", alice, bob)
	a.Envelope.Client.Class = mail.Relay
	if got := r.ask(a); got != "passed: known client" {
		t.Error(got)
	}
	a.Envelope.Client.Class, a.Envelope.Client.User = mail.Authenticated, "alice@example.org"
	if got := r.ask(a); got != "passed: known client" {
		t.Error(got)
	}
}

// A client that came back for so many senders passes with any, for a time.
func TestProven(t *testing.T) {
	for by, other := range map[string]string{"network": "passed: proven", "domain": deferred(300)} {
		r := newRig(t, fmt.Sprintf("proven = 3\nproven_for = \"100h\"\nproven_by = %q", by))
		for i := range 3 {
			from := fmt.Sprintf("%c@a.test", 'p'+i)
			r.want(deferred(300), "192.0.2.1", from, bob)
			r.pass(5 * time.Minute)
			r.want("passed: waited", "192.0.2.1", from, bob)
			r.want("passed: known", "192.0.2.1", from, bob) // is not counted again
		}
		r.want("passed: proven", "192.0.2.200", "new@a.test", bob)
		r.want(other, "192.0.2.200", "new@b.test", bob)
		r.want(deferred(300), "192.0.9.1", "new@a.test", bob)
		r.pass(99 * time.Hour)
		r.want("passed: proven", "192.0.2.200", "another@a.test", bob) // and begins anew
		r.pass(99 * time.Hour)
		r.want("passed: proven", "192.0.2.200", "third@a.test", bob)
		r.pass(100 * time.Hour)
		r.want(deferred(300), "192.0.2.200", "fourth@a.test", bob)
	}
}

func TestReverseName(t *testing.T) {
	const settings = "reverse_name = true"
	r := newRig(t, settings)
	r.dns["192.0.2.1"], r.dns["mx.a.test"] = "mx.a.test", "192.0.2.1"
	r.dns["192.0.2.2"] = "lies.a.test"
	r.want("passed: reverse name", "192.0.2.1", alice, bob)
	r.want(deferred(300), "192.0.2.1", "alice@nota.test", bob)
	r.want(deferred(300), "192.0.2.2", "eve@a.test", bob) // its name does not lead back
	r.want(deferred(300), "192.0.2.3", "mallory@a.test", bob)
	off := newRig(t, "")
	off.dns["192.0.2.1"], off.dns["mx.a.test"] = "mx.a.test", "192.0.2.1"
	off.want(deferred(300), "192.0.2.1", alice, bob)
}

// Another process of the plugin goes on where the last one was; with the state of the
// gateway gone as well, who passed passes still, and who waited begins anew.
func TestRestart(t *testing.T) {
	const settings = "proven = 2"
	r := newRig(t, settings)
	for _, from := range []string{alice, "bill@a.test"} {
		r.try("192.0.2.1", from, bob)
		r.pass(5 * time.Minute)
		r.want("passed: waited", "192.0.2.1", from, bob)
	}
	r.try("198.51.100.1", alice, bob)
	r.pass(time.Minute)
	r.restart(settings)
	r.want("passed: known", "192.0.2.1", alice, bob)
	r.want(deferred(240), "198.51.100.1", alice, bob)
	r.forgetState()
	r.restart(settings)
	r.want("passed: known", "192.0.2.1", alice, bob)
	r.want("passed: proven", "192.0.2.1", "new@a.test", bob)
	r.want(deferred(300), "198.51.100.1", alice, bob)
	r.pass(35 * 24 * time.Hour)
	r.forgetState()
	r.restart(settings)
	r.want(deferred(300), "192.0.2.1", alice, bob)
	b, err := os.ReadFile(filepath.Join(r.dir, "greylist", "passed"))
	if err != nil || strings.Contains(string(b), "alice") || strings.Contains(string(b), "192.0.2") {
		t.Errorf("the file has %q, %v", b, err)
	}
}

// Two sessions at once, of two processes: one try is one try, and one passing counts once.
func TestTwoSessions(t *testing.T) {
	r := newRig(t, "proven = 2")
	other := New()
	other.now, other.resolver = r.Plugin.now, r.dns
	if err := other.Configure(t.Context(), sdk.Config{Settings: []byte("proven = 2"), DataDir: r.dir, Host: r.host.Handle}); err != nil {
		t.Fatal(err)
	}
	all := func() map[string]int {
		var mu sync.Mutex
		var wg sync.WaitGroup
		got := make(map[string]int)
		for i := range 20 {
			p := []*Plugin{r.Plugin, other}[i%2]
			wg.Go(func() {
				v, err := p.Gate(t.Context(), attempt("192.0.2.1", alice, bob))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if v.Action == sdk.ActionTempfail {
					got[v.Status.Error()]++
				} else {
					got[v.Notes["result"]]++
				}
			})
		}
		wg.Wait()
		return got
	}
	if got := all(); got[deferred(300)] != 20 {
		t.Errorf("first tries: %v", got)
	}
	r.pass(5 * time.Minute)
	if got := all(); got["passed: waited"] != 1 || got["passed: known"] != 19 {
		t.Errorf("second tries: %v", got)
	}
	r.want(deferred(300), "192.0.2.1", "new@a.test", bob) // one triplet is not two
}

// A state that fails never blocks mail.
func TestNoState(t *testing.T) {
	r := newRig(t, "")
	r.host.Handle.Close()
	r.want("passed: nothing can be remembered", "192.0.2.1", alice, bob)
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{}); err != nil {
		t.Fatal(err)
	}
	v, err := sdktest.Gate(t, p, Manifest(), attempt("192.0.2.1", alice, bob))
	if err != nil || v.Action != sdk.ActionContinue {
		t.Errorf("without a gateway: %+v, %v", v, err)
	}
}

// Garbage in the state or the file is nothing.
func TestGarbage(t *testing.T) {
	r := newRig(t, "")
	r.try("192.0.2.1", alice, bob)
	r.host.Lock()
	for k := range r.host.State {
		r.host.State[k] = []byte("nonsense")
	}
	r.host.Unlock()
	r.want(deferred(300), "192.0.2.1", alice, bob)
	r.pass(5 * time.Minute)
	r.want("passed: waited", "192.0.2.1", alice, bob)
	file := filepath.Join(r.dir, "greylist", "passed")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("\x00\xff\nt/short 99999999999\nt/ x\n"), b[:len(b)-3]...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.forgetState()
	r.restart("")
	r.want(deferred(300), "192.0.2.1", alice, bob) // the line is cut off
	if len(r.kept.until) != 0 {
		t.Errorf("%v", r.kept.until)
	}
}

// The file is written anew when most of its lines are over.
func TestFileStaysSmall(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	dir := t.TempDir()
	k, err := openKept(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	name := key(tripletKey, "x")
	for i := range 10_000 {
		k.put(name, now.Add(time.Duration(i)*time.Second))
	}
	info, err := os.Stat(filepath.Join(dir, "passed"))
	if err != nil || info.Size() > 4*lineSize*1000+lineSize {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	k, err = openKept(dir, k.now)
	if until, ok := k.get(name); err != nil || !ok || until != now.Add(9999*time.Second) {
		t.Errorf("%v, %v, %v", until, ok, err)
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		`delay = "0s"`:                       "delay is 0s",
		`delay = "1h"` + "\nwindow = \"1h\"": "twice the delay",
		`lifetime = "1h"`:                    "lifetime is 1h0m0s",
		`proven = -1`:                        "proven is -1",
		`proven_by = "name"`:                 `proven_by is "name"`,
		`proven_for = "1s"`:                  "proven_for",
		`networks = ["office"]`:              `"office" is not a network`,
		`network = "192.0.2.0/24"`:           `unknown key "network"`,
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", settings, err, want)
		}
	}
}
