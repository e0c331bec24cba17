package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/sdk/mail"
)

// Item is one thing of many to be added together: one of its parts is there.
type Item struct {
	Line    int // where it is from, for errors
	Account *NewAccount
	Alias   *Alias
	Group   *Group
	Domain  *Domain
}

// NewAccount is an account to be added.
type NewAccount struct {
	Address       mail.Path
	Password      string // "": it receives mail and cannot log in
	DisplayName   string
	Disabled      bool
	QuotaBytes    *int64 // nil: as the domain has it
	QuotaMessages *int64
	Settings      map[string]string
}

// maxImportErrors is how many problems are told at once.
const maxImportErrors = 50

// Import adds all items or none: an error names the lines of those that cannot be added. They
// may refer to each other in any order. dry: none is added in any case.
func (d *Directory) Import(ctx context.Context, items []Item, dry bool) error {
	verifiers, err := deriveAll(ctx, items)
	if err != nil {
		return err
	}
	errDry := errors.New("dry run")
	err = d.change(ctx, func(tx *sql.Tx) error {
		c := &change{ctx: ctx, d: d, tx: tx}
		var problems []error
		problem := func(line int, err error) bool {
			if err != nil {
				problems = append(problems, fmt.Errorf("line %d: %w", line, err))
			}
			return len(problems) >= maxImportErrors
		}
		lines := make(map[mail.Path]int)
		for i, it := range items {
			p, err := c.add(it, verifiers[i])
			lines[p] = it.Line
			if problem(it.Line, err) {
				break
			}
		}
		done := make(map[mail.Path]bool)
		for _, p := range c.suspects {
			if len(problems) >= maxImportErrors {
				break
			}
			if !done[p] {
				done[p] = true
				problem(lines[p], about(pattern(p), c.checkAlias(p)))
			}
		}
		if len(problems) == 0 && dry {
			return errDry
		}
		return errors.Join(problems...)
	})
	if err == errDry {
		return nil
	}
	return err
}

// deriveAll makes the verifiers of all accounts, which takes a while.
func deriveAll(ctx context.Context, items []Item) ([]auth.Verifier, error) {
	out := make([]auth.Verifier, len(items))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, it := range items {
		if it.Account == nil {
			continue
		}
		if it.Account.Password == "" {
			out[i] = auth.NoPassword()
			continue
		}
		g.Go(func() (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if out[i], err = auth.NewVerifier("", it.Account.Password); err != nil {
				return fmt.Errorf("line %d: %w", it.Line, err)
			}
			return nil
		})
	}
	return out, g.Wait()
}

// add adds one item, and returns its address as it is stored.
func (c *change) add(it Item, v auth.Verifier) (mail.Path, error) {
	if it.Domain != nil {
		return mail.Path{Domain: it.Domain.Name}, about("domain "+it.Domain.Name.String(), c.addDomain(it.Domain))
	}
	address := mail.Path{}
	switch {
	case it.Account != nil:
		address = it.Account.Address
	case it.Alias != nil:
		address = it.Alias.Address
	case it.Group != nil:
		address = it.Group.Address
	}
	p, err := c.d.canonical(c.ctx, address)
	if err != nil {
		return p, err
	}
	switch {
	case it.Account != nil:
		err = about("account "+p.String(), c.addNew(p, it.Account, v))
	case it.Alias != nil:
		err = about("alias "+pattern(p), c.addAlias(p, it.Alias.Targets))
	case it.Group != nil:
		err = about("group "+p.String(), c.addGroup(p, it.Group.Senders, it.Group.Members))
	}
	return p, err
}

func (c *change) addNew(p mail.Path, a *NewAccount, v auth.Verifier) error {
	if err := c.addAccount(p, v); err != nil {
		return err
	}
	if err := c.setQuota(p, a.QuotaBytes, a.QuotaMessages); err != nil {
		return err
	}
	if err := c.setDisplayName(p, a.DisplayName); err != nil {
		return err
	}
	if a.Disabled {
		if err := c.hit(`UPDATE accounts SET enabled = 0 WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local); err != nil {
			return err
		}
	}
	for k, value := range a.Settings {
		if err := c.setSetting(p, k, value); err != nil {
			return err
		}
	}
	return nil
}
