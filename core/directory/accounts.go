package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/sdk/mail"
)

// Account is an address with a mailbox and a password.
type Account struct {
	Address     mail.Path `json:"address"`
	DisplayName string    `json:"display_name,omitempty"`
	Enabled     bool      `json:"enabled"`
	Created     time.Time `json:"created"`
	// Quota is its own, or the one of its domain.
	Quota
	// OwnBytes and OwnMessages say that this part of the quota is its own.
	OwnBytes    bool `json:"own_quota_bytes"`
	OwnMessages bool `json:"own_quota_messages"`
	// Settings are not in lists.
	Settings map[string]string `json:"settings,omitempty"`
}

// change is what is done to the file in one transaction.
type change struct {
	ctx context.Context
	d   *Directory
	tx  *sql.Tx
	// suspects are aliases and groups to be checked before the end.
	suspects []mail.Path
	// newDomains says that there are domains that others do not see yet; stored are all, once
	// they have been read.
	newDomains bool
	stored     *storedDomains
}

func (c *change) exec(query string, args ...any) error {
	_, err := c.tx.ExecContext(c.ctx, query, args...)
	return err
}

// hit is exec for what must change something.
func (c *change) hit(query string, args ...any) error {
	return hit(c.tx.ExecContext(c.ctx, query, args...))
}

// transact runs f in a transaction, which checks the suspects at its end.
func (d *Directory) transact(ctx context.Context, f func(c *change) error) error {
	return d.change(ctx, func(tx *sql.Tx) error {
		c := &change{ctx: ctx, d: d, tx: tx}
		if err := f(c); err != nil {
			return err
		}
		return c.checkSuspects()
	})
}

// onAccount runs f with the stored form of an account's address; errors say whose.
func (d *Directory) onAccount(ctx context.Context, address mail.Path, f func(c *change, p mail.Path) error) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("account "+p.String(), d.transact(ctx, func(c *change) error { return f(c, p) }))
}

// canonical gives the address of an account or alias the form in which it is stored.
func (d *Directory) canonical(ctx context.Context, p mail.Path) (mail.Path, error) {
	name, ok, err := d.Local(ctx, p.Domain)
	if err != nil {
		return mail.Path{}, err
	}
	if !ok {
		return mail.Path{}, fmt.Errorf("domain %s: %w; add it with \"postern domain add\", or name it in a [[domain]] of the configuration", p.Domain, ErrUnknown)
	}
	return mail.Path{Local: p.Local, Domain: name}.Fold(), nil
}

// AddAccount adds an enabled account.
func (d *Directory) AddAccount(ctx context.Context, address mail.Path, password string) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	v, err := auth.NewVerifier(p.String(), password)
	if err != nil {
		return err
	}
	return about("account "+p.String(), d.transact(ctx, func(c *change) error { return c.addAccount(p, v) }))
}

// AddNewAccount adds an account with all that is known of it.
func (d *Directory) AddNewAccount(ctx context.Context, a *NewAccount) error {
	p, err := d.canonical(ctx, a.Address)
	if err != nil {
		return err
	}
	v := auth.NoPassword()
	if a.Password != "" {
		if v, err = auth.NewVerifier("", a.Password); err != nil {
			return err
		}
	}
	return about("account "+p.String(), d.transact(ctx, func(c *change) error { return c.addNew(p, a, v) }))
}

