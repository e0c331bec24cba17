package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/sdk/mail"
)

// Account is an address with a mailbox and a password.
type Account struct {
	Address mail.Path `json:"address"`
	Enabled bool      `json:"enabled"`
	Created time.Time `json:"created"`
}

// Alias is an address that stands for others. An Address with an empty local part is the
// catch-all of its domain.
type Alias struct {
	Address mail.Path   `json:"address"`
	Targets []mail.Path `json:"targets"`
}

// AddDomain adds a domain, or another name for one that is stored. It is ErrExists if it
// is stored or declared already.
func (d *Directory) AddDomain(ctx context.Context, name mail.Domain, aliasOf mail.Domain) error {
	if _, declared := d.declared.Load().domains[name]; declared {
		return fmt.Errorf("domain %s: %w", name, ErrExists)
	}
	if _, literal := name.Literal(); literal || name.IsZero() {
		return errors.New("a domain must be a name")
	}
	of := sql.NullString{String: aliasOf.String(), Valid: !aliasOf.IsZero()}
	if of.Valid {
		stored, err := d.storedDomains(ctx)
		if err != nil {
			return err
		}
		if stored.names[aliasOf] != aliasOf {
			return fmt.Errorf("domain %s: %w", aliasOf, ErrUnknown)
		}
	}
	_, err := d.exec(ctx, `INSERT INTO domains (name, alias_of) VALUES (?, ?)`, name.String(), of)
	return about("domain "+name.String(), err)
}

// RemoveDomain removes a stored domain with its accounts and aliases. A domain that has
// other names keeps being there until they are removed.
func (d *Directory) RemoveDomain(ctx context.Context, name mail.Domain) error {
	return about("domain "+name.String(), d.change(ctx, func(tx *sql.Tx) error {
		if err := hit(tx.ExecContext(ctx, `DELETE FROM domains WHERE name = ?`, name.String())); err != nil {
			if isConstraint(err) {
				return errors.New("has other names; remove them first")
			}
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM accounts WHERE domain = ?`, name.String())
		if err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM account_data WHERE domain = ?`, name.String())
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM aliases WHERE domain = ?`, name.String())
		}
		return err
	}))
}

// canonical gives the address of an account or alias the form in which it is stored.
func (d *Directory) canonical(ctx context.Context, p mail.Path) (mail.Path, error) {
	name, ok, err := d.Local(ctx, p.Domain)
	if err != nil {
		return mail.Path{}, err
	}
	if !ok {
		return mail.Path{}, fmt.Errorf("domain %s: %w; name it in a [[domain]] of the configuration first", p.Domain, ErrUnknown)
	}
	return mail.Path{Local: p.Local, Domain: name}.Fold(), nil
}

// AddAccount adds an enabled account.
func (d *Directory) AddAccount(ctx context.Context, address mail.Path, password string) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	if p.Local == "" {
		return errors.New("an account needs a local part")
	}
	v, err := auth.NewVerifier(p.String(), password)
	if err != nil {
		return err
	}
	_, err = d.exec(ctx, `INSERT INTO accounts (domain, local, created, salt, iterations, stored_key, server_key)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, p.Domain.String(), p.Local, d.clock().Unix(), v.Salt, v.Iterations, v.StoredKey, v.ServerKey)
	return about("account "+p.String(), err)
}

// SetPassword changes the password of an account.
func (d *Directory) SetPassword(ctx context.Context, address mail.Path, password string) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	v, err := auth.NewVerifier(p.String(), password)
	if err != nil {
		return err
	}
	return about("account "+p.String(), hit(d.exec(ctx, `UPDATE accounts
		SET salt = ?, iterations = ?, stored_key = ?, server_key = ? WHERE domain = ? AND local = ?`,
		v.Salt, v.Iterations, v.StoredKey, v.ServerKey, p.Domain.String(), p.Local)))
}

// SetEnabled enables or disables an account: a disabled one gets no mail and cannot log in.
func (d *Directory) SetEnabled(ctx context.Context, address mail.Path, enabled bool) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("account "+p.String(), hit(d.exec(ctx, `UPDATE accounts SET enabled = ? WHERE domain = ? AND local = ?`,
		enabled, p.Domain.String(), p.Local)))
}

