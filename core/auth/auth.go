// Package auth checks passwords and limits failed log-ins.
//
// It promises: passwords are compared through SCRAM-SHA-256 verifiers in constant time; an
// unknown account costs the same work and gets the same answer as a wrong password; no
// password is kept or logged (the cache of recent successes knows a keyed hash, which dies
// with the process and with the verifier); whoever guesses locks out his own address, never
// the account. It refuses to know where verifiers are kept and how a session speaks SASL.
// Nothing is durable: after a restart all counts begin again.
//
// Everything is safe for concurrent use.
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"runtime"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
)

// Accounts is where verifiers are.
type Accounts interface {
	// Verifier returns the verifier of the account that login names; ok is false if there is
	// none, or if it may not log in.
	Verifier(ctx context.Context, login mail.Path) (v Verifier, ok bool, err error)
}

// Passwords checks passwords whose verifiers are not kept here.
type Passwords interface {
	// CheckPassword returns the account that login and password open, "" if they do not.
	// elsewhere is false if the login's verifier is kept here after all.
	CheckPassword(ctx context.Context, login mail.Path, password string) (account string, elsewhere bool, err error)
}

// Options of an Authenticator.
type Options struct {
	Accounts Accounts
	// Passwords is asked first; nil: all verifiers are kept here.
	Passwords Passwords
	// AppUsed is told that an account has logged in with an app password; it must be quick.
	// It may be nil.
	AppUsed func(ctx context.Context, account, name string)
	// Secret makes up what clients are told about accounts that do not exist. It should be the
	// same after a restart. Default: another one each time.
	Secret []byte
	// PasswordsOnly: mechanisms that need a verifier are not offered, since Passwords has some
	// of them.
	PasswordsOnly bool
	// DefaultDomain is added to a login without a domain; the zero Domain: it fails.
	DefaultDomain mail.Domain
	Log           *slog.Logger
	Clock         func() time.Time // default: time.Now
	// Sleep waits, or until ctx ends. Default: a timer.
	Sleep func(ctx context.Context, d time.Duration)
}

// The cache of recent successes.
const (
	cacheEntries  = 4096
	cacheLifetime = 10 * time.Minute
)

// Answers. Unknown account, disabled account and wrong password are the same.
var (
	errCredentials = mail.Permanent(535, 7, 8, "Authentication credentials invalid")
	errUnavailable = mail.Temporary(454, 7, 0, "Temporary authentication failure")
	errTooMany     = mail.Temporary(421, 7, 0, "Too many failed log-ins, try again later")
)

// Authenticator checks log-ins.
type Authenticator struct {
	Options
	limiter *limiter
	recent  *state.Cache[[32]byte, success] // by keyed hash
	key     [32]byte                        // of that hash
	dummy   Verifier                        // for accounts that do not exist
	slots   chan struct{}                   // key derivations at a time
	derive  func(prepared string, salt []byte, iterations int) (stored, server []byte, err error)
}

// New returns an Authenticator.
func New(o Options) (*Authenticator, error) {
	if o.Accounts == nil {
		return nil, errors.New("auth: Accounts is missing")
	}
	if len(o.Secret) == 0 {
		o.Secret = make([]byte, 32)
		rand.Read(o.Secret) // never fails
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	a := &Authenticator{
		Options: o,
		limiter: newLimiter(),
		recent:  state.NewCache[[32]byte, success](cacheEntries),
		dummy:   Verifier{Salt: make([]byte, 16), Iterations: DefaultIterations, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32)},
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0))),
		derive:  derive,
	}
	rand.Read(a.key[:]) // never fails
	rand.Read(a.dummy.Salt)
	rand.Read(a.dummy.StoredKey)
	return a, nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Authenticate checks a user name and password and returns the account's address. An