func (c *change) addAccount(p mail.Path, v auth.Verifier) error {
	if p.Local == "" {
		return errors.New("an account needs a local part")
	}
	var group bool
	err := c.tx.QueryRowContext(c.ctx, `SELECT EXISTS (SELECT 1 FROM groups WHERE domain = ? AND local = ?)`, p.Domain.String(), p.Local).Scan(&group)
	if err != nil {
		return err
	}
	if group {
		return fmt.Errorf("a group of that address %w", ErrExists)
	}
	return c.exec(`INSERT INTO accounts (domain, local, created, salt, iterations, stored_key, server_key) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		p.Domain.String(), p.Local, c.d.clock().Unix(), v.Salt, v.Iterations, v.StoredKey, v.ServerKey)
}

// SetPassword changes the password of an account. Its app passwords stay as they are.
func (d *Directory) SetPassword(ctx context.Context, address mail.Path, password string) error {
	fresh, err := auth.NewVerifier("", password)
	if err != nil {
		return err
	}
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error {
		v, apps, err := c.verifier(p)
		if err != nil {
			return err
		}
		// A client of SCRAM learns one salt before it says which password it has: all
		// passwords of an account have the same.
		if apps == 0 {
			v = fresh
		} else {
			key, err := v.Key(password)
			if err != nil {
				return err
			}
			v.StoredKey, v.ServerKey = key.StoredKey, key.ServerKey
		}
		return c.hit(`UPDATE accounts SET salt = ?, iterations = ?, stored_key = ?, server_key = ? WHERE domain = ? AND local = ?`,
			v.Salt, v.Iterations, v.StoredKey, v.ServerKey, p.Domain.String(), p.Local)
	})
}

// verifier reads that of an account, and how many app passwords there are.
func (c *change) verifier(p mail.Path) (v auth.Verifier, apps int, err error) {
	err = c.tx.QueryRowContext(c.ctx, `SELECT salt, iterations, (SELECT count(*) FROM app_passwords p WHERE p.domain = a.domain AND p.local = a.local)
		FROM accounts a WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local).Scan(&v.Salt, &v.Iterations, &apps)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrUnknown
	}
	return v, apps, err
}

// SetEnabled enables or disables an account: a disabled one gets no mail and cannot log in.
func (d *Directory) SetEnabled(ctx context.Context, address mail.Path, enabled bool) error {
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error {
		return c.hit(`UPDATE accounts SET enabled = ? WHERE domain = ? AND local = ?`, enabled, p.Domain.String(), p.Local)
	})
}

// maxName bounds display names and names of app passwords, in bytes.
const maxName = 200

func checkName(what, s string) error {
	if len(s) > maxName || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%s must be one line of at most %d bytes", what, maxName)
	}
	return nil
}

// SetDisplayName sets the name of the account's owner; "" removes it.
func (d *Directory) SetDisplayName(ctx context.Context, address mail.Path, name string) error {
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error { return c.setDisplayName(p, name) })
}

func (c *change) setDisplayName(p mail.Path, name string) error {
	if err := checkName("a display name", name); err != nil {
		return err
	}
	return c.hit(`UPDATE accounts SET display_name = ? WHERE domain = ? AND local = ?`, name, p.Domain.String(), p.Local)
}

// SetQuota gives an account a quota of its own. nil: what the domain has; 0: no limit.
func (d *Directory) SetQuota(ctx context.Context, address mail.Path, bytes, messages *int64) error {
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error { return c.setQuota(p, bytes, messages) })
}

func (c *change) setQuota(p mail.Path, bytes, messages *int64) error {
	for _, n := range []*int64{bytes, messages} {
		if n != nil && *n < 0 {
			return errors.New("a quota must not be negative")
		}
	}
	return c.hit(`UPDATE accounts SET quota_bytes = ?, quota_messages = ? WHERE domain = ? AND local = ?`, bytes, messages, p.Domain.String(), p.Local)
}

// ofAccount are the tables with something that an account's owner has set or stored.
var ofAccount = []string{"app_passwords", "account_settings", "account_data"}

// RemoveAccount removes an account and what plugins keep about it; its mailbox is not
// touched. Aliases and groups that name it stay, and lead nowhere there.
func (d *Directory) RemoveAccount(ctx context.Context, address mail.Path) error {
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error {
		if err := c.hit(`DELETE FROM accounts WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local); err != nil {
			return err
		}
		for _, table := range ofAccount {
			if err := c.exec(`DELETE FROM `+table+` WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local); err != nil {
				return err
			}
		}
		return nil
	})
}

