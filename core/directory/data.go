package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/sdk/mail"
)

// Datum is a piece of data that a plugin keeps about an account: a script, a setting.
type Datum struct {
	Account mail.Path
	Key     string
	Value   []byte // not in lists
	Version int64  // grows with every change; 0: there is none
	Size    int64  // in bytes
}

// AnyVersion is for changes whatever there is.
const AnyVersion int64 = -1

// maxData is how many keys one plugin may have about one account.
const maxData = 1000

var (
	// ErrConflict: the data has another version than the change is meant for.
	ErrConflict = errors.New("directory: data has been changed meanwhile")
	// ErrTooMuchData: there are too many keys about the account.
	ErrTooMuchData error = mail.Permanent(552, 2, 2, "Too much data about this account")
)

// GetData reads what a plugin keeps about an account. If there is nothing, Version is 0.
func (d *Directory) GetData(ctx context.Context, plugin string, account mail.Path, key string) (Datum, error) {
	p, err := d.canonical(ctx, account)
	if err != nil {
		return Datum{}, notLocal(err)
	}
	got := Datum{Account: p, Key: key}
	err = d.db.QueryRowContext(ctx, `SELECT value, version FROM account_data WHERE plugin = ? AND domain = ? AND local = ? AND key = ?`,
		plugin, p.Domain.String(), p.Local, key).Scan(&got.Value, &got.Version)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Datum{}, fmt.Errorf("directory: data of %s: %w", p, err)
	}
	got.Size = int64(len(got.Value))
	return got, nil
}

// notLocal makes an answer of the error that a domain is not ours.
func notLocal(err error) error {
	if errors.Is(err, ErrUnknown) {
		return ErrNotLocal
	}
	return err
}

// PutData writes what a plugin keeps about an address of ours, or with a nil value removes
// it, if its version is the one given (0: there is none yet), and returns the new version.
// ErrConflict comes with the version that there is.
func (d *Directory) PutData(ctx context.Context, plugin string, account mail.Path, key string, value []byte, version int64) (int64, error) {
	p, err := d.canonical(ctx, account)
	if err != nil {
		return 0, notLocal(err)
	}
	var next int64
	err = d.change(ctx, func(tx *sql.Tx) error {
		var now int64
		err := tx.QueryRowContext(ctx, `SELECT version FROM account_data WHERE plugin = ? AND domain = ? AND local = ? AND key = ?`,
			plugin, p.Domain.String(), p.Local, key).Scan(&now)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if version != AnyVersion && version != now {
			next = now
			return ErrConflict
		}
		if value == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM account_data WHERE plugin = ? AND domain = ? AND local = ? AND key = ?`,
				plugin, p.Domain.String(), p.Local, key)
			return err
		}
		if now == 0 {
			if err := d.room(ctx, tx, plugin, p); err != nil {
				return err
			}
		}
		// The clock makes versions grow also over a removal; whoever holds an old version
		// must not win.
		next = max(now+1, d.clock().UnixNano())
		_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO account_data (plugin, domain, local, key, version, value) VALUES (?, ?, ?, ?, ?, ?)`,
			plugin, p.Domain.String(), p.Local, key, next, value)
		return err
	})
	return next, err
}

func (d *Directory) room(ctx context.Context, tx *sql.Tx, plugin string, p mail.Path) error {
	var n int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM account_data WHERE plugin = ? AND domain = ? AND local = ?`,
		plugin, p.Domain.String(), p.Local).Scan(&n)
	if err == nil && n >= maxData {
		err = ErrTooMuchData
	}
	return err
}

// ListData lists what a plugin keeps about an account (the zero Path: about all), in order
// of account and key, without the values: those whose key begins with prefix, after one, at
// most max.
func (d *Directory) ListData(ctx context.Context, plugin string, account mail.Path, prefix string, after Datum, max int) ([]Datum, error) {
	query := `SELECT domain, local, key, version, length(value) FROM account_data
		WHERE plugin = ? AND substr(key, 1, length(?)) = ? AND (domain, local, key) > (?, ?, ?)`
	args := []any{plugin, prefix, prefix, after.Account.Domain.String(), after.Account.Fold().Local, after.Key}
	if !account.IsZero() {
		p, err := d.canonical(ctx, account)
		if err != nil {
			return nil, notLocal(err)
		}
		query += ` AND domain = ? AND local = ?`
		args = append(args, p.Domain.String(), p.Local)
	}
	rows, err := d.db.QueryContext(ctx, query+` ORDER BY domain, local, key LIMIT ?`, append(args, max)...)
	if err != nil {
		return nil, fmt.Errorf("directory: data: %w", err)
	}
	defer rows.Close()
	var out []Datum
	for rows.Next() {
		var domain, local string
		var one Datum
		if err := rows.Scan(&domain, &local, &one.Key, &one.Version, &one.Size); err != nil {
			return nil, err
		}
		if one.Account, err = mail.MakePath(local, domain); err != nil {
			continue // not written by us
		}
		out = append(out, one)
	}
	return out, rows.Err()
}
