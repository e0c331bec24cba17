package auth

import (
	"net/netip"
	"time"

	"github.com/postern-mail/postern/core/state"
)

// The limits on failed log-ins. An account is never locked as such: whoever tries to guess
// it only locks his own address out, and slows down other failures.
const (
	pairFailures   = 5               // of one client at one account, before it has to wait
	clientFailures = 20              // of one client at all accounts
	firstLock      = time.Minute     // doubles with each further failure
	longestLock    = time.Hour       //
	forgetAfter    = 2 * longestLock // without a failure
	shortestDelay  = time.Second     // of the answer to a failure; doubles with each at the account
	longestDelay   = 8 * time.Second //
	trackedEntries = 1 << 16         // clients, pairs, accounts: each
	maxLockDoubles = 10              //
)

// record counts the failures of one client, account, or pair.
type record struct {
	failures int
	last     time.Time
	until    time.Time // no attempts before this
}

// fail counts a failure that may be one too many.
func (r *record) fail(now time.Time, allowed int) {
	r.age(now)
	r.failures++
	r.last = now
	if over := r.failures - allowed; over >= 0 {
		r.until = now.Add(min(firstLock<<min(over, maxLockDoubles), longestLock))
	}
}

// age forgets old failures.
func (r *record) age(now time.Time) {
	if !r.last.IsZero() && now.Sub(r.last) > forgetAfter {
		*r = record{}
	}
}

func (r *record) locked(now time.Time) bool {
	// A clock that was set back must not lock anybody out for longer than was meant.
	return now.Before(r.until) && r.until.Sub(now) <= longestLock
}

type pair struct {
	client netip.Addr
	login  string
}

// limiter remembers failures. It is safe for concurrent use.
type limiter struct {
	clients *state.Cache[netip.Addr, record]
	pairs   *state.Cache[pair, record]
	logins  *state.Cache[string, record]
}

func newLimiter() *limiter {
	return &limiter{
		clients: state.NewCache[netip.Addr, record](trackedEntries),
		pairs:   state.NewCache[pair, record](trackedEntries),
		logins:  state.NewCache[string, record](trackedEntries),
	}
}

// begin counts an attempt as a failure before it is checked, so that attempts made at the
// same time count too, and returns false if it must not be made. success takes it back.
func (l *limiter) begin(client netip.Addr, login string, now time.Time) bool {
	ok := true
	l.clients.Update(client, func(r *record) {
		if ok = !r.locked(now); ok {
			r.fail(now, clientFailures)
		}
	})
	if !ok {
		return false
	}
	l.pairs.Update(pair{client, login}, func(r *record) {
		if ok = !r.locked(now); ok {
			r.fail(now, pairFailures)
		}
	})
	if !ok {
		// A device with an old password that keeps trying hurts itself, not its neighbours.
		l.clients.Update(client, undo)
	}
	return ok
}

// success takes back what begin counted; the pair starts anew.
func (l *limiter) success(client netip.Addr, login string) {
	l.clients.Update(client, undo)
	l.pairs.Delete(pair{client, login})
}

// undo takes back one failure and the lock that it may have caused: there was none before,
// or the attempt would not have been made.
func undo(r *record) {
	if r.failures > 0 {
		r.failures--
	}
	r.until = time.Time{}
}

// failed returns how long the answer to a failure at login is held back.
func (l *limiter) failed(login string, now time.Time) time.Duration {
	delay := shortestDelay
	l.logins.Update(login, func(r *record) {
		r.age(now)
		delay = min(shortestDelay<<min(r.failures, 3), longestDelay)
		r.failures++
		r.last = now
	})
	return delay
}
