package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"github.com/postern-mail/postern/sdk/mail"
)

// accounts is a directory in memory.
type accounts struct {
	mu  sync.Mutex
	m   map[string]Verifier
	err error
	n   int // look-ups
}

func (a *accounts) Verifier(_ context.Context, login mail.Path) (Verifier, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	v, ok := a.m[login.String()]
	return v, ok, a.err
}

// rig is an Authenticator with a clock of its own that counts its work.
type rig struct {
	*Authenticator
	accounts *accounts
	now      time.Time
	slept    []time.Duration
	derived  []int // iterations of each key derivation
	log      bytes.Buffer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	v, err := newVerifier("alice@example.org", "correct", DefaultIterations)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{accounts: &accounts{m: map[string]Verifier{"alice@example.org": v}}, now: time.Unix(1_800_000_000, 0)}
	r.Authenticator, err = New(Options{
		Accounts: r.accounts,
		Log:      slog.New(slog.NewJSONHandler(&r.log, nil)),
		Clock:    func() time.Time { return r.now },
		Sleep:    func(_ context.Context, d time.Duration) { r.slept = append(r.slept, d) },
	})
	if err != nil {
		t.Fatal(err)
	}
	// The same as the real one, and quick; TestVerifierIsSCRAM covers the real one.
	known := map[string][]byte{string(v.Salt) + "correct": v.StoredKey}
	r.derive = func(prepared string, salt []byte, iterations int) ([]byte, []byte, error) {
		r.derived = append(r.derived, iterations)
		if k, ok := known[string(salt)+prepared]; ok {
			return k, nil, nil
		}
		return make([]byte, 32), nil, nil
	}
	return r
}

func client(addr string) *mail.Client { return &mail.Client{Addr: netip.MustParseAddr(addr)} }

// try logs in and gives the account or the reply.
func (r *rig) try(addr, user, password string) string {
	account, err := r.Authenticate(context.Background(), client(addr), "", user, password)
	if err != nil {
		return err.Error()
	}
	return account
}

const (
	refused     = "535 5.7.8 Authentication credentials invalid"
	unavailable = "454 4.7.0 Temporary authentication failure"
	tooMany     = "421 4.7.0 Too many failed log-ins, try again later"
)

// TestVerifierIsSCRAM: our verifiers are those of RFC 5802, as another implementation has them.
func TestVerifierIsSCRAM(t *testing.T) {
	for _, password := range []string{"pencil", "pässwörd", "I\u00adX", "\u00aa", strings.Repeat("x", maxPassword)} {
		v, err := NewVerifier("user@example.org", password)
		if err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		c, err := scram.SHA256.NewClient("user@example.org", password, "")
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations})
		if err != nil || !bytes.Equal(v.StoredKey, want.StoredKey) || !bytes.Equal(v.ServerKey, want.ServerKey) {
			t.Errorf("%q: another verifier than the reference's, %v", password, err)
		}
		if v.Iterations < MinIterations || len(v.Salt) < 16 || v.Check() != nil {
			t.Errorf("%q: weak verifier: %d iterations, salt of %d bytes", password, v.Iterations, len(v.Salt))
		}
	}
	for _, password := range []string{"", "\u00ad", "a\x00b", "a\nb", "\u0627\u0031", strings.Repeat("x", maxPassword+1)} {
		if _, err := NewVerifier("user@example.org", password); err == nil {
			t.Errorf("%q is accepted", password)
		}
	}
}

// TestPasswordsForReal has no short cuts: real verifiers, real derivation.
func TestPasswordsForReal(t *testing.T) {
	v, err := newVerifier("alice@example.org", "pässword", MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Options{Accounts: &accounts{m: map[string]Verifier{"alice@example.org": v}}, Sleep: func(context.Context, time.Duration) {}})
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{"pässword": true, "pa\u0308ssword": true, "passwort": false, "": false, "Pässword": false, "pässword ": false} {
		account, err := a.Authenticate(context.Background(), client("192.0.2.1"), "", "alice@example.org", password)
		if (err == nil) != want || want && account != "alice@example.org" {
			t.Errorf("%q: %q %v", password, account, err)
		}
	}
}

