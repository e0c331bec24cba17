package callahead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// Remembered answers from the file of a gateway, which may be running, without asking anybody and
// without changing anything: for who wants to try something. An address of which nothing is
// known is taken.
type Remembered struct {
	store *store // nil: there is no file
	rules Rules
	clock func() time.Time
}

// Remember opens the file; that there is none is no error.
func Remember(path string, r Rules, clock func() time.Time) (*Remembered, error) {
	m := &Remembered{rules: r, clock: clock}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	var err error
	if m.store, err = readStore(path, "ro", slog.New(slog.DiscardHandler)); err != nil {
		return nil, fmt.Errorf("callahead: %s: %w", path, err)
	}
	return m, nil
}

// Close closes the file.
func (m *Remembered) Close() error {
	if m.store == nil {
		return nil
	}
	return m.store.close()
}

// Recipient says whether mail for p is taken.
func (m *Remembered) Recipient(ctx context.Context, _ *mail.Client, p mail.Path) mail.Status {
	if m.store == nil {
		return mail.Status{}
	}
	if takes, ok := m.store.domain(domainKey{p.Domain, m.rules.Domains[p.Domain].Key}); ok && takes.known {
		return mail.Status{}
	}
	f, ok, err := m.store.get(ctx, p.Fold())
	if err != nil {
		return mail.StatusOf(err)
	}
	s, _ := m.rules.answer(f, ok, m.clock())
	return s
}
