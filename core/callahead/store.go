package callahead

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver

	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
)

// fact is what is known of an address.
type fact struct {
	known   bool      // it exists; false: it does not
	checked time.Time // when that was so, to the second
}

// Limits of the store.
const (
	recentFacts = 1 << 14 // kept in memory too
	batchFacts  = 1000    // written at once, if not all a second
	maxWaiting  = 10_000  // facts to be written; more are forgotten: the disk does not keep up
	flushEvery  = time.Second
	pruneTo     = 0.99 // of the most there may be, when there are more
)

// schema is of version 1 of the file; a file of another version is begun anew, for it is a
// cache.
const (
	schemaVersion = 1
	schema        = `CREATE TABLE recipients (
		domain  TEXT NOT NULL,     -- A-labels, lower case
		local   TEXT NOT NULL,     -- decoded, lower case
		known   INTEGER NOT NULL,  -- 1: it exists; 0: it does not
		checked INTEGER NOT NULL,  -- Unix seconds
		PRIMARY KEY (domain, local)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX recipients_age ON recipients (known, checked);
	CREATE TABLE domains (
		domain  TEXT NOT NULL,
		hop     TEXT NOT NULL,     -- the key of its route when it was asked
		takes   INTEGER NOT NULL,  -- 1: it takes every address
		checked INTEGER NOT NULL,
		PRIMARY KEY (domain, hop)
	) STRICT, WITHOUT ROWID;`
)

// store keeps facts in a file. What is put is seen at once and written soon.
type store struct {
	log   *slog.Logger
	max   int
	db    *sql.DB
	query *sql.Stmt

	mu      sync.Mutex
	recent  *state.Cache[mail.Path, fact]
	waiting map[mail.Path]fact
	domains map[domainKey]fact // few; known: it takes everything
	changed map[domainKey]bool
	count   int // of rows, at most

	full chan struct{} // a batch is waiting
	quit chan struct{}
	done chan struct{}
}

type domainKey struct {
	domain mail.Domain
	hop    string
}

// openStore opens the file, or makes it.
func openStore(path string, max int, log *slog.Logger) (*store, error) {
	if err := create(path); err != nil {
		return nil, err
	}
	s, err := readStore(path, "rw", log)
	if err != nil {
		// All of it can be found out again; somebody may want to look at what is left.
		log.Error("what was known of recipients cannot be read: beginning anew", "kept_as", path+".broken", "error", err)
		if err := os.Rename(path, path+".broken"); err != nil {
			return nil, err
		}
		os.Remove(path + "-wal")
		os.Remove(path + "-shm")
		if err := create(path); err != nil {
			return nil, err
		}
		if s, err = readStore(path, "rw", log); err != nil {
			return nil, err
		}
	}
	s.max = max
	s.waiting, s.changed = make(map[mail.Path]fact), make(map[domainKey]bool)
	s.full, s.quit, s.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go s.write()
	return s, nil
}

