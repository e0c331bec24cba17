package directory

import (
	"context"
	"database/sql"
	"sync"

	"github.com/postern-mail/postern/sdk/mail"
)

// watcher notices that the file was changed, by this process or another. It has a
// connection of its own, because PRAGMA data_version tells a connection only about the
// changes of others.
type watcher struct {
	mu      sync.Mutex
	conn    *sql.Conn
	version *sql.Stmt
}

func (w *watcher) open(ctx context.Context, db *sql.DB) error {
	var err error
	if w.conn, err = db.Conn(ctx); err != nil {
		return err
	}
	w.version, err = w.conn.PrepareContext(ctx, `PRAGMA data_version`)
	return err
}

func (w *watcher) close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}

// current returns a number that differs after every change.
func (w *watcher) current(ctx context.Context) (n int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err = w.version.QueryRowContext(ctx).Scan(&n)
	return n, err
}

// storedDomains are the domains of one version of the file; they are few and asked for often.
type storedDomains struct {
	version int64
	names   map[mail.Domain]mail.Domain // name or alias -> name
}

func (d *Directory) storedDomains(ctx context.Context) (*storedDomains, error) {
	version, err := d.watch.current(ctx)
	if err != nil {
		return nil, err
	}
	if s := d.stored.Load(); s != nil && s.version == version {
		return s, nil
	}
	rows, err := d.db.QueryContext(ctx, `SELECT name, coalesce(alias_of, name) FROM domains`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	s := &storedDomains{version, make(map[mail.Domain]mail.Domain)}
	for rows.Next() {
		var name, of string
		if err := rows.Scan(&name, &of); err != nil {
			return nil, err
		}
		n, err := mail.ParseDomain(name)
		if err != nil {
			continue // not written by us; nobody can ask for it
		}
		if o, err := mail.ParseDomain(of); err == nil {
			s.names[n] = o
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	d.stored.Store(s)
	return s, nil
}