// RemoveAccount removes an account and what plugins keep about it; its mailbox is not touched.
func (d *Directory) RemoveAccount(ctx context.Context, address mail.Path) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("account "+p.String(), d.change(ctx, func(tx *sql.Tx) error {
		if err := hit(tx.ExecContext(ctx, `DELETE FROM accounts WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM account_data WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local)
		return err
	}))
}

// Accounts lists all accounts, by domain and local part.
func (d *Directory) Accounts(ctx context.Context) ([]Account, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT local, domain, enabled, created FROM accounts ORDER BY domain, local`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Account
	for rows.Next() {
		var local, domain string
		var enabled bool
		var created int64
		if err := rows.Scan(&local, &domain, &enabled, &created); err != nil {
			return nil, err
		}
		p, err := mail.MakePath(local, domain)
		if err != nil {
			return nil, fmt.Errorf("account %q at %q: %w", local, domain, err)
		}
		out = append(out, Account{p, enabled, time.Unix(created, 0)})
	}
	return out, rows.Err()
}

// AddAlias lets address stand for targets, in addition to those it has. A target may be
// anywhere, and may be the address itself where the account there shall get a copy.
func (d *Directory) AddAlias(ctx context.Context, address mail.Path, targets ...mail.Path) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("an alias needs a target")
	}
	return about("alias "+p.String(), d.change(ctx, func(tx *sql.Tx) error {
		for _, t := range targets {
			if t.Local == "" {
				return errors.New("a target needs a local part")
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO aliases (domain, local, target) VALUES (?, ?, ?)`, p.Domain.String(), p.Local, t.String()); err != nil {
				return err
			}
		}
		return nil
	}))
}

// RemoveAlias removes targets of an alias; without targets all of them.
func (d *Directory) RemoveAlias(ctx context.Context, address mail.Path, targets ...mail.Path) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("alias "+p.String(), d.change(ctx, func(tx *sql.Tx) error {
		if len(targets) == 0 {
			return hit(tx.ExecContext(ctx, `DELETE FROM aliases WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local))
		}
		for _, t := range targets {
			if err := hit(tx.ExecContext(ctx, `DELETE FROM aliases WHERE domain = ? AND local = ? AND target = ?`,
				p.Domain.String(), p.Local, t.String())); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Aliases lists all aliases, by domain and local part.
func (d *Directory) Aliases(ctx context.Context) ([]Alias, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT local, domain, target FROM aliases ORDER BY domain, local, target`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Alias
	for rows.Next() {
		var local, domain, target string
		if err := rows.Scan(&local, &domain, &target); err != nil {
			return nil, err
		}
		dom, err := mail.ParseDomain(domain)
		if err != nil {
			return nil, fmt.Errorf("alias at %q: %w", domain, err)
		}
		t, err := mail.ParsePath(target)
		if err != nil {
			return nil, fmt.Errorf("alias target %q: %w", target, err)
		}
		p := mail.Path{Local: local, Domain: dom}
		if n := len(out); n == 0 || out[n-1].Address != p {
			out = append(out, Alias{Address: p})
		}
		out[len(out)-1].Targets = append(out[len(out)-1].Targets, t)
	}
	return out, rows.Err()
}

func (d *Directory) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	d.write.Lock()
	defer d.write.Unlock()
	defer d.watch.changed()
	return d.db.ExecContext(ctx, query, args...)
}

// change runs f in a transaction.
func (d *Directory) change(ctx context.Context, f func(tx *sql.Tx) error) error {
	d.write.Lock()
	defer d.write.Unlock()
	defer d.watch.changed()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// hit makes a change that hit nothing an error.
func hit(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrUnknown)
	}
	return nil
}

// about says what an error is about.
func about(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isConstraint(err):
		return fmt.Errorf("%s: %w", what, ErrExists)
	}
	return fmt.Errorf("%s: %w", what, err)
}