// create makes the file if it is missing; SQLite gives its other files the mode of this one.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// readStore opens the file as it is; with mode "ro" nothing can be put.
func readStore(path, mode string, log *slog.Logger) (*store, error) {
	pragmas := []string{"busy_timeout(5000)", "cache_size(-8192)"}
	if mode != "ro" {
		// A power cut may take the last facts, but not the file.
		pragmas = append(pragmas, "journal_mode(WAL)", "synchronous(NORMAL)")
	}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"mode": {mode}, "_pragma": pragmas}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	s := &store{log: log, db: db, recent: state.NewCache[mail.Path, fact](recentFacts), domains: make(map[domainKey]fact)}
	if err := s.load(context.Background(), mode != "ro"); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) load(ctx context.Context, may bool) error {
	var version int
	if err := s.db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	if version != schemaVersion && !may {
		return fmt.Errorf("has format %d, not %d", version, schemaVersion)
	}
	if version != schemaVersion {
		_, err := s.db.ExecContext(ctx, `BEGIN IMMEDIATE; DROP TABLE IF EXISTS recipients; DROP TABLE IF EXISTS domains;`+
			schema+fmt.Sprintf(`PRAGMA user_version = %d; COMMIT`, schemaVersion))
		if err != nil {
			return err
		}
	}
	if may {
		if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM recipients`).Scan(&s.count); err != nil {
			return err
		}
	}
	var err error
	if s.query, err = s.db.PrepareContext(ctx, `SELECT known, checked FROM recipients WHERE domain = ? AND local = ?`); err != nil {
		return err
	}
	return s.loadDomains(ctx)
}

func (s *store) loadDomains(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, `SELECT domain, hop, takes, checked FROM domains`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var domain, hop string
		var takes bool
		var checked int64
		if err := rows.Scan(&domain, &hop, &takes, &checked); err != nil {
			return err
		}
		if d, err := mail.ParseDomain(domain); err == nil {
			s.domains[domainKey{d, hop}] = fact{takes, time.Unix(checked, 0)}
		}
	}
	return rows.Err()
}

// get returns what is known of p, a folded address.
func (s *store) get(ctx context.Context, p mail.Path) (fact, bool, error) {
	f, ok := s.lately(p)
	if ok {
		return f, true, nil
	}
	var checked int64
	err := s.query.QueryRowContext(ctx, p.Domain.String(), p.Local).Scan(&f.known, &checked)
	if errors.Is(err, sql.ErrNoRows) {
		return fact{}, false, nil
	} else if err != nil {
		return fact{}, false, err
	}
	f.checked = time.Unix(checked, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer, ok := s.recent.Get(p); ok { // put meanwhile
		return newer, true, nil
	}
	s.recent.Set(p, f)
	return f, true, nil
}

// lately is get of what is in memory: what was put or asked for not long ago.
func (s *store) lately(p mail.Path) (fact, bool) {
	s.mu.Lock()
	f, ok := s.waiting[p]
	s.mu.Unlock()
	if ok {
		return f, true
	}
	return s.recent.Get(p)
}

// put notes what is known of p, a folded address.
func (s *store) put(p mail.Path, f fact) {
	f.checked = f.checked.Truncate(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.Set(p, f)
	if _, ok := s.waiting[p]; !ok && len(s.waiting) >= maxWaiting {
		return
	}
	s.waiting[p] = f
	if len(s.waiting) >= batchFacts {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

func (s *store) domain(k domainKey) (fact, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.domains[k]
	return f, ok
}

func (s *store) putDomain(k domainKey, f fact) {
	f.checked = f.checked.Truncate(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domains[k], s.changed[k] = f, true
}

// write writes what is waiting until the store is closed.
func (s *store) write() {
	defer close(s.done)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	failing := false
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-s.full:
		case <-s.quit:
			last = true
		}
		err := s.flush(context.Background())
		if err != nil && !failing { // it is tried again every second
			s.log.Error("what is known of recipients cannot be written", "error", err)
		}
		failing = err != nil
	}
}

// flush writes what is waiting, and makes room. Only write calls it.
func (s *store) flush(ctx context.Context) error {
	s.mu.Lock()
	facts, domains := maps.Clone(s.waiting), make(map[domainKey]fact, len(s.changed))
	for k := range s.changed {
		domains[k] = s.domains[k]
	}
	s.mu.Unlock()
	if len(facts) == 0 && len(domains) == 0 {
		return nil
	}
	if err := s.save(ctx, facts, domains); err != nil {
		return err
	}
	s.mu.Lock()
	for p, f := range facts {
		if s.waiting[p] == f {
			delete(s.waiting, p)
		}
	}
	for k, f := range domains {
		if s.domains[k] == f {
			delete(s.changed, k)
		}
	}
	s.mu.Unlock()
	if s.count += len(facts); s.count > s.max {
		return s.prune(ctx)
	}
	return nil
}

func (s *store) save(ctx context.Context, facts map[mail.Path]fact, domains map[domainKey]fact) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	put, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO recipients (domain, local, known, checked) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer put.Close()
	for p, f := range facts {
		if _, err := put.ExecContext(ctx, p.Domain.String(), p.Local, f.known, f.checked.Unix()); err != nil {
			return err
		}
	}
	for k, f := range domains {
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO domains (domain, hop, takes, checked) VALUES (?, ?, ?, ?)`,
			k.domain.String(), k.hop, f.known, f.checked.Unix()); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// prune removes the oldest facts if there are too many: those of addresses that do not exist
// first, for whoever guesses makes many of them.
func (s *store) prune(ctx context.Context) error {
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM recipients`).Scan(&s.count); err != nil || s.count <= s.max {
		return err
	}
	excess := s.count - int(float64(s.max)*pruneTo)
	_, err := s.db.ExecContext(ctx, `DELETE FROM recipients WHERE (domain, local) IN (
		SELECT domain, local FROM recipients ORDER BY known, checked LIMIT ?)`, excess)
	if err == nil {
		s.count -= excess
	}
	return err
}

// close writes what is waiting and closes the file.
func (s *store) close() error {
	if s.quit != nil {
		close(s.quit)
		<-s.done
	}
	return s.db.Close()
}