func TestLoginNames(t *testing.T) {
	for _, c := range []struct{ identity, user, domain, want string }{
		{"", "alice@example.org", "", "alice@example.org"},
		{"", "ALICE@Example.ORG.", "", "alice@example.org"},
		{"alice@example.org", "alice@example.org", "", "alice@example.org"},
		{"Alice@example.org", "alice@example.org", "", "alice@example.org"},
		{"bob@example.org", "alice@example.org", "", refused},
		{"x", "alice@example.org", "", refused},
		{"", "alice", "", refused},
		{"", "alice", "example.org", "alice@example.org"},
		{"alice@example.org", "alice", "example.org", "alice@example.org"},
		{"", "alice", "example.net", refused},
		{"", "", "example.org", refused},
		{"", "", "", refused},
		{"", "alice@example.org\r\n", "", refused},
		{"", "*)(uid=*", "example.org", refused},    // C-04
		{"", "' or 1=1 --", "example.org", refused}, // C-04
		{"", "../../etc/passwd", "", refused},
		{"", strings.Repeat("a", 1_000_000), "", refused},
		{"", "alice@example.org\x00", "", refused},
	} {
		r := newRig(t)
		if c.domain != "" {
			r.DefaultDomain = mail.MustDomain(c.domain)
		}
		got, err := r.Authenticate(context.Background(), client("192.0.2.1"), c.identity, c.user, "correct")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%.30q %.30q %q: %s, want %s", c.identity, c.user, c.domain, got, c.want)
		}
		if strings.ContainsAny(strings.TrimSuffix(r.log.String(), "\n"), "\r\n\x00") || r.log.Len() > 2000 {
			t.Errorf("%.30q: log %q", c.user, r.log.String())
		}
	}
}

// TestC02NoOracle: known, unknown, disabled and impossible accounts cost the same work and
// get the same answer after the same delay.
func TestC02NoOracle(t *testing.T) {
	type cost struct {
		answer  string
		lookups int
		derived string
		slept   string
	}
	measure := func(user, identity, password string) cost {
		r := newRig(t)
		_, err := r.Authenticate(context.Background(), client("192.0.2.1"), identity, user, password)
		return cost{fmt.Sprint(err), r.accounts.n, fmt.Sprint(r.derived), fmt.Sprint(r.slept)}
	}
	want := cost{refused, 1, fmt.Sprint([]int{DefaultIterations}), fmt.Sprint([]time.Duration{shortestDelay})}
	for _, c := range [][3]string{
		{"alice@example.org", "", "wrong"},
		{"alice@example.org", "", ""},
		{"alice@example.org", "", "a\x00b"},
		{"alice@example.org", "", strings.Repeat("x", maxPassword+1)},
		{"alice@example.org", "bob@example.org", "correct"},
		{"bob@example.org", "", "wrong"},
		{"bob@example.org", "", "correct"},
		{"bob@elsewhere.example", "", "correct"},
		{"no domain", "", "correct"},
	} {
		if got := measure(c[0], c[1], c[2]); got != want {
			t.Errorf("%.40q: %+v, want %+v", c, got, want)
		}
	}
}

// TestX08NoSecrets: passwords are in no log line, not even wrong ones.
func TestX08NoSecrets(t *testing.T) {
	r := newRig(t)
	for _, pw := range []string{"correct", "Sup3rSecret"} {
		r.try("192.0.2.1", "alice@example.org", pw)
		r.try("192.0.2.1", "unknown@example.org", pw)
		if strings.Contains(r.log.String(), pw) {
			t.Errorf("%q is in the log: %s", pw, r.log.String())
		}
	}
	if r.log.Len() == 0 {
		t.Error("failures leave no trace")
	}
}

