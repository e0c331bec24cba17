// Package directory knows who is a recipient here and who may log in: domains, accounts,
// aliases, groups and catch-alls, and how addresses are rewritten; in one SQLite file.
//
// It promises: what a change returned from is durable; another process (the command line)
// may change the file while the gateway runs, and the gateway sees it within a hundredth of a
// second; local parts are compared without regard to case; a password is kept only as a
// SCRAM-SHA-256 verifier. Domains that the configuration declares are given to it with
// [Directory.Declare] and are not stored. It refuses to know how mail is delivered and what
// a refusal sounds like beyond the status in its errors.
//
// The file, directory.db, has mode 0600 and these tables (schema.go has the definitions):
//
//	domains           what a Domain says      written by AddDomain, SetDomain
//	accounts          address, verifier       written by AddAccount, SetPassword, SetAccount
//	app_passwords     address, name, verifier written by AddAppPassword
//	account_settings  address, key, value     written by SetSetting
//	aliases           address, target         written by AddAlias, AddGroup; an empty local part is the catch-all
//	groups            address, who may send   written by AddGroup
//	rewrites          address, other address  written by AddRewrite
//	account_data      plugin, address, key, version, value    written by PutData
//	allowed_senders   sender, address, added  written by AllowSender; an empty local part is the domain
//	times             name, at                written by SetTime
//	secrets           name, random bytes      written by Secret
//
// A Directory is safe for concurrent use.
package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
)

// Errors. Those that are an answer about an address are a [mail.Status].
var (
	// ErrNotFound: the domain is ours and has no such address.
	ErrNotFound error = mail.Permanent(550, 1, 1, "No such user here")
	// ErrDisabled: the address leads to disabled accounts only.
	ErrDisabled error = mail.Permanent(550, 2, 1, "Mailbox is disabled")
	// ErrTooDeep: its aliases lead on and on, or to too many addresses.
	ErrTooDeep error = mail.Temporary(451, 4, 6, "Alias expansion is too large")
	// ErrNotLocal: the domain is not ours.
	ErrNotLocal error = mail.Permanent(550, 7, 1, "Not a domain of this server")
	// ErrNotPermitted: the address is a group, to which this sender may not send.
	ErrNotPermitted error = mail.Permanent(550, 7, 2, "You are not allowed to send to this group")
	// ErrExists: what should be added is there already.
	ErrExists = errors.New("exists already")
	// ErrUnknown: what should be changed or removed is not there.
	ErrUnknown = errors.New("does not exist")
)

// Options of a Directory.
type Options struct {
	Path       string      // the file; it is made if it is missing
	Hostname   mail.Domain // the gateway's own name: it has a postmaster, if nothing else
	Postmaster mail.Path   // where mail for postmaster goes at domains without such an account
	// OnlyDeclared: a stored domain is none of ours until it is declared. For a gateway, which
	// declares them when it can deliver for them.
	OnlyDeclared bool
	Log          *slog.Logger // default: nowhere
	Clock        func() time.Time
}

// Directory is an open directory.
type Directory struct {
	clock    func() time.Time
	hostname mail.Domain
	log      *slog.Logger
	db       *sql.DB
	declared atomic.Pointer[declaration]
	stored   atomic.Pointer[storedDomains]
	nobody   atomic.Int64 // the version of the file in which no sender is allowed anything, and one
	write    sync.Mutex   // one change at a time; SQLite would make the second one wait anyway
	watch    watcher
	answers  *state.Cache[mail.Path, cachedAnswer]
	rules    atomic.Pointer[rewriteRules]
	lookup   *sql.Stmt
	verifier *sql.Stmt

	onlyDeclared bool
}

// cachedAnswers bounds the answers that are kept: those about recent recipients.
const cachedAnswers = 1 << 14

// declaration is what the configuration says. It is replaced as a whole by a reload.
type declaration struct {
	domains    map[mail.Domain]mail.Domain // name or alias -> name
	facts      map[mail.Domain]*Domain     // by name
	stored     map[mail.Domain]bool        // by name
	first      mail.Domain                 // the domain declared first
	postmaster mail.Path
}

// Open opens a directory, makes the file if it is missing, and brings an older one up to date.
func Open(o Options) (*Directory, error) {
	if o.Path == "" {
		return nil, errors.New("directory: Path is missing")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := create(o.Path); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	d := &Directory{clock: o.Clock, hostname: o.Hostname, log: o.Log, onlyDeclared: o.OnlyDeclared, answers: state.NewCache[mail.Path, cachedAnswer](cachedAnswers)}
	d.watch.clock = o.Clock
	d.Declare(nil, o.Postmaster)
	if err := d.open(o.Path); err != nil {
		d.Close()
		return nil, fmt.Errorf("directory: %s: %w", o.Path, err)
	}
	return d, nil
}

// create makes the file if it is missing, durably and with the mode that it must have; SQLite
// gives its other files (-wal, -shm) the mode of this one.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Close closes the file. When it returns, other processes that have it open see what this one
// has changed.
func (d *Directory) Close() error {
	if d.db == nil {
		return nil
	}
	d.watch.settle()
	return errors.Join(d.watch.close(), d.db.Close())
}

// Declare tells which domains there are without being stored, and who is postmaster. It
// replaces what was declared before. A stored domain may be declared too, by who does more
// for a domain than to know it: then that counts.
func (d *Directory) Declare(domains []Domain, postmaster mail.Path) {
	dec := &declaration{domains: make(map[mail.Domain]mail.Domain), facts: make(map[mail.Domain]*Domain), stored: make(map[mail.Domain]bool), postmaster: postmaster.Fold()}
	for i, dom := range domains {
		if i == 0 {
			dec.first = dom.Name
		}
		dec.domains[dom.Name] = dom.Name
		dec.facts[dom.Name] = &dom
		dec.stored[dom.Name] = dom.Stored
		for _, a := range dom.Aliases {
			dec.domains[a] = dom.Name
		}
	}
	d.declared.Store(dec)
}

// Local reports whether a domain is ours, and its name if it is an alias of another.
func (d *Directory) Local(ctx context.Context, name mail.Domain) (mail.Domain, bool, error) {
	if n, ok := d.declared.Load().domains[name]; ok {
		return n, true, nil
	}
	if d.onlyDeclared {
		return mail.Domain{}, false, nil
	}
	stored, err := d.storedDomains(ctx)
	if err != nil {
		return mail.Domain{}, false, err
	}
	n, ok := stored.names[name]
	return n, ok, nil
}