// identity other than "" must be the user name: nobody acts as somebody else. Errors are a
// [mail.Status]: 535 5.7.8 (after a delay), 454 4.7.0, or 421 4.7.0 when this client has to
// wait.
func (a *Authenticator) Authenticate(ctx context.Context, c *mail.Client, identity, username, password string) (string, error) {
	// A name that is no address is counted and answered as one that does not exist.
	login, valid := a.login(username)
	if identity != "" {
		if as, ok := a.login(identity); !ok || as != login {
			valid = false
		}
	}
	name := login.String()
	return a.limited(ctx, c, name, func() (string, error) { return a.check(ctx, login, valid, password) })
}

// limited runs one attempt under the limits. check returns the account, "" if the attempt
// failed, and an error if nobody knows.
func (a *Authenticator) limited(ctx context.Context, c *mail.Client, name string, check func() (account string, err error)) (string, error) {
	client := state.ClientKey(c.Addr)
	if !a.limiter.begin(client, name, a.Clock()) {
		a.Log.Warn("log-in refused", "client", c.Addr.String(), "account", name, "reason", "too many failures")
		return "", errTooMany
	}
	account, err := check()
	switch {
	case err != nil:
		a.limiter.success(client, name) // it says nothing about the client
		a.Log.Error("log-in cannot be checked", "client", c.Addr.String(), "account", name, "error", err)
		return "", errUnavailable
	case account == "":
		delay := a.limiter.failed(name, a.Clock())
		a.Log.Warn("log-in failed", "client", c.Addr.String(), "account", name)
		a.Sleep(ctx, delay)
		return "", errCredentials
	}
	a.limiter.success(client, name)
	return account, nil
}

// login gives a user name its canonical form.
func (a *Authenticator) login(username string) (mail.Path, bool) {
	p, err := mail.ParsePath(username)
	if err != nil && !a.DefaultDomain.IsZero() {
		p, err = mail.MakePath(username, a.DefaultDomain.String())
	}
	if err != nil || p.IsZero() {
		return mail.Path{}, false
	}
	return p.Fold(), true
}

// check returns the account if the password is right, "" if it is not. Both take one
// look-up and one key derivation, unless the same log-in succeeded a short while ago.
func (a *Authenticator) check(ctx context.Context, login mail.Path, valid bool, password string) (string, error) {
	if a.Passwords != nil && valid && len(password) <= maxPassword && utf8.ValidString(password) {
		if account, elsewhere, err := a.Passwords.CheckPassword(ctx, login, password); elsewhere || err != nil {
			return account, err
		}
	}
	v, ok, err := a.Accounts.Verifier(ctx, login)
	if err == nil && ok {
		err = v.Check()
	}
	if err != nil {
		return "", err
	}
	if ok = ok && valid; !ok {
		v = a.dummy
	}
	prepared, err := prepare(password)
	if err != nil {
		prepared, ok = "-", false
	}
	key := a.cacheKey(&v, prepared)
	if r, found := a.recent.Get(key); ok && found && a.Clock().Before(r.until) {
		a.used(ctx, v.Account, r.app)
		return v.Account, nil
	}
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	stored, _, err := a.derive(prepared, v.Salt, v.Iterations)
	<-a.slots
	if err != nil {
		return "", err
	}
	found, right := v.find(func(k Key) bool { return equal(stored, k.StoredKey) })
	if !right || !ok {
		return "", nil
	}
	a.recent.Set(key, success{a.Clock().Add(cacheLifetime), found.Name})
	a.used(ctx, v.Account, found.Name)
	return v.Account, nil
}

// success is a log-in that was checked a short while ago.
type success struct {
	until time.Time
	app   string // the name of the app password; "" if it was none
}

// cacheKey has all verifiers of the account in it: when one of them changes or is revoked,
// nothing that was cached before holds.
func (a *Authenticator) cacheKey(v *Verifier, prepared string) [32]byte {
	parts := []string{v.Account, "\x00"}
	for _, k := range v.keys() {
		parts = append(parts, string(k.StoredKey))
	}
	return [32]byte(mac(a.key[:], append(parts, prepared)...))
}

func (a *Authenticator) used(ctx context.Context, account, app string) {
	if app != "" && a.AppUsed != nil {
		a.AppUsed(ctx, account, app)
	}
}
