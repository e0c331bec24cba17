package directory

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how long a change made by another process may go unseen. Asking SQLite each
// time would cost more than most answers do. Who changes something and closes the file waits
// as long (settle), so that a command that has ended is in force everywhere.
const checkEvery = 10 * time.Millisecond

// watcher notices that the file was changed, by this process or another, and numbers its
// versions. It has a connection of its own, because PRAGMA data_version tells a connection
// only about the changes of others.
type watcher struct {
	clock      func() time.Time
	generation atomic.Int64
	checked    atomic.Int64 // Unix nanoseconds of the last check
	written    atomic.Int64 // Unix nanoseconds of the last change by this process

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
func (w *watcher) changed() {
	w.generation.Add(1)
	w.written.Store(time.Now().UnixNano())
}

// settle returns when all other processes see the changes of this one.
func (w *watcher) settle() {
	if left := checkEvery - time.Since(time.Unix(0, w.written.Load())); left > 0 {
		time.Sleep(min(left, checkEvery))
	}
}

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
