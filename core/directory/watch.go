package directory

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// checkEvery is how long a change made by another process may go unseen. Asking SQLite each
// time would cost more than most answers do.
const checkEvery = 100 * time.Millisecond

// watcher notices that the file was changed, by this process or another, and numbers its
// versions. It has a connection of its own, because PRAGMA data_version tells a connection
// only about the changes of others.
type watcher struct {
	clock      func() time.Time
	generation atomic.Int64
	checked    atomic.Int64 // Unix nanoseconds of the last check

	mu      sync.Mutex
	conn    *sql.Conn
	query   *sql.Stmt
	version int64
}

func (w *watcher) open(ctx context.Context, db *sql.DB) error {
	var err error
	if w.conn, err = db.Conn(ctx); err != nil {
		return err
	}
	w.query, err = w.conn.PrepareContext(ctx, `PRAGMA data_version`)
	return err
}

func (w *watcher) close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}

// changed says that this process changed the file.
func (w *watcher) changed() { w.generation.Add(1) }

// current returns the number of the present version. What was read after the call is at
// least as new.
func (w *watcher) current(ctx context.Context) (int64, error) {
	now := w.clock().UnixNano()
	if since := now - w.checked.Load(); since >= 0 && since < int64(checkEvery) {
		return w.generation.Load(), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var version int64
	if err := w.query.QueryRowContext(ctx).Scan(&version); err != nil {
		return 0, err
	}
	if version != w.version {
		w.version = version
		w.generation.Add(1)
	}
	w.checked.Store(now)
	return w.generation.Load(), nil
}

// storedDomains are the domains of one version of the file; they are few and asked for
// often.
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
