// Package directory knows who is a recipient here and who may log in: domains, accounts,
// aliases and catch-alls, in one SQLite file.
//
// It promises: what a change returned from is durable; another process (the command line)
// may change the file while the gateway runs, and the gateway sees it within a tenth of a
// second; local parts are compared without regard to case; a password is kept only as a
// SCRAM-SHA-256 verifier. Domains that the configuration declares are given to it with
// [Directory.Declare] and are not stored. It refuses to know how mail is delivered and what
// a refusal sounds like beyond the status in its errors.
//
// The file, directory.db, has mode 0600 and these tables (schema.go has the definitions):
//
//	domains   name, alias_of       written by AddDomain
//	accounts  address, verifier    written by AddAccount, SetPassword, SetEnabled
//	aliases   address, target      written by AddAlias; an empty local part is the catch-all
//	account_data  plugin, address, key, version, value    written by PutData
//	allowed_senders  sender, address, added    written by AllowSender; an empty local part is the domain
//	times     name, at             written by SetTime
//
// A Directory is safe for concurrent use.
package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

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
	Clock      func() time.Time
}

// Domain is a domain that the gateway is responsible for.
type Domain struct {
	Name    mail.Domain
	Aliases []mail.Domain // other names for it
	// Elsewhere says that another directory knows its addresses: one that an alias leads to
	// is left as it is.
	Elsewhere bool
}

// Directory is an open directory.
type Directory struct {
	clock    func() time.Time
	hostname mail.Domain
	db       *sql.DB
	declared atomic.Pointer[declaration]
	stored   atomic.Pointer[storedDomains]
	nobody   atomic.Int64 // the version of the file in which no sender is allowed anything, and one
	write    sync.Mutex   // one change at a time; SQLite would make the second one wait anyway
	watch    watcher
	answers  *state.Cache[mail.Path, cachedAnswer]
	lookup   *sql.Stmt
	verifier *sql.Stmt
}

// cachedAnswers bounds the answers that are kept: those about recent recipients.
const cachedAnswers = 1 << 14

// declaration is what the configuration says. It is replaced as a whole by a reload.
type declaration struct {
	domains    map[mail.Domain]mail.Domain // name or alias -> name
	first      mail.Domain                 // the domain declared first
	elsewhere  map[mail.Domain]bool        // by name
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
	if err := create(o.Path); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	d := &Directory{clock: o.Clock, hostname: o.Hostname, answers: state.NewCache[mail.Path, cachedAnswer](cachedAnswers)}
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

// Close closes the file.
func (d *Directory) Close() error {
	if d.db == nil {
		return nil
	}
	return errors.Join(d.watch.close(), d.db.Close())
}

// Declare tells which domains the configuration declares, and who is postmaster. It
// replaces what was declared before.
func (d *Directory) Declare(domains []Domain, postmaster mail.Path) {
	m := make(map[mail.Domain]mail.Domain)
	var first mail.Domain
	elsewhere := make(map[mail.Domain]bool)
	for i, dom := range domains {
		if i == 0 {
			first = dom.Name
		}
		m[dom.Name] = dom.Name
		elsewhere[dom.Name] = dom.Elsewhere
		for _, a := range dom.Aliases {
			m[a] = dom.Name
		}
	}
	d.declared.Store(&declaration{m, first, elsewhere, postmaster.Fold()})
}

// Local reports whether a domain is ours, and its name if it is an alias of another.
func (d *Directory) Local(ctx context.Context, name mail.Domain) (mail.Domain, bool, error) {
	if n, ok := d.declared.Load().domains[name]; ok {
		return n, true, nil
	}
	stored, err := d.storedDomains(ctx)
	if err != nil {
		return mail.Domain{}, false, err
	}
	n, ok := stored.names[name]
	return n, ok, nil
}

// Domains lists the stored domains by name, without the declared ones.
func (d *Directory) Domains(ctx context.Context) ([]Domain, error) {
	stored, err := d.storedDomains(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[mail.Domain]*Domain)
	for name, of := range stored.names {
		if all[of] == nil {
			all[of] = &Domain{Name: of}
		}
		if name != of {
			all[of].Aliases = append(all[of].Aliases, name)
		}
	}
	var out []Domain
	byName := func(a, b mail.Domain) int { return strings.Compare(a.String(), b.String()) }
	for _, name := range slices.SortedFunc(maps.Keys(all), byName) {
		slices.SortFunc(all[name].Aliases, byName)
		out = append(out, *all[name])
	}
	return out, nil
}

// isConstraint reports whether err says that a row is there already.
func isConstraint(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == 19 // SQLITE_CONSTRAINT
}
