package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// Copy writes what the file at path holds now to a new file, to be opened like any other: for
// who wants to try something without changing anything. A gateway may be using the file
// meanwhile; nothing of it is changed. The error wraps [os.ErrNotExist] if there is no file.
func Copy(ctx context.Context, path, to string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if err := create(to); err != nil { // with its mode, before anything is in it
		return fmt.Errorf("directory: %w", err)
	}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("directory: copy of %s: %w", path, err)
	}
	return nil
}
