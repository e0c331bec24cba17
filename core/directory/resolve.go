package directory

import (
	"context"
	"errors"
	"strings"

	"github.com/postern-mail/postern/core/auth"
	"github.com/postern-mail/postern/sdk/mail"
)

// Limits of alias expansion.
const (
	maxDepth   = 10
	maxTargets = 10000
)

// answer is what the file says about one address.
type answer struct {
	account  bool
	enabled  bool
	targets  []string // of its alias
	catchAll []string // of its domain
}

// Resolve returns the addresses that an address of ours stands for: accounts, and addresses
// elsewhere that aliases lead to. Each is named once. For an address it asks for, in this
// order: an alias, an account, the same without its +tag, postmaster, the catch-all. Mail for
// postmaster is never without a way (RFC 5321 §4.5.1): at worst it is delivered as that.
//
// The error is ErrNotLocal, ErrNotFound, ErrDisabled or ErrTooDeep; any other means that the
// directory failed and the question has to be asked again later.
func (d *Directory) Resolve(ctx context.Context, p mail.Path) ([]mail.Path, error) {
	name, ok, err := d.Local(ctx, p.Domain)
	if err != nil {
		return nil, err
	}
	postmaster := isPostmaster(p)
	if !ok {
		// The gateway's own name need not be a domain with mailboxes.
		if !postmaster || p.Domain != d.hostname {
			return nil, ErrNotLocal
		}
		name = p.Domain
	}
	e := &expansion{d: d, ctx: ctx, seen: make(map[mail.Path]bool)}
	if err := e.add(mail.Path{Local: p.Local, Domain: name}, 0); err != nil {
		return nil, err
	}
	if !ok {
		name = d.declared.Load().first
	}
	switch {
	case len(e.targets) > 0:
		return e.targets, nil
	case postmaster && !name.IsZero():
		return []mail.Path{{Local: "postmaster", Domain: name}}, nil
	case e.disabled:
		return nil, ErrDisabled
	}
	return nil, ErrNotFound
}

func isPostmaster(p mail.Path) bool { return strings.EqualFold(p.Local, "postmaster") }

// Expand is Resolve for a message that is already accepted: an address elsewhere, or an
// unknown one of ours (another server knows the mailboxes of that domain), stands for itself;
// the latter at the domain's own name, for a mailbox at an alias of it is the same mailbox.
func (d *Directory) Expand(ctx context.Context, p mail.Path) ([]mail.Path, error) {
	targets, err := d.Resolve(ctx, p)
	switch {
	case errors.Is(err, ErrNotFound):
		name, ok, err := d.Local(ctx, p.Domain)
		if err != nil {
			return nil, err
		}
		if ok {
			p.Domain = name
		}
		return []mail.Path{p}, nil
	case errors.Is(err, ErrNotLocal):
		return []mail.Path{p}, nil
	}
	return targets, err
}

// Verifier returns the verifier of the account that a login names; ok is false if there is
// none, or if it is disabled. Aliases and tags do not log in; aliases of the domain do.
func (d *Directory) Verifier(ctx context.Context, login mail.Path) (v auth.Verifier, ok bool, err error) {
	name, local, err := d.Local(ctx, login.Domain)
	if err != nil {
		return auth.Verifier{}, false, err
	}
	// The question is asked even if it has no answer: unknown domains take as long.
	account := mail.Path{Local: login.Local, Domain: name}.Fold()
	rows, err := d.verifier.QueryContext(ctx, name.String(), account.Local)
	if err != nil {
		return auth.Verifier{}, false, err
	}
	defer rows.Close()
	if rows.Next() && local {
		v.Account, ok = account.String(), true
		err = rows.Scan(&v.Salt, &v.Iterations, &v.StoredKey, &v.ServerKey)
	}
	return v, ok, errors.Join(err, rows.Err())
}

// expansion follows aliases.
type expansion struct {
	d        *Directory
	ctx      context.Context
	seen     map[mail.Path]bool
	targets  []mail.Path
	disabled bool
}