const accountSQL = `SELECT a.local, a.domain, a.enabled, a.created, a.display_name, a.quota_bytes, a.quota_messages FROM accounts a`

// Accounts lists all accounts, by domain and local part, without their settings.
func (d *Directory) Accounts(ctx context.Context) ([]Account, error) {
	return d.accounts(ctx, accountSQL+` ORDER BY domain, local`)
}

func (d *Directory) accounts(ctx context.Context, query string, args ...any) ([]Account, error) {
	rows, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("directory: accounts: %w", err)
	}
	defer rows.Close()
	var out []Account
	for rows.Next() {
		var local, domain string
		var a Account
		var created int64
		var bytes, messages sql.NullInt64
		if err := rows.Scan(&local, &domain, &a.Enabled, &created, &a.DisplayName, &bytes, &messages); err != nil {
			return nil, err
		}
		if a.Address, err = mail.MakePath(local, domain); err != nil {
			return nil, fmt.Errorf("account %q at %q: %w", local, domain, err)
		}
		a.Created = time.Unix(created, 0)
		dom, err := d.domain(ctx, a.Address.Domain)
		if err != nil {
			return nil, err
		}
		if dom != nil {
			a.Quota = dom.Quota
		}
		if a.OwnBytes = bytes.Valid; a.OwnBytes {
			a.Bytes = bytes.Int64
		}
		if a.OwnMessages = messages.Valid; a.OwnMessages {
			a.Messages = messages.Int64
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// Account returns the account of an address, also of one with a +tag or at another name of
// the domain; ok is false if there is none.
func (d *Directory) Account(ctx context.Context, address mail.Path) (a Account, ok bool, err error) {
	name, ok, err := d.Local(ctx, address.Domain)
	if err != nil || !ok {
		return Account{}, false, err
	}
	p := mail.Path{Local: address.Local, Domain: name}.Fold()
	plain, _, _ := strings.Cut(p.Local, "+")
	found, err := d.accounts(ctx, accountSQL+` WHERE domain = ? AND local IN (?, ?) ORDER BY length(local) DESC LIMIT 1`, name.String(), p.Local, plain)
	if err != nil || len(found) == 0 {
		return Account{}, false, err
	}
	a = found[0]
	a.Settings, err = d.settings(ctx, a.Address)
	return a, err == nil, err
}

// settingKey is what keys of settings look like.
var settingKey = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,63}$`)

const maxSetting = 4096

// SetSetting sets something for an account, for those who read it under that key; "" removes
// it. What the value means is for them to know.
func (d *Directory) SetSetting(ctx context.Context, address mail.Path, key, value string) error {
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error { return c.setSetting(p, key, value) })
}

func (c *change) setSetting(p mail.Path, key, value string) error {
	switch {
	case !settingKey.MatchString(key):
		return fmt.Errorf("setting %q: a key has up to 64 of a-z, 0-9, _, - and ., and begins with a letter", key)
	case len(value) > maxSetting || !utf8.ValidString(value) || strings.ContainsAny(value, "\r\n\x00"):
		return fmt.Errorf("setting %s: a value is one line of at most %d bytes", key, maxSetting)
	}
	if _, _, err := c.verifier(p); err != nil {
		return err
	}
	if value == "" {
		return c.exec(`DELETE FROM account_settings WHERE domain = ? AND local = ? AND key = ?`, p.Domain.String(), p.Local, key)
	}
	return c.exec(`INSERT INTO account_settings (domain, local, key, value) VALUES (?, ?, ?, ?)
		ON CONFLICT (domain, local, key) DO UPDATE SET value = excluded.value`, p.Domain.String(), p.Local, key, value)
}

func (d *Directory) settings(ctx context.Context, p mail.Path) (map[string]string, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT key, value FROM account_settings WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local)
	if err != nil {
		return nil, fmt.Errorf("directory: settings: %w", err)
	}
	defer rows.Close()
	out := make(map[string]string)
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, rows.Err()
}
