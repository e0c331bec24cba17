package suite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/postern-mail/postern/sdk/internal/samples"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

var errLetIn = errors.New("it let somebody in")

// directory asks for addresses, and logs in with what cannot be anybody's password.
func (r *run) directory(ctx context.Context) {
	domain := mail.MustPath("x@example.org").Domain
	stranger := mail.Path{Local: "sdktest-" + strings.ToLower(rand.Text()), Domain: domain}
	addresses := append(samples.Addresses(domain), stranger)
	r.check(ctx, "directory: addresses of all kinds", func(ctx context.Context) (string, error) {
		if _, err := r.live(ctx); err != nil {
			return "", err
		}
		known := 0
		for _, a := range addresses {
			targets, err := r.resolve(ctx, a)
			if err != nil {
				return "", fmt.Errorf("%s: %w", a, err)
			}
			if len(targets) > 0 {
				known++
			}
			if a == stranger && len(targets) > 0 {
				return "there is every address: " + a.String(), nil
			}
		}
		return fmt.Sprintf("there are %d of %d", known, len(addresses)), nil
	})
	r.check(ctx, "directory: wrong passwords", func(ctx context.Context) (string, error) {
		if _, err := r.live(ctx); err != nil {
			return "", err
		}
		for _, login := range addresses {
			for _, password := range append(samples.Passwords(), rand.Text()) {
				if err := r.logIn(ctx, login, password); err != nil {
					return "", fmt.Errorf("%s with the password %.40q: %w", login, password, err)
				}
			}
		}
		return "", nil
	})
	r.check(ctx, "directory: 32 calls at once", func(ctx context.Context) (string, error) {
		if _, err := r.live(ctx); err != nil {
			return "", err
		}
		errs := make(chan error, 64)
		var calls sync.WaitGroup
		for i := range 32 {
			calls.Go(func() {
				if _, err := r.resolve(ctx, addresses[i%len(addresses)]); err != nil {
					errs <- err
				}
			})
			calls.Go(func() {
				if err := r.logIn(ctx, addresses[i%len(addresses)], rand.Text()); err != nil {
					errs <- err
				}
			})
		}
		calls.Wait()
		close(errs)
		return "", <-errs
	})
}

func (r *run) resolve(ctx context.Context, address mail.Path) ([]mail.Path, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	answer, err := proto.NewDirectoryClient(r.proc.conn).Resolve(ctx, &proto.ResolveRequest{Address: wire.Paths([]mail.Path{address})[0]})
	if err != nil {
		return nil, fmt.Errorf("%w\nfor an address that does not exist the answer is empty", callError("Resolve", err))
	}
	targets, err := wire.Targets(answer)
	if err != nil {
		return nil, fmt.Errorf("the answer breaks the contract: %w", err)
	}
	return targets, nil
}

// logIn must not succeed.
func (r *run) logIn(ctx context.Context, login mail.Path, password string) error {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	login.Local = strings.ToLower(login.Local)
	answer, err := proto.NewDirectoryClient(r.proc.conn).CheckPassword(ctx, &proto.CheckPasswordRequest{Login: wire.Paths([]mail.Path{login})[0], Password: strings.ToValidUTF8(password, "?")})
	if err != nil {
		return fmt.Errorf("%w\nfor a wrong user or password the answer is empty", callError("CheckPassword", err))
	}
	if answer.GetAccount() != nil {
		return errLetIn
	}
	return nil
}
