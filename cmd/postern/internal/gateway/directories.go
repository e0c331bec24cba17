package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/pluginhost"
	"github.com/postern-mail/postern/core/policy"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// directories are who knows our addresses: the gateway's own directory, and plugins for the
// domains that name one. A reload makes another.
type directories struct {
	own     *directory.Directory
	host    *pluginhost.Host
	plugins map[mail.Domain]string // by the domain's name
}

func newDirectories(c *config.Config, own *directory.Directory, host *pluginhost.Host) *directories {
	d := &directories{own: own, host: host, plugins: make(map[mail.Domain]string)}
	for _, dom := range c.Domains {
		if dom.Directory != "" {
			d.plugins[dom.Name] = dom.Directory
		}
	}
	return d
}

// maxResolveDepth bounds how far one directory leads to another.
const maxResolveDepth = 5

// Local reports whether a domain is ours, and its name if it is an alias of another.
func (d *directories) Local(ctx context.Context, name mail.Domain) (mail.Domain, bool, error) {
	return d.own.Local(ctx, name)
}

// Resolve returns what an address of ours stands for, as directory.Directory does. When a
// plugin fails the error is no mail.Status: the answer is "try again later".
func (d *directories) Resolve(ctx context.Context, p mail.Path) ([]mail.Path, error) {
	if len(d.plugins) == 0 {
		return d.own.Resolve(ctx, p)
	}
	r := &resolution{d: d, ctx: ctx, seen: make(map[mail.Path]bool)}
	if err := r.add(p, 0); err != nil {
		return nil, err
	}
	if len(r.targets) == 0 {
		return nil, directory.ErrNotFound
	}
	return r.targets, nil
}

// Expand is Resolve for a message that is already accepted, as directory.Directory's is. The
// address is rewritten first: this is the one place where recipients are.
func (d *directories) Expand(ctx context.Context, p mail.Path) ([]mail.Path, error) {
	p, err := d.own.Rewrite(ctx, directory.RewriteRecipient, p)
	if err != nil {
		return nil, err
	}
	if len(d.plugins) == 0 {
		return d.own.Expand(ctx, p)
	}
	targets, err := d.Resolve(ctx, p)
	switch {
	case errors.Is(err, directory.ErrNotFound):
		name, ours, err := d.own.Local(ctx, p.Domain)
		if err != nil {
			return nil, err
		}
		if ours {
			p.Domain = name // a mailbox at an alias of the domain is the same mailbox
		}
		return []mail.Path{p}, nil
	case errors.Is(err, directory.ErrNotLocal):
		return []mail.Path{p}, nil
	}
	return targets, err
}

// Reaches says whether there is such an address, for mail for one that nobody has would make a mailbox
// that nobody reads; and whether an account may send to it, if it is a group.
func (d *directories) Reaches(ctx context.Context, by, p mail.Path) error {
	p, err := d.own.Rewrite(ctx, directory.RewriteRecipient, p)
	if err != nil {
		return err
	}
	if !by.IsZero() {
		if err := d.own.MaySend(ctx, directory.Sender{Account: by, Trusted: true}, p); err != nil {
			return err
		}
	}
	_, err = d.Resolve(ctx, p)
	if !errors.Is(err, directory.ErrNotFound) {
		if errors.Is(err, directory.ErrNotLocal) {
			return nil
		}
		return err
	}
	name, _, lerr := d.own.Local(ctx, p.Domain)
	if lerr != nil {
		return lerr
	}
	dom, derr := d.own.Domain(ctx, name)
	if derr != nil {
		return derr
	}
	if dom.Recipients != "" && dom.Recipients != directory.RecipientsDirectory {
		return nil // the server behind us knows
	}
	return err
}

// Sender returns the reverse-path to use in the place of one that came in.
func (d *directories) Sender(ctx context.Context, p mail.Path) (mail.Path, error) {
	return d.own.Rewrite(ctx, directory.RewriteSender, p)
}

// extend tells the policy what it may ask besides.
func (d *directories) extend(o *policy.Options) {
	o.Rewrite = func(ctx context.Context, rcpt mail.Path) (mail.Path, error) {
		return d.own.Rewrite(ctx, directory.RewriteRecipient, rcpt)
	}
	o.MaySend = func(ctx context.Context, e *mail.Envelope, rcpt mail.Path) error {
		s := directory.Sender{Trusted: e.Client.Class != mail.Stranger, ReversePath: e.ReversePath}
		if e.Client.User != "" {
			s.Account, _ = mail.ParsePath(e.Client.User)
		}
		return d.own.MaySend(ctx, s, rcpt)
	}
}

