package directory

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
)

// migrations bring a file from version n to n+1; they are never changed once released.
var migrations = [...]string{
	`CREATE TABLE domains (
		name     TEXT NOT NULL PRIMARY KEY,      -- A-labels, lower case
		alias_of TEXT REFERENCES domains (name)  -- NULL: a domain of its own
	) STRICT, WITHOUT ROWID;
	CREATE TABLE accounts (
		domain     TEXT NOT NULL,
		local      TEXT NOT NULL,                -- decoded, lower case
		enabled    INTEGER NOT NULL DEFAULT 1,
		created    INTEGER NOT NULL,             -- Unix seconds
		salt       BLOB NOT NULL,                -- SCRAM-SHA-256, RFC 5802 section 3
		iterations INTEGER NOT NULL,
		stored_key BLOB NOT NULL,
		server_key BLOB NOT NULL,
		PRIMARY KEY (domain, local)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE aliases (
		domain TEXT NOT NULL,
		local  TEXT NOT NULL,                    -- decoded, lower case; '' is the catch-all
		target TEXT NOT NULL,                    -- an address as on the wire
		PRIMARY KEY (domain, local, target)
	) STRICT, WITHOUT ROWID;`,
	`CREATE TABLE account_data (
		plugin  TEXT NOT NULL,                   -- whose it is: its name in the configuration
		domain  TEXT NOT NULL,
		local   TEXT NOT NULL,                   -- decoded, lower case
		key     TEXT NOT NULL,
		version INTEGER NOT NULL,                -- grows with every change, also over removals
		value   BLOB NOT NULL,
		PRIMARY KEY (plugin, domain, local, key)
	) STRICT;`,
	`CREATE TABLE allowed_senders (
		sender TEXT NOT NULL,                    -- a reverse-path, lower case; or "@" and a domain
		domain TEXT NOT NULL,                    -- whose mail: of this domain
		local  TEXT NOT NULL,                    -- decoded, lower case; '' is the whole domain
		added  INTEGER NOT NULL,                 -- Unix seconds
		PRIMARY KEY (sender, domain, local)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE times (
		name TEXT NOT NULL PRIMARY KEY,          -- of what the gateway does now and then
		at   INTEGER NOT NULL                    -- up to when that is done, Unix seconds
	) STRICT, WITHOUT ROWID;`,
	`ALTER TABLE domains ADD COLUMN deliver        TEXT NOT NULL DEFAULT '';  -- next hops, one a line
	ALTER TABLE domains ADD COLUMN recipients     TEXT NOT NULL DEFAULT '';  -- as the configuration has it
	ALTER TABLE domains ADD COLUMN directory      TEXT NOT NULL DEFAULT '';  -- a plugin
	ALTER TABLE domains ADD COLUMN planner        TEXT NOT NULL DEFAULT '';  -- a plugin
	ALTER TABLE domains ADD COLUMN postmaster     TEXT NOT NULL DEFAULT '';  -- an address as on the wire
	ALTER TABLE domains ADD COLUMN quota_bytes    INTEGER NOT NULL DEFAULT 0; -- of an account; 0: no limit
	ALTER TABLE domains ADD COLUMN quota_messages INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE accounts ADD COLUMN display_name   TEXT NOT NULL DEFAULT '';
	ALTER TABLE accounts ADD COLUMN quota_bytes    INTEGER;                   -- NULL: as the domain has it
	ALTER TABLE accounts ADD COLUMN quota_messages INTEGER;
	CREATE TABLE app_passwords (
		domain     TEXT NOT NULL,
		local      TEXT NOT NULL,                -- decoded, lower case
		name       TEXT NOT NULL,
		created    INTEGER NOT NULL,             -- Unix seconds
		used       INTEGER NOT NULL DEFAULT 0,   -- about when last, Unix seconds; 0: never
		stored_key BLOB NOT NULL,                -- with salt and iterations of the account
		server_key BLOB NOT NULL,
		PRIMARY KEY (domain, local, name)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE account_settings (
		domain TEXT NOT NULL,
		local  TEXT NOT NULL,                    -- decoded, lower case
		key    TEXT NOT NULL,
		value  TEXT NOT NULL,
		PRIMARY KEY (domain, local, key)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE groups (                        -- its members are in aliases
		domain  TEXT NOT NULL,
		local   TEXT NOT NULL,                   -- decoded, lower case
		senders TEXT NOT NULL,                   -- who may send to it: anyone, authenticated, members
		PRIMARY KEY (domain, local)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE rewrites (
		kind      TEXT NOT NULL,                 -- of which addresses: sender, recipient
		domain    TEXT NOT NULL,
		local     TEXT NOT NULL,                 -- decoded, lower case; '' is every local part
		to_domain TEXT NOT NULL,
		to_local  TEXT NOT NULL,                 -- decoded; '' keeps the local part
		PRIMARY KEY (kind, domain, local)
	) STRICT, WITHOUT ROWID;
	CREATE TABLE secrets (
		name  TEXT NOT NULL PRIMARY KEY,         -- what it is for
		value BLOB NOT NULL                      -- random
	) STRICT, WITHOUT ROWID;`,
}

// The questions asked for every recipient and log-in. With IN in the place of UNION the first
// would take several times as long.
const (
	lookupSQL = `SELECT 0, local, enabled, '' FROM accounts WHERE domain = ?1 AND local = ?2
		UNION ALL SELECT 1, local, 1, target FROM aliases WHERE domain = ?1 AND local = ?2
		UNION ALL SELECT 1, local, 1, target FROM aliases WHERE domain = ?1 AND local = ''
		UNION ALL SELECT 2, local, 1, senders FROM groups WHERE domain = ?1 AND local = ?2`
	verifierSQL = `SELECT a.salt, a.iterations, a.stored_key, a.server_key, p.name, p.stored_key, p.server_key
		FROM accounts a LEFT JOIN app_passwords p ON p.domain = a.domain AND p.local = a.local
		WHERE a.domain = ? AND a.local = ? AND a.enabled = 1`
)

func (d *Directory) open(path string) error {
	// WAL lets the command line write while the gateway reads; FULL makes a commit durable.
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "cache_size(-8192)"},
		"_txlock": {"immediate"},
	}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	d.db = db
	db.SetMaxOpenConns(8) // each has a page cache of at most 8 MiB
	db.SetMaxIdleConns(8)
	ctx := context.Background()
	if err := migrate(ctx, db); err != nil {
		return err
	}
	if err := d.watch.open(ctx, db); err != nil {
		return err
	}
	if d.lookup, err = db.PrepareContext(ctx, lookupSQL); err != nil {
		return err
	}
	d.verifier, err = db.PrepareContext(ctx, verifierSQL)
	return err
}

// migrate brings the file to the newest version, in one transaction.
func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)`); err != nil {
		return err
	}
	var version int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("was written by a newer version of the gateway (format %d, this one knows %d)", version, len(migrations))
	}
	if version == len(migrations) {
		return nil
	}
	for _, m := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return fmt.Errorf("bringing it up to date: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version) VALUES (?)`, len(migrations)); err != nil {
		return err
	}
	return tx.Commit()
}
