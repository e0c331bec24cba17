package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// Domain is a domain that the gateway is responsible for: declared in the configuration, or
// stored.
type Domain struct {
	Name    mail.Domain   `json:"name"`
	Aliases []mail.Domain `json:"aliases,omitempty"` // other names for it
	// Deliver, Recipients, Directory and Planner are for who delivers: see the configuration.
	Deliver    []string `json:"deliver,omitempty"`
	Recipients string   `json:"recipients,omitempty"`
	Directory  string   `json:"directory,omitempty"`
	Planner    string   `json:"planner,omitempty"`
	// Elsewhere says that another directory knows its addresses: one that an alias leads to
	// is left as it is.
	Elsewhere bool `json:"-"`
	// Stored says of a declared domain that it is stored too.
	Stored bool `json:"-"`
	// Postmaster gets what is for postmaster at this domain, if there is no such account or
	// alias; the zero Path: that of the configuration.
	Postmaster mail.Path `json:"postmaster,omitzero"`
	// Quota is of each account that has none of its own.
	Quota
	// CatchAll gets what is for addresses that do not exist. Of stored domains it is an alias.
	CatchAll []mail.Path `json:"catch_all,omitempty"`
}

// Quota is what a mailbox may hold in all; 0: no limit.
type Quota struct {
	Bytes    int64 `json:"quota_bytes"`
	Messages int64 `json:"quota_messages"`
}

func (q Quota) check() error {
	if q.Bytes < 0 || q.Messages < 0 {
		return errors.New("a quota must not be negative")
	}
	return nil
}

// RecipientsDirectory and RecipientsAny say which addresses of a domain exist; other values
// are for others to know.
const (
	RecipientsDirectory = "directory"
	RecipientsAny       = "any"
)

// knows reports whether an address that this directory does not know does not exist.
func (dom *Domain) knows() bool {
	return !dom.Elsewhere && dom.Directory == "" && (dom.Recipients == "" || dom.Recipients == RecipientsDirectory)
}

// AddDomain stores a domain. It is ErrExists if it, or another name of it, is stored or
// declared already. Its catch-all is checked as the targets of an alias are. Whether mail can
// be delivered as it says is for the caller to know.
func (d *Directory) AddDomain(ctx context.Context, dom Domain) error {
	return about("domain "+dom.Name.String(), d.transact(ctx, func(c *change) error { return c.addDomain(&dom) }))
}

func (c *change) addDomain(dom *Domain) error {
	if err := c.d.checkDomain(dom); err != nil {
		return err
	}
	if err := c.exec(`INSERT INTO domains (name) VALUES (?)`, dom.Name.String()); err != nil {
		return err
	}
	if len(dom.CatchAll) > 0 {
		c.suspects = append(c.suspects, mail.Path{Domain: dom.Name})
	}
	c.newDomains, c.stored = true, nil
	return c.d.putDomain(c.ctx, c.tx, dom)
}

// domain is [Directory.Local] and [Directory.domain] with the domains that are being added.
func (c *change) domain(name mail.Domain) (own mail.Domain, ours bool, dom *Domain, err error) {
	if own, ours, err = c.d.Local(c.ctx, name); err != nil {
		return own, ours, nil, err
	}
	if ours || !c.newDomains {
		dom, err = c.d.domain(c.ctx, own)
		return own, ours, dom, err
	}
	if c.stored == nil {
		if c.stored, err = readDomains(c.ctx, c.tx); err != nil {
			return own, false, nil, err
		}
	}
	own, ours = c.stored.names[name]
	return own, ours, c.stored.facts[own], nil
}

