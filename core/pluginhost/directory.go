package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Directory is a directory plugin, whatever process it has at the moment.
type Directory struct{ slot *slot }

var errNoDirectory = errors.New("it is no directory")

// Directory returns the directory of that name; false if no plugin of that name is
// configured, or it is no directory.
func (h *Host) Directory(name string) (*Directory, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Directory {
		return nil, false
	}
	return &Directory{sl}, true
}

// Resolve asks what an address stands for; nothing: there is no such address. An error is
// a [*Failure], or that of ctx when the caller gave up.
func (d *Directory) Resolve(ctx context.Context, address mail.Path) ([]mail.Path, error) {
	var targets []mail.Path
	err := d.call(ctx, func(ctx context.Context, c proto.DirectoryClient) error {
		r, err := c.Resolve(ctx, &proto.ResolveRequest{Address: wire.Paths([]mail.Path{address})[0]})
		if err != nil {
			return err
		}
		if targets, err = wire.Targets(r); err != nil {
			return fail(d.slot.name, Error, fmt.Errorf("its answer breaks the contract: %w", err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return targets, nil
}

// CheckPassword asks for the account that a user name and password open; the zero Path:
// none. Errors are as in Resolve.
func (d *Directory) CheckPassword(ctx context.Context, login mail.Path, password string) (mail.Path, error) {
	var account mail.Path
	err := d.call(ctx, func(ctx context.Context, c proto.DirectoryClient) error {
		r, err := c.CheckPassword(ctx, &proto.CheckPasswordRequest{Login: wire.Paths([]mail.Path{login})[0], Password: password})
		if err != nil {
			return err
		}
		if account, err = wire.Path(r.Account); err != nil {
			account = mail.Path{}
			return fail(d.slot.name, Error, fmt.Errorf("its answer breaks the contract: the account is malformed: %w", err))
		}
		return nil
	})
	return account, err
}

func (d *Directory) call(ctx context.Context, do func(context.Context, proto.DirectoryClient) error) error {
	return d.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Directory {
			return fail(d.slot.name, Error, errNoDirectory)
		}
		return do(ctx, proto.NewDirectoryClient(p.conn))
	})
}
