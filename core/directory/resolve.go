package directory

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

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
	targets  []string // of its alias, or of its group
	catchAll []string // of its domain
	senders  Senders  // it is a group, and these may send to it
}

// Resolve returns the addresses that an address of ours stands for: accounts, and addresses
// elsewhere that aliases and groups lead to. Each is named once. For an address it asks for, in
// this order: an alias or group, an account, the same without its +tag, postmaster, the
// catch-all. Mail for postmaster is never without a way (RFC 5321 §4.5.1): at worst it is
// delivered as that. What leads round in a circle, or to nobody, is left out.
//
// The error is ErrNotLocal, ErrNotFound, ErrDisabled or ErrTooDeep; any other means that the
// directory failed and the question has to be asked again later.
func (d *Directory) Resolve(ctx context.Context, p mail.Path) ([]mail.Path, error) {
	return d.resolve(ctx, p, false)
}

func (d *Directory) resolve(ctx context.Context, p mail.Path, log bool) ([]mail.Path, error) {
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
	e := d.expansion(ctx)
	e.log = log
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
// What is left out is logged.
func (d *Directory) Expand(ctx context.Context, p mail.Path) ([]mail.Path, error) {
	targets, err := d.resolve(ctx, p, true)
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

// asker says what the file says about an address and about the same without its tag.
type asker func(ctx context.Context, key mail.Path, plain string) (exact, base answer, err error)

// expansion follows aliases and groups.
type expansion struct {
	d        *Directory
	ctx      context.Context
	ask      asker
	seen     map[mail.Path]bool
	chain    []mail.Path // of aliases that are being followed
	targets  []mail.Path
	disabled bool
	log      bool
}

func (d *Directory) expansion(ctx context.Context) *expansion {
	return &expansion{d: d, ctx: ctx, ask: d.ask, seen: make(map[mail.Path]bool)}
}

// place finds what an address is: itself, or the same without its tag. ok is false if it is
// neither alias nor group nor account.
func place(ctx context.Context, ask asker, key mail.Path) (a answer, at mail.Path, ok bool, catchAll []string, err error) {
	plain, _, tagged := strings.Cut(key.Local, "+")
	exact, base, err := ask(ctx, key, plain)
	switch {
	case err != nil:
	case exact.found():
		return exact, key, true, nil, nil
	case tagged && plain != "" && base.found():
		return base, mail.Path{Local: plain, Domain: key.Domain}, true, nil, nil
	}
	return answer{}, key, false, exact.catchAll, err
}

func (a answer) found() bool { return a.account || len(a.targets) > 0 || a.senders != "" }

// add resolves p, whose domain is the name of a domain of ours.
func (e *expansion) add(p mail.Path, depth int) error {
	key := p.Fold()
	if e.met(key) {
		return nil
	}
	if depth > maxDepth || len(e.seen) > maxTargets {
		return ErrTooDeep
	}
	a, at, ok, catchAll, err := place(e.ctx, e.ask, key)
	if err != nil {
		return err
	}
	if ok {
		if at != key && e.met(at) {
			return nil
		}
		return e.follow(a, at, depth)
	}
	return e.others(p, catchAll, depth)
}

// met notes an address, and reports whether it was there before. One that is being followed
// is a loop.
func (e *expansion) met(p mail.Path) bool {
	if !e.seen[p] {
		e.seen[p] = true
		return false
	}
	if e.log && slices.Contains(e.chain, p) {
		e.d.log.Warn("aliases lead round in a circle", "address", p.String(), "from", e.chain[0].String())
	}
	return true
}

// others are where mail goes for an address that is nothing: if it is postmaster, and to the
// catch-all. One that an alias leads to may be at the server behind us.
func (e *expansion) others(p mail.Path, catchAll []string, depth int) error {
	dom, err := e.d.domain(e.ctx, p.Domain)
	if err != nil {
		return err
	}
	if plain, _, _ := strings.Cut(p.Fold().Local, "+"); plain == "postmaster" {
		posts := []mail.Path{e.d.declared.Load().postmaster}
		if dom != nil {
			posts = append([]mail.Path{dom.Postmaster.Fold()}, posts...)
		}
		for _, post := range posts {
			if post.IsZero() || e.seen[post] {
				continue
			}
			if err := e.target(post, depth); err != nil || len(e.targets) > 0 {
				return err
			}
		}
	}
	if len(catchAll) == 0 && dom != nil && !dom.Stored {
		for _, t := range dom.CatchAll {
			catchAll = append(catchAll, t.String())
		}
	}
	for _, t := range catchAll {
		if err := e.parse(t, depth); err != nil {
			return err
		}
	}
	switch {
	case depth == 0 || len(catchAll) > 0:
	case dom != nil && !dom.knows():
		e.targets = append(e.targets, p)
	case e.log && len(e.chain) > 0:
		e.d.log.Warn("an alias leads to an address that does not exist", "address", p.String(), "from", e.chain[0].String())
	}
	return nil
}

// follow takes an alias or group, or else the account. An alias that names itself keeps a
// copy in the account of the same address.
func (e *expansion) follow(a answer, p mail.Path, depth int) error {
	toSelf := len(a.targets) == 0
	e.chain = append(e.chain, p)
	for _, t := range a.targets {
		target, err := mail.ParsePath(t)
		if err == nil && target.Fold() == p {
			toSelf = true
		} else if err := e.parse(t, depth); err != nil {
			return err
		}
	}
	e.chain = e.chain[:len(e.chain)-1]
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
	if ok {
		dom, err := e.d.domain(e.ctx, name)
		if err != nil {
			return err
		}
		if dom == nil || !dom.Elsewhere {
			return e.add(mail.Path{Local: p.Local, Domain: name}, depth+1)
		}
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
	if exact, base, err = look(ctx, d.lookup, key, plain); err == nil {
		d.answers.Set(key, cachedAnswer{version, exact, base})
	}
	return exact, base, err
}

// ask is Directory.ask inside of a change.
func (c *change) ask(ctx context.Context, key mail.Path, plain string) (exact, base answer, err error) {
	return look(ctx, c.tx.StmtContext(ctx, c.d.lookup), key, plain)
}

// look asks about the address, and if there is no such about the same without its tag.
func look(ctx context.Context, lookup *sql.Stmt, key mail.Path, plain string) (exact, base answer, err error) {
	exact, err = lookOne(ctx, lookup, key.Domain.String(), key.Local)
	if err == nil && plain != key.Local && plain != "" && !exact.found() {
		base, err = lookOne(ctx, lookup, key.Domain.String(), plain)
	}
	return exact, base, err
}

// The kinds of rows that lookupSQL gives.
const (
	rowAccount = iota
	rowAlias
	rowGroup
)

func lookOne(ctx context.Context, lookup *sql.Stmt, domain, local string) (a answer, err error) {
	rows, err := lookup.QueryContext(ctx, domain, local)
	if err != nil {
		return a, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind int
		var enabled bool
		var of, value string
		if err := rows.Scan(&kind, &of, &enabled, &value); err != nil {
			return a, err
		}
		switch {
		case kind == rowAccount:
			a.account, a.enabled = true, enabled
		case kind == rowGroup:
			a.senders = Senders(value)
		case of == "":
			a.catchAll = append(a.catchAll, value)
		default:
			a.targets = append(a.targets, value)
		}
	}
	return a, rows.Err()
}
