package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/sdk/mail"
)

// RewriteKind says which addresses a rule rewrites.
type RewriteKind string

// The kinds of rules.
const (
	RewriteSender    RewriteKind = "sender"
	RewriteRecipient RewriteKind = "recipient"
)

// Rewrite is a rule that puts one address in the place of another. An address with an empty
// local part is every address of the domain; To then keeps the local part, or names one
// address for all.
type Rewrite struct {
	Kind RewriteKind `json:"kind"`
	From mail.Path   `json:"-"`
	To   mail.Path   `json:"-"`
}

func (r Rewrite) check() error {
	switch {
	case r.Kind != RewriteSender && r.Kind != RewriteRecipient:
		return fmt.Errorf("%q is not what can be rewritten: it is sender or recipient", string(r.Kind))
	case r.From.Domain.IsZero() || r.To.Domain.IsZero():
		return errors.New("an address needs a domain")
	case r.From.Fold() == r.To.Fold():
		return errors.New("the rule changes nothing")
	case r.From.Local != "" && r.To.Local == "":
		return errors.New("the other address needs a local part")
	}
	return nil
}

// AddRewrite adds a rule; for each kind and address there is one. Addresses need not be ours.
func (d *Directory) AddRewrite(ctx context.Context, r Rewrite) error {
	if err := r.check(); err != nil {
		return err
	}
	from := r.From.Fold()
	_, err := d.exec(ctx, `INSERT INTO rewrites (kind, domain, local, to_domain, to_local) VALUES (?, ?, ?, ?, ?)`,
		string(r.Kind), from.Domain.String(), from.Local, r.To.Domain.String(), r.To.Local)
	return about(string(r.Kind)+" "+pattern(from), err)
}

// RemoveRewrite removes the rule for an address.
func (d *Directory) RemoveRewrite(ctx context.Context, kind RewriteKind, from mail.Path) error {
	from = from.Fold()
	return about(string(kind)+" "+pattern(from), hit(d.exec(ctx, `DELETE FROM rewrites WHERE kind = ? AND domain = ? AND local = ?`, string(kind), from.Domain.String(), from.Local)))
}

// pattern writes an address of a rule, or of a catch-all.
func pattern(p mail.Path) string {
	if p.Local == "" {
		return "@" + p.Domain.String()
	}
	return p.String()
}

// Rewrites lists the rules, by kind, domain and local part.
func (d *Directory) Rewrites(ctx context.Context) ([]Rewrite, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT kind, domain, local, to_domain, to_local FROM rewrites ORDER BY kind, domain, local`)
	if err != nil {
		return nil, fmt.Errorf("directory: rewrites: %w", err)
	}
	defer rows.Close()
	var out []Rewrite
	for rows.Next() {
		var r Rewrite
		var domain, toDomain string
		if err := rows.Scan(&r.Kind, &domain, &r.From.Local, &toDomain, &r.To.Local); err != nil {
			return nil, err
		}
		var errs [2]error
		r.From.Domain, errs[0] = mail.ParseDomain(domain)
		r.To.Domain, errs[1] = mail.ParseDomain(toDomain)
		if errs == [2]error{} { // else not written by us
			out = append(out, r)
		}
	}
	return out, rows.Err()
}

// rewriteRules are the rules of one version of the file: of each message every address is asked
// about, and mostly there are none.
type rewriteRules struct {
	version int64
	to      map[RewriteKind]map[mail.Path]mail.Path
}

// Rewrite returns the address that a rule puts in the place of p, or p. The rule for the very
// address goes first, then that for its domain; the outcome is not rewritten again. Local
// parts are compared without regard to case. An error means "try again later".
func (d *Directory) Rewrite(ctx context.Context, kind RewriteKind, p mail.Path) (mail.Path, error) {
	rules, err := d.rewriteRules(ctx)
	if err != nil {
		return p, err
	}
	to := rules.to[kind]
	if len(to) == 0 || p.IsZero() {
		return p, nil
	}
	for _, from := range []mail.Path{p.Fold(), {Domain: p.Domain}} {
		if t, ok := to[from]; ok {
			if t.Local == "" {
				t.Local = p.Local
			}
			return t, nil
		}
	}
	return p, nil
}

func (d *Directory) rewriteRules(ctx context.Context) (*rewriteRules, error) {
	version, err := d.watch.current(ctx)
	if err != nil {
		return nil, err
	}
	if r := d.rules.Load(); r != nil && r.version == version {
		return r, nil
	}
	all, err := d.Rewrites(ctx)
	if err != nil {
		return nil, err
	}
	r := &rewriteRules{version: version, to: make(map[RewriteKind]map[mail.Path]mail.Path)}
	for _, rule := range all {
		if r.to[rule.Kind] == nil {
			r.to[rule.Kind] = make(map[mail.Path]mail.Path)
		}
		r.to[rule.Kind][rule.From] = rule.To
	}
	d.rules.Store(r)
	return r, nil
}

// String writes the rule for people.
func (r Rewrite) String() string {
	return fmt.Sprintf("%s %s -> %s", r.Kind, pattern(r.From), pattern(r.To))
}
