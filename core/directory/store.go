package directory

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
)

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

// isConstraint reports whether err says that a row is there already.
func isConstraint(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == 19 // SQLITE_CONSTRAINT
}

// secretSize is the length of secrets, in bytes.
const secretSize = 32

// Secret returns random bytes that are this installation's own and always the same for a
// purpose: a key, say. They are made when they are asked for first.
func (d *Directory) Secret(ctx context.Context, name string) ([]byte, error) {
	fresh := make([]byte, secretSize)
	rand.Read(fresh) // never fails
	var value []byte
	read := func() error {
		return d.db.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = ?`, name).Scan(&value)
	}
	err := read()
	if errors.Is(err, sql.ErrNoRows) {
		if _, err = d.exec(ctx, `INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`, name, fresh); err == nil {
			err = read()
		}
	}
	if err == nil && len(value) != secretSize {
		err = errors.New("is damaged")
	}
	if err != nil {
		return nil, fmt.Errorf("directory: secret %s: %w", name, err)
	}
	return value, nil
}
