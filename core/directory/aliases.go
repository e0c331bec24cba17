package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/postern-mail/postern/sdk/mail"
)

// Alias is an address that stands for others. An Address with an empty local part is the
// catch-all of its domain.
type Alias struct {
	Address mail.Path   `json:"address"`
	Targets []mail.Path `json:"targets"`
}

// Group is an address whose members each get a copy of what is sent there.
type Group struct {
	Address mail.Path   `json:"address"`
	Senders Senders     `json:"senders"`
	Members []mail.Path `json:"members"`
}

// Senders says who may send to a group.
type Senders string

// Who may send to a group. Who has logged in is known; of others the reverse-path is all
// that is known, and it counts only where a member has no account here to log in to.
const (
	SendersAnyone        Senders = "anyone"
	SendersAuthenticated Senders = "authenticated" // who logged in, and relay networks
	SendersMembers       Senders = "members"
)

func (s Senders) check() error {
	if !slices.Contains([]Senders{SendersAnyone, SendersAuthenticated, SendersMembers}, s) {
		return fmt.Errorf("%q is not who may send: it is anyone, authenticated or members", string(s))
	}
	return nil
}

// AddAlias lets address stand for targets, in addition to those it has. A target may be
// anywhere, and may be the address itself where the account there shall get a copy. A target
// of ours that does not exist is an error, and so is what leads back to the alias.
func (d *Directory) AddAlias(ctx context.Context, address mail.Path, targets ...mail.Path) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("alias "+pattern(p), d.transact(ctx, func(c *change) error { return c.addAlias(p, targets) }))
}

func (c *change) addAlias(p mail.Path, targets []mail.Path) error {
	if len(targets) == 0 {
		return errors.New("an alias needs a target")
	}
	if is, err := c.isGroup(p); err != nil || is {
		return errors.Join(err, fmt.Errorf("a group of that address %w", ErrExists))
	}
	return c.addTargets(p, targets)
}

func (c *change) addTargets(p mail.Path, targets []mail.Path) error {
	for _, t := range targets {
		if t.Local == "" || t.Domain.IsZero() {
			return errors.New("a target needs a local part and a domain")
		}
		if err := c.exec(`INSERT INTO aliases (domain, local, target) VALUES (?, ?, ?)`, p.Domain.String(), p.Local, t.String()); err != nil {
			return about(t.String(), err)
		}
	}
	c.suspects = append(c.suspects, p)
	return nil
}

func (c *change) isGroup(p mail.Path) (is bool, err error) {
	err = c.tx.QueryRowContext(c.ctx, `SELECT EXISTS (SELECT 1 FROM groups WHERE domain = ? AND local = ?)`, p.Domain.String(), p.Local).Scan(&is)
	return is, err
}

// RemoveAlias removes targets of an alias; without targets all of them.
func (d *Directory) RemoveAlias(ctx context.Context, address mail.Path, targets ...mail.Path) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("alias "+pattern(p), d.transact(ctx, func(c *change) error {
		if is, err := c.isGroup(p); err != nil || is {
			return errors.Join(err, errors.New("is a group"))
		}
		return c.removeTargets(p, targets)
	}))
}

func (c *change) removeTargets(p mail.Path, targets []mail.Path) error {
	if len(targets) == 0 {
		return c.hit(`DELETE FROM aliases WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local)
	}
	for _, t := range targets {
		if err := c.hit(`DELETE FROM aliases WHERE domain = ? AND local = ? AND lower(target) = lower(?)`, p.Domain.String(), p.Local, t.String()); err != nil {
			return about(t.String(), err)
		}
	}
	return nil
}

// AddGroup makes a group. Members are checked as the targets of an alias are; there may be
// none yet. An account of the same address is an error.
func (d *Directory) AddGroup(ctx context.Context, address mail.Path, senders Senders, members ...mail.Path) error {
	return d.onGroup(ctx, address, func(c *change, p mail.Path) error { return c.addGroup(p, senders, members) })
}

func (d *Directory) onGroup(ctx context.Context, address mail.Path, f func(c *change, p mail.Path) error) error {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return err
	}
	return about("group "+p.String(), d.transact(ctx, func(c *change) error { return f(c, p) }))
}

func (c *change) addGroup(p mail.Path, senders Senders, members []mail.Path) error {
	if p.Local == "" {
		return errors.New("a group needs a local part")
	}
	if err := senders.check(); err != nil {
		return err
	}
	for _, other := range []struct{ table, what string }{{"accounts", "an account"}, {"groups", "a group"}, {"aliases", "an alias"}} {
		var is bool
		err := c.tx.QueryRowContext(c.ctx, `SELECT EXISTS (SELECT 1 FROM `+other.table+` WHERE domain = ? AND local = ?)`, p.Domain.String(), p.Local).Scan(&is)
		if err != nil {
			return err
		}
		if is {
			return fmt.Errorf("%s of that address %w", other.what, ErrExists)
		}
	}
	if err := c.exec(`INSERT INTO groups (domain, local, senders) VALUES (?, ?, ?)`, p.Domain.String(), p.Local, string(senders)); err != nil {
		return err
	}
	return c.addTargets(p, members)
}

// SetGroupSenders says who may send to a group from now on.
func (d *Directory) SetGroupSenders(ctx context.Context, address mail.Path, senders Senders) error {
	if err := senders.check(); err != nil {
		return err
	}
	return d.onGroup(ctx, address, func(c *change, p mail.Path) error {
		return c.hit(`UPDATE groups SET senders = ? WHERE domain = ? AND local = ?`, string(senders), p.Domain.String(), p.Local)
	})
}

// AddMembers adds members to a group.
func (d *Directory) AddMembers(ctx context.Context, address mail.Path, members ...mail.Path) error {
	return d.onGroup(ctx, address, func(c *change, p mail.Path) error {
		if is, err := c.isGroup(p); err != nil || !is {
			return errors.Join(err, ErrUnknown)
		}
		return c.addTargets(p, members)
	})
}

// RemoveMembers removes members of a group, which stays, even without any.
func (d *Directory) RemoveMembers(ctx context.Context, address mail.Path, members ...mail.Path) error {
	return d.onGroup(ctx, address, func(c *change, p mail.Path) error {
		if is, err := c.isGroup(p); err != nil || !is || len(members) == 0 {
			return errors.Join(err, ErrUnknown)
		}
		return c.removeTargets(p, members)
	})
}

// RemoveGroup removes a group.
func (d *Directory) RemoveGroup(ctx context.Context, address mail.Path) error {
	return d.onGroup(ctx, address, func(c *change, p mail.Path) error {
		if err := c.hit(`DELETE FROM groups WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local); err != nil {
			return err
		}
		return c.exec(`DELETE FROM aliases WHERE domain = ? AND local = ?`, p.Domain.String(), p.Local)
	})
}