// SetDomain changes a stored domain. f must not change its name.
func (d *Directory) SetDomain(ctx context.Context, name mail.Domain, f func(*Domain) error) error {
	return about("domain "+name.String(), d.transact(ctx, func(c *change) error {
		tx := c.tx
		s, err := readDomains(ctx, tx)
		if err != nil {
			return err
		}
		old, ok := s.facts[name]
		if !ok {
			if d.isDeclared(name) {
				return errors.New("is declared in the configuration: change it there")
			}
			return ErrUnknown
		}
		dom := *old
		dom.Aliases = slices.Clone(old.Aliases)
		if err := f(&dom); err != nil {
			return err
		}
		dom.Name = name
		if err := d.checkDomain(&dom); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM domains WHERE alias_of = ?`, name.String()); err != nil {
			return err
		}
		if len(dom.CatchAll) > 0 {
			c.suspects = append(c.suspects, mail.Path{Domain: name})
		}
		return d.putDomain(ctx, tx, &dom)
	}))
}

func (d *Directory) isDeclared(name mail.Domain) bool {
	dec := d.declared.Load()
	of, ok := dec.domains[name]
	return ok && !dec.stored[of]
}

func (d *Directory) checkDomain(dom *Domain) error {
	for _, n := range append([]mail.Domain{dom.Name}, dom.Aliases...) {
		if _, literal := n.Literal(); literal || n.IsZero() {
			return errors.New("a domain must be a name")
		}
		if d.isDeclared(n) {
			return fmt.Errorf("%s is declared in the configuration: %w", n, ErrExists)
		}
	}
	for _, s := range append([]string{dom.Recipients, dom.Directory, dom.Planner}, dom.Deliver...) {
		if strings.ContainsAny(s, "\r\n\x00") {
			return errors.New("a value must be one line")
		}
	}
	return dom.Quota.check()
}

// putDomain writes the facts and other names of a domain that is there, and its catch-all.
func (d *Directory) putDomain(ctx context.Context, tx *sql.Tx, dom *Domain) error {
	name, postmaster := dom.Name.String(), ""
	if !dom.Postmaster.IsZero() {
		postmaster = dom.Postmaster.String()
	}
	_, err := tx.ExecContext(ctx, `UPDATE domains SET deliver = ?, recipients = ?, directory = ?, planner = ?, postmaster = ?,
		quota_bytes = ?, quota_messages = ? WHERE name = ?`,
		strings.Join(dom.Deliver, "\n"), dom.Recipients, dom.Directory, dom.Planner, postmaster, dom.Quota.Bytes, dom.Quota.Messages, name)
	if err != nil {
		return err
	}
	for _, a := range dom.Aliases {
		if _, err := tx.ExecContext(ctx, `INSERT INTO domains (name, alias_of) VALUES (?, ?)`, a.String(), name); err != nil {
			return about("name "+a.String(), err)
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM aliases WHERE domain = ? AND local = ''`, name); err != nil {
		return err
	}
	for _, t := range dom.CatchAll {
		if _, err := tx.ExecContext(ctx, `INSERT INTO aliases (domain, local, target) VALUES (?, '', ?)`, name, t.String()); err != nil {
			return about("catch-all "+t.String(), err)
		}
	}
	return nil
}

// ofDomain are the tables with something about the addresses of a domain.
var ofDomain = []string{"accounts", "app_passwords", "account_settings", "account_data", "aliases", "groups", "allowed_senders"}

// ErrNotEmpty: a domain has accounts.
var ErrNotEmpty = errors.New("has accounts")

// RemoveDomain removes a stored domain with its other names, aliases and groups. One that
// has accounts is ErrNotEmpty, unless they may go too. Mailboxes are not touched. What the
// configuration has come to declare as well loses nothing but what was stored of the domain
// itself: that declaration counts from then on.
func (d *Directory) RemoveDomain(ctx context.Context, name mail.Domain, withAccounts bool) error {
	return about("domain "+name.String(), d.change(ctx, func(tx *sql.Tx) error {
		declared := d.isDeclared(name)
		var accounts int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM accounts WHERE domain = ?`, name.String()).Scan(&accounts); err != nil {
			return err
		}
		if accounts > 0 && !withAccounts && !declared {
			return fmt.Errorf("%w: %d", ErrNotEmpty, accounts)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM domains WHERE alias_of = ?`, name.String()); err != nil {
			return err
		}
		err := hit(tx.ExecContext(ctx, `DELETE FROM domains WHERE name = ? AND alias_of IS NULL`, name.String()))
		switch {
		case err != nil && declared:
			return errors.New("is declared in the configuration: remove it there")
		case err != nil || declared:
			return err
		}
		for _, table := range ofDomain {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE domain = ?`, name.String()); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Domains lists the stored domains by name, without the declared ones. The slice must not be
// changed, nor what it refers to.
func (d *Directory) Domains(ctx context.Context) ([]Domain, error) {
	stored, err := d.storedDomains(ctx)
	if err != nil {
		return nil, err
	}
	var out []Domain
	for _, name := range slices.SortedFunc(maps.Keys(stored.facts), compareDomains) {
		out = append(out, *stored.facts[name])
	}
	return out, nil
}

func compareDomains(a, b mail.Domain) int { return strings.Compare(a.String(), b.String()) }

// Domain returns what is known of a domain of ours, by its own name or another.
func (d *Directory) Domain(ctx context.Context, name mail.Domain) (Domain, error) {
	name, ok, err := d.Local(ctx, name)
	if err != nil {
		return Domain{}, err
	} else if !ok {
		return Domain{}, ErrNotLocal
	}
	dom, err := d.domain(ctx, name)
	if err != nil {
		return Domain{}, err
	} else if dom == nil {
		return Domain{}, ErrNotLocal
	}
	return *dom, nil
}

// domain returns what is known of a domain of ours, by its own name; nil: it is none.
func (d *Directory) domain(ctx context.Context, name mail.Domain) (*Domain, error) {
	if dom, ok := d.declared.Load().facts[name]; ok {
		return dom, nil
	}
	stored, err := d.storedDomains(ctx)
	if err != nil {
		return nil, err
	}
	return stored.facts[name], nil
}

// storedDomains are the domains of one version of the file; they are few and asked for
// often.
type storedDomains struct {
	version int64
	names   map[mail.Domain]mail.Domain // name or alias -> name
	facts   map[mail.Domain]*Domain     // by name
}

func (d *Directory) storedDomains(ctx context.Context) (*storedDomains, error) {
	version, err := d.watch.current(ctx)
	if err != nil {
		return nil, err
	}
	if s := d.stored.Load(); s != nil && s.version == version {
		return s, nil
	}
	s, err := readDomains(ctx, d.db)
	if err != nil {
		return nil, err
	}
	s.version = version
	d.stored.Store(s)
	return s, nil
}

// querier is a database, or a transaction in it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func readDomains(ctx context.Context, q querier) (*storedDomains, error) {
	rows, err := q.QueryContext(ctx, `SELECT d.name, coalesce(d.alias_of, ''), d.deliver, d.recipients, d.directory, d.planner, d.postmaster,
		d.quota_bytes, d.quota_messages, coalesce(a.target, '') FROM domains d
		LEFT JOIN aliases a ON a.domain = d.name AND a.local = '' ORDER BY d.name, a.target`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	s := &storedDomains{names: make(map[mail.Domain]mail.Domain), facts: make(map[mail.Domain]*Domain)}
	aliases := make(map[mail.Domain]mail.Domain)
	for rows.Next() {
		var name, of, deliver, postmaster, catchAll string
		var dom Domain
		if err := rows.Scan(&name, &of, &deliver, &dom.Recipients, &dom.Directory, &dom.Planner, &postmaster, &dom.Quota.Bytes, &dom.Quota.Messages, &catchAll); err != nil {
			return nil, err
		}
		if dom.Name, err = mail.ParseDomain(name); err != nil {
			continue // not written by us; nobody can ask for it
		}
		if of != "" {
			if o, err := mail.ParseDomain(of); err == nil {
				aliases[dom.Name] = o
			}
			continue
		}
		if s.facts[dom.Name] == nil {
			if deliver != "" {
				dom.Deliver = strings.Split(deliver, "\n")
			}
			dom.Elsewhere = dom.Directory != ""
			if postmaster != "" {
				dom.Postmaster, _ = mail.ParsePath(postmaster)
			}
			s.facts[dom.Name], s.names[dom.Name] = &dom, dom.Name
		}
		if p, err := mail.ParsePath(catchAll); err == nil && catchAll != "" {
			known := s.facts[dom.Name]
			known.CatchAll = append(known.CatchAll, p)
		}
	}
	for _, alias := range slices.SortedFunc(maps.Keys(aliases), compareDomains) {
		if dom := s.facts[aliases[alias]]; dom != nil {
			s.names[alias] = dom.Name
			dom.Aliases = append(dom.Aliases, alias)
		}
	}
	return s, rows.Err()
}