// TestRecentSuccesses: a log-in that worked is quick the second time, until the verifier changes
// or some time has passed.
func TestRecentSuccesses(t *testing.T) {
	r := newRig(t)
	work := func(want int, what string) {
		t.Helper()
		if len(r.derived) != want {
			t.Errorf("%s: %d key derivations, want %d", what, len(r.derived), want)
		}
	}
	r.try("192.0.2.1", "alice@example.org", "correct")
	work(1, "first")
	r.try("192.0.2.2", "alice@example.org", "correct")
	work(1, "second")
	if got := r.try("192.0.2.3", "alice@example.org", "wrong"); got != refused {
		t.Error(got)
	}
	work(2, "wrong password")
	r.try("192.0.2.3", "alice@example.org", "wrong")
	work(3, "wrong password again: failures are not kept")
	r.now = r.now.Add(cacheLifetime)
	r.try("192.0.2.1", "alice@example.org", "correct")
	work(4, "later")
	v := r.accounts.m["alice@example.org"]
	v.StoredKey = bytes.Repeat([]byte{1}, 32)
	r.accounts.m["alice@example.org"] = v
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != refused {
		t.Errorf("the old password after a change: %s", got)
	}
	delete(r.accounts.m, "alice@example.org")
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != refused {
		t.Errorf("an account that is gone: %s", got)
	}
}

// TestC01BruteForce: one address at one account.
func TestC01BruteForce(t *testing.T) {
	r := newRig(t)
	for i := 1; i <= pairFailures+1; i++ {
		want := refused
		if i > pairFailures {
			want = tooMany
		}
		if got := r.try("192.0.2.1", "alice@example.org", "wrong"); got != want {
			t.Errorf("failure %d: %s, want %s", i, got, want)
		}
	}
	if fmt.Sprint(r.slept) != fmt.Sprint([]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second}) {
		t.Errorf("delays: %v", r.slept)
	}
	derived := len(r.derived)
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != tooMany || len(r.derived) != derived {
		t.Errorf("the right password while locked: %s, %d derivations more", got, len(r.derived)-derived)
	}
	if got := r.try("192.0.2.2", "alice@example.org", "correct"); got != "alice@example.org" {
		t.Errorf("the right user from elsewhere: %s", got)
	}
	r.now = r.now.Add(firstLock - 1)
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != tooMany {
		t.Errorf("just before the end of the lock: %s", got)
	}
	r.now = r.now.Add(1)
	if got := r.try("192.0.2.1", "alice@example.org", "wrong"); got != refused {
		t.Errorf("at the end of the lock: %s", got)
	}
	r.now = r.now.Add(2*firstLock - 1)
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != tooMany {
		t.Errorf("just before the end of the second lock: %s", got)
	}
	r.now = r.now.Add(1)
	for i := range 3 {
		if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != "alice@example.org" {
			t.Errorf("success %d after the lock: %s", i, got)
		}
	}
	for i := 1; i <= pairFailures; i++ {
		if got := r.try("192.0.2.1", "alice@example.org", "wrong"); got != refused {
			t.Errorf("failure %d after a success: %s", i, got)
		}
	}
}

// TestC01Spraying: one address at many accounts.
func TestC01Spraying(t *testing.T) {
	r := newRig(t)
	for i := 1; i <= clientFailures+1; i++ {
		want := refused
		if i > clientFailures {
			want = tooMany
		}
		if got := r.try("192.0.2.1", fmt.Sprintf("user%d@example.org", i), "password"); got != want {
			t.Errorf("failure %d: %s, want %s", i, got, want)
		}
	}
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != tooMany {
		t.Errorf("while locked: %s", got)
	}
	r.now = r.now.Add(firstLock)
	for i := range 3 {
		if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != "alice@example.org" {
			t.Errorf("success %d after the lock: %s", i, got)
		}
	}
}