// Aliases lists all aliases, by domain and local part.
func (d *Directory) Aliases(ctx context.Context) ([]Alias, error) {
	return d.aliases(ctx, `SELECT local, domain, target FROM aliases a
		WHERE NOT EXISTS (SELECT 1 FROM groups g WHERE g.domain = a.domain AND g.local = a.local) ORDER BY domain, local, target`)
}

// Groups lists all groups, by domain and local part.
func (d *Directory) Groups(ctx context.Context) ([]Group, error) {
	members, err := d.aliases(ctx, `SELECT local, domain, target FROM aliases a
		WHERE EXISTS (SELECT 1 FROM groups g WHERE g.domain = a.domain AND g.local = a.local) ORDER BY domain, local, target`)
	if err != nil {
		return nil, err
	}
	of := make(map[mail.Path][]mail.Path, len(members))
	for _, a := range members {
		of[a.Address] = a.Targets
	}
	rows, err := d.db.QueryContext(ctx, `SELECT local, domain, senders FROM groups ORDER BY domain, local`)
	if err != nil {
		return nil, fmt.Errorf("directory: groups: %w", err)
	}
	defer rows.Close()
	var out []Group
	for rows.Next() {
		var local, domain, senders string
		if err := rows.Scan(&local, &domain, &senders); err != nil {
			return nil, err
		}
		p, err := mail.MakePath(local, domain)
		if err != nil {
			return nil, fmt.Errorf("group %q at %q: %w", local, domain, err)
		}
		out = append(out, Group{p, Senders(senders), of[p]})
	}
	return out, rows.Err()
}

// LeadingTo lists the aliases and groups that name an address of ours themselves, by domain
// and local part.
func (d *Directory) LeadingTo(ctx context.Context, address mail.Path) ([]mail.Path, error) {
	p, err := d.canonical(ctx, address)
	if err != nil {
		return nil, err
	}
	names := []mail.Domain{p.Domain}
	if dom, err := d.domain(ctx, p.Domain); err == nil && dom != nil {
		names = append(names, dom.Aliases...)
	}
	var out []mail.Path
	for _, name := range names {
		found, err := d.aliases(ctx, `SELECT local, domain, target FROM aliases WHERE lower(target) = ? ORDER BY domain, local`, mail.Path{Local: p.Local, Domain: name}.String())
		if err != nil {
			return nil, err
		}
		for _, a := range found {
			if a.Address != p {
				out = append(out, a.Address)
			}
		}
	}
	return out, nil
}

func (d *Directory) aliases(ctx context.Context, query string, args ...any) ([]Alias, error) {
	rows, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("directory: aliases: %w", err)
	}
	defer rows.Close()
	var out []Alias
	for rows.Next() {
		var local, domain, target string
		if err := rows.Scan(&local, &domain, &target); err != nil {
			return nil, err
		}
		dom, err := mail.ParseDomain(domain)
		if err != nil {
			return nil, fmt.Errorf("alias at %q: %w", domain, err)
		}
		t, err := mail.ParsePath(target)
		if err != nil {
			return nil, fmt.Errorf("alias target %q: %w", target, err)
		}
		p := mail.Path{Local: local, Domain: dom}
		if n := len(out); n == 0 || out[n-1].Address != p {
			out = append(out, Alias{Address: p})
		}
		out[len(out)-1].Targets = append(out[len(out)-1].Targets, t)
	}
	return out, rows.Err()
}