// add resolves p, whose domain is the name of a domain of ours.
func (e *expansion) add(p mail.Path, depth int) error {
	key := p.Fold()
	if e.seen[key] {
		return nil
	}
	e.seen[key] = true
	if depth > maxDepth || len(e.seen) > maxTargets {
		return ErrTooDeep
	}
	plain, _, tagged := strings.Cut(key.Local, "+")
	exact, base, err := e.d.ask(e.ctx, key, plain)
	if err != nil {
		return err
	}
	switch {
	case exact.found():
		return e.follow(exact, key, depth)
	case tagged && plain != "" && base.found():
		return e.follow(base, mail.Path{Local: plain, Domain: key.Domain}, depth)
	case plain == "postmaster":
		if post := e.d.declared.Load().postmaster; !post.IsZero() && !e.seen[post] {
			if err := e.target(post, depth); err != nil || len(e.targets) > 0 {
				return err
			}
		}
	}
	for _, t := range exact.catchAll {
		if err := e.parse(t, depth); err != nil {
			return err
		}
	}
	return nil
}

func (a answer) found() bool { return a.account || len(a.targets) > 0 }

// follow takes an alias, or else the account. An alias that names itself keeps a copy in
// the account of the same address.
func (e *expansion) follow(a answer, p mail.Path, depth int) error {
	e.seen[p] = true
	toSelf := len(a.targets) == 0
	for _, t := range a.targets {
		target, err := mail.ParsePath(t)
		if err == nil && target.Fold() == p {
			toSelf = true
		} else if err := e.parse(t, depth); err != nil {
			return err
		}
	}
	switch {
	case !toSelf || !a.account:
	case !a.enabled:
		e.disabled = true
	default:
		e.targets = append(e.targets, p)
	}
	return nil
}

func (e *expansion) parse(text string, depth int) error {
	p, err := mail.ParsePath(text)
	if err != nil || p.IsZero() {
		return nil // not written by us
	}
	return e.target(p, depth)
}

// target adds what p stands for; p may be anywhere.
func (e *expansion) target(p mail.Path, depth int) error {
	name, ok, err := e.d.Local(e.ctx, p.Domain)
	if err != nil {
		return err
	}
	if ok && !e.d.declared.Load().elsewhere[name] {
		return e.add(mail.Path{Local: p.Local, Domain: name}, depth+1)
	}
	if !e.seen[p] && p.Domain != e.d.hostname { // mail for our own name would come back
		e.seen[p] = true
		e.targets = append(e.targets, p)
	}
	return nil
}

// cachedAnswer is what ask said about an address in one version of the file.
type cachedAnswer struct {
	version     int64
	exact, base answer
}

// ask returns what the file says about key and about the same address without its tag.
// Answers are kept until the file changes: policy and intake ask the same soon after
// another.
func (d *Directory) ask(ctx context.Context, key mail.Path, plain string) (exact, base answer, err error) {
	version, err := d.watch.current(ctx)
	if err != nil {
		return exact, base, err
	}
	if c, ok := d.answers.Get(key); ok && c.version == version {
		return c.exact, c.base, nil
	}
	rows, err := d.lookup.QueryContext(ctx, key.Domain.String(), key.Local, plain)
	if err != nil {
		return exact, base, err
	}
	defer rows.Close()
	for rows.Next() {
		var alias, enabled bool
		var local, target string
		if err := rows.Scan(&alias, &local, &enabled, &target); err != nil {
			return exact, base, err
		}
		a := &base
		if local == key.Local || local == "" {
			a = &exact
		}
		switch {
		case !alias:
			a.account, a.enabled = true, enabled
		case local == "":
			a.catchAll = append(a.catchAll, target)
		default:
			a.targets = append(a.targets, target)
		}
	}
	if err := rows.Err(); err != nil {
		return exact, base, err
	}
	d.answers.Set(key, cachedAnswer{version, exact, base})
	return exact, base, nil
}