// Info is about the mailbox of an address of ours; nil: it has none. Of who is known to a
// plugin it is what his domain has.
func (d *directories) Info(ctx context.Context, p mail.Path, targets []mail.Path) (*sdk.AccountInfo, error) {
	a, ok, err := d.own.Account(ctx, p)
	if err != nil {
		return nil, err
	}
	if ok {
		return &sdk.AccountInfo{Address: a.Address, DisplayName: a.DisplayName, Enabled: a.Enabled, QuotaBytes: a.Bytes, QuotaMessages: a.Messages, Settings: a.Settings}, nil
	}
	dir, at, err := d.plugin(ctx, p)
	if err != nil || dir == nil {
		return nil, err
	}
	for _, t := range targets {
		if t.Fold() == at.Fold() {
			dom, err := d.own.Domain(ctx, t.Domain)
			return &sdk.AccountInfo{Address: t, Enabled: true, QuotaBytes: dom.Bytes, QuotaMessages: dom.Messages}, err
		}
	}
	return nil, nil
}

// plugin returns the directory plugin of a domain, and p at the name of that domain.
func (d *directories) plugin(ctx context.Context, p mail.Path) (*pluginhost.Directory, mail.Path, error) {
	name, ours, err := d.own.Local(ctx, p.Domain)
	if err != nil || !ours || d.plugins[name] == "" {
		return nil, p, err
	}
	dir, ok := d.host.Directory(d.plugins[name])
	if !ok {
		return nil, p, fmt.Errorf("the plugin %s of domain %s is no directory", d.plugins[name], name)
	}
	return dir, mail.Path{Local: p.Local, Domain: name}, nil
}

// resolution follows an address through several directories.
type resolution struct {
	d       *directories
	ctx     context.Context
	seen    map[mail.Path]bool
	targets []mail.Path
}

func (r *resolution) add(p mail.Path, depth int) error {
	if depth > maxResolveDepth {
		return directory.ErrTooDeep
	}
	dir, p, err := r.d.plugin(r.ctx, p)
	if err != nil {
		return err
	}
	if r.seen[p.Fold()] {
		return nil
	}
	r.seen[p.Fold()] = true
	var targets []mail.Path
	if dir != nil {
		targets, err = dir.Resolve(r.ctx, p)
	}
	if dir == nil || err == nil && len(targets) == 0 && p.Fold().Local == "postmaster" {
		targets, err = r.d.own.Resolve(r.ctx, p) // RFC 5321 §4.5.1: postmaster is always somebody
	}
	if err != nil {
		return err
	}
	for _, t := range targets {
		if err := r.follow(p, t, dir != nil, depth); err != nil {
			return err
		}
	}
	return nil
}

// follow takes one of the targets of p, which a plugin or the own directory said.
func (r *resolution) follow(p, t mail.Path, plugin bool, depth int) error {
	other, at, err := r.d.plugin(r.ctx, t)
	if err != nil {
		return err
	}
	_, ours, err := r.d.own.Local(r.ctx, t.Domain)
	if err != nil {
		return err
	}
	switch {
	case at.Fold() == p.Fold():
		r.targets = append(r.targets, at) // a mailbox
	case other != nil || plugin && ours:
		if err := r.add(t, depth+1); !errors.Is(err, directory.ErrNotFound) && !errors.Is(err, directory.ErrDisabled) {
			return err
		}
	case !r.seen[t.Fold()]:
		r.seen[t.Fold()] = true
		r.targets = append(r.targets, t)
	}
	return nil
}

// CheckPassword asks the plugin that has the login's password, if there is one. An account
// in a domain that is not its own is a fault of it.
func (d *directories) CheckPassword(ctx context.Context, login mail.Path, password string) (account string, elsewhere bool, err error) {
	dir, at, err := d.plugin(ctx, login)
	if dir == nil {
		return "", false, err
	}
	p, err := dir.CheckPassword(ctx, at, password)
	if err != nil || p.IsZero() {
		return "", true, err
	}
	name, ours, err := d.own.Local(ctx, p.Domain)
	if err != nil {
		return "", true, err
	}
	if !ours || d.plugins[name] != d.plugins[at.Domain] {
		return "", true, fmt.Errorf("plugin %s: it says that %s has logged in as %s, whose passwords are not its own", d.plugins[at.Domain], at, p)
	}
	return p.String(), true, nil
}
