package directory

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/sdk/mail"
)

// AppPassword is a further password of an account, for one device or program.
type AppPassword struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"` // when about it was used last; zero: never
}

// maxAppPasswords is how many an account may have: a log-in is compared with each.
const maxAppPasswords = 50

// AddAppPassword makes a further password for an account and returns it. It is kept as a
// verifier only: nobody can be told it again.
func (d *Directory) AddAppPassword(ctx context.Context, address mail.Path, name string) (string, error) {
	if name == "" {
		return "", errors.New("an app password needs a name")
	}
	if err := checkName("the name of an app password", name); err != nil {
		return "", err
	}
	password := newPassword()
	return password, d.onAccount(ctx, address, func(c *change, p mail.Path) error {
		v, apps, err := c.verifier(p)
		if err != nil {
			return err
		}
		if apps >= maxAppPasswords {
			return fmt.Errorf("has %d app passwords; revoke one first", apps)
		}
		key, err := v.Key(password)
		if err != nil {
			return err
		}
		return about("app password "+name, c.exec(`INSERT INTO app_passwords (domain, local, name, created, stored_key, server_key) VALUES (?, ?, ?, ?, ?, ?)`,
			p.Domain.String(), p.Local, name, d.clock().Unix(), key.StoredKey, key.ServerKey))
	})
}

// newPassword has 100 random bits, in a form that people can type.
func newPassword() string {
	t := strings.ToLower(rand.Text())
	return t[:5] + "-" + t[5:10] + "-" + t[10:15] + "-" + t[15:20]
}

// RevokeAppPassword ends one; the others, and the account's password, stay.
func (d *Directory) RevokeAppPassword(ctx context.Context, address mail.Path, name string) error {
	return d.onAccount(ctx, address, func(c *change, p mail.Path) error {
		return about("app password "+name, c.hit(`DELETE FROM app_passwords WHERE domain = ? AND local = ? AND name = ?`, p.Domain.String(), p.Local, name))
	})
}

// AppPasswords lists those of an account by name.
func (d *Directory) AppPasswords(ctx context.Context, address mail.Path) ([]AppPassword, error) {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return nil, err
	}
	rows, err := d.db.QueryContext(ctx, `SELECT name, created, used FROM app_passwords WHERE domain = ? AND local = ? ORDER BY name`, p.Domain.String(), p.Local)
	if err != nil {
		return nil, fmt.Errorf("directory: app passwords: %w", err)
	}
	defer rows.Close()
	var out []AppPassword
	for rows.Next() {
		var a AppPassword
		var created, used int64
		if err := rows.Scan(&a.Name, &created, &used); err != nil {
			return nil, err
		}
		a.Created = time.Unix(created, 0).UTC()
		if used > 0 {
			a.Used = time.Unix(used, 0).UTC()
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// usedEvery is how exactly the last use of an app password is noted: a mail program logs in
// every few minutes, and each note is a write.
const usedEvery = 15 * time.Minute

// AppPasswordUsed notes that an account has just logged in with one.
func (d *Directory) AppPasswordUsed(ctx context.Context, account, name string) error {
	p, err := mail.ParsePath(account)
	if err != nil {
		return err
	}
	now := d.clock()
	var due bool
	err = d.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM app_passwords WHERE domain = ? AND local = ? AND name = ? AND used <= ?)`,
		p.Domain.String(), p.Local, name, now.Add(-usedEvery).Unix()).Scan(&due)
	if err != nil || !due {
		return err
	}
	_, err = d.exec(ctx, `UPDATE app_passwords SET used = ? WHERE domain = ? AND local = ? AND name = ?`, now.Unix(), p.Domain.String(), p.Local, name)
	return about("app password "+name, err)
}

// Verifier returns the verifiers of the account that a login names; ok is false if there is
// none, or if it is disabled. Aliases, groups and tags do not log in; aliases of the domain
// do.
func (d *Directory) Verifier(ctx context.Context, login mail.Path) (v auth.Verifier, ok bool, err error) {
	name, local, err := d.Local(ctx, login.Domain)
	if err != nil {
		return auth.Verifier{}, false, err
	}
	// The question is asked even if it has no answer: unknown domains take as long.
	account := mail.Path{Local: login.Local, Domain: name}.Fold()
	rows, err := d.verifier.QueryContext(ctx, name.String(), account.Local)
	if err != nil {
		return auth.Verifier{}, false, err
	}
	defer rows.Close()
	for rows.Next() && local {
		var app *string
		var key auth.Key
		if err := rows.Scan(&v.Salt, &v.Iterations, &v.StoredKey, &v.ServerKey, &app, &key.StoredKey, &key.ServerKey); err != nil {
			return auth.Verifier{}, false, err
		}
		v.Account, ok = account.String(), true
		if app != nil {
			key.Name = *app
			v.Apps = append(v.Apps, key)
		}
	}
	return v, ok, rows.Err()
}