// TestC01OldDevice: a device that keeps trying an old password does not lock out its neighbours.
func TestC01OldDevice(t *testing.T) {
	r := newRig(t)
	for range 100 {
		r.try("192.0.2.1", "bob@example.org", "old")
	}
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != "alice@example.org" {
		t.Error(got)
	}
}

// TestC12IPv6Rotation: all addresses of a /64 are one client.
func TestC12IPv6Rotation(t *testing.T) {
	r := newRig(t)
	for i := 1; i <= pairFailures+1; i++ {
		want := refused
		if i > pairFailures {
			want = tooMany
		}
		if got := r.try(fmt.Sprintf("2001:db8:0:1::%x", i), "alice@example.org", "wrong"); got != want {
			t.Errorf("address %d: %s, want %s", i, got, want)
		}
	}
	if got := r.try("2001:db8:0:2::1", "alice@example.org", "correct"); got != "alice@example.org" {
		t.Errorf("another /64: %s", got)
	}
}

// TestConcurrentGuesses: guesses made at the same time count like others.
func TestConcurrentGuesses(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	entered := make(chan struct{}, 100)
	release := make(chan struct{})
	derived := 0
	r.slots = make(chan struct{}, 100)
	r.Sleep = func(context.Context, time.Duration) {}
	r.derive = func(string, []byte, int) ([]byte, []byte, error) {
		entered <- struct{}{}
		<-release
		mu.Lock()
		derived++
		mu.Unlock()
		return make([]byte, 32), nil, nil
	}
	results := make(chan error, 50)
	for range 50 {
		go func() {
			_, err := r.Authenticate(context.Background(), client("192.0.2.1"), "", "alice@example.org", "guess")
			results <- err
		}()
	}
	for range pairFailures {
		<-entered // none has got its answer yet
	}
	for range 50 - pairFailures {
		if err := <-results; err.Error() != tooMany {
			t.Errorf("a guess too many: %v", err)
		}
	}
	close(release)
	for range pairFailures {
		if err := <-results; err.Error() != refused {
			t.Errorf("a guess: %v", err)
		}
	}
	if derived != pairFailures {
		t.Errorf("%d guesses were checked", derived)
	}
}

// TestDirectoryFailure: a directory that fails refuses nobody for good, and counts nothing.
func TestDirectoryFailure(t *testing.T) {
	r := newRig(t)
	r.accounts.err = errors.New("disk on fire")
	for range 3 * clientFailures {
		if got := r.try("192.0.2.1", "alice@example.org", "wrong"); got != unavailable {
			t.Fatal(got)
		}
	}
	r.accounts.err = nil
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != "alice@example.org" {
		t.Error(got)
	}
	damaged := r.accounts.m["alice@example.org"]
	damaged.StoredKey = nil
	r.accounts.m["alice@example.org"] = damaged
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != unavailable {
		t.Errorf("damaged verifier: %s", got)
	}
}

// TestBoundedMemory: an attack from everywhere is forgotten, not kept.
func TestBoundedMemory(t *testing.T) {
	l := newLimiter()
	now := time.Unix(1_800_000_000, 0)
	for i := range trackedEntries + 1000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		name := fmt.Sprint("user", i)
		l.begin(a, name, now)
		l.failed(name, now)
	}
	if l.clients.Len() != trackedEntries || l.pairs.Len() != trackedEntries || l.logins.Len() != trackedEntries {
		t.Errorf("%d clients, %d pairs, %d accounts", l.clients.Len(), l.pairs.Len(), l.logins.Len())
	}
}

// TestClockSetBack: a wall clock that jumps locks nobody out for days.
func TestClockSetBack(t *testing.T) {
	r := newRig(t)
	for range pairFailures {
		r.try("192.0.2.1", "alice@example.org", "wrong")
	}
	r.now = r.now.Add(-30 * 24 * time.Hour)
	if got := r.try("192.0.2.1", "alice@example.org", "correct"); got != "alice@example.org" {
		t.Error(got)
	}
}
