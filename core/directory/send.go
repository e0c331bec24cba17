package directory

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
)

// Sender is who wants to send to a group.
type Sender struct {
	Account     mail.Path // that has logged in; the zero Path: none
	Trusted     bool      // logged in, or from a network that may relay
	ReversePath mail.Path
}

// MaySend says whether a sender may send to an address: it is ErrNotPermitted if that is a
// group that is not for him. An alias with one target is another name for it. Inside of
// another group, or of an alias with several targets, a group is for whom that is for.
func (d *Directory) MaySend(ctx context.Context, s Sender, p mail.Path) error {
	for range maxDepth {
		name, ok, err := d.Local(ctx, p.Domain)
		if err != nil || !ok {
			return err
		}
		a, at, ok, _, err := place(ctx, d.ask, mail.Path{Local: p.Local, Domain: name}.Fold())
		switch {
		case err != nil || !ok:
			return err
		case a.senders != "":
			return d.maySendTo(ctx, s, a.senders, at)
		case a.account || len(a.targets) != 1:
			return nil
		}
		if p, err = mail.ParsePath(a.targets[0]); err != nil {
			return nil // not written by us
		}
	}
	return nil
}

func (d *Directory) maySendTo(ctx context.Context, s Sender, who Senders, group mail.Path) error {
	switch {
	case who == SendersAnyone || who == SendersAuthenticated && s.Trusted:
		return nil
	case who == SendersAuthenticated:
		return ErrNotPermitted
	}
	e := d.expansion(ctx)
	if err := e.add(group, 0); err != nil {
		return err
	}
	member := s.Account
	if member.IsZero() {
		// A member elsewhere cannot log in here: his reverse-path is all there is, as sure as
		// SPF makes it. Who has an account here logs in.
		_, ours, err := d.Local(ctx, s.ReversePath.Domain)
		if err != nil {
			return err
		}
		if !ours || s.Trusted {
			member = s.ReversePath
		}
	}
	for _, t := range e.targets {
		if !member.IsZero() && t.Fold() == member.Fold() {
			return nil
		}
	}
	return ErrNotPermitted
}
