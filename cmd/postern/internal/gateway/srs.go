package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/config"
	"github.com/postern-mail/postern/core/directory"
	"github.com/postern-mail/postern/core/intake"
	"github.com/postern-mail/postern/core/srs"
	"github.com/postern-mail/postern/sdk/mail"
)

// sendingOn is how mail is sent on to other domains; nil: with the reverse-path of its sender.
type sendingOn struct {
	*srs.Rewriter
	own *directory.Directory
}

func newSendingOn(c *config.Config, own *directory.Directory) (*sendingOn, error) {
	if !c.SRS.Enabled {
		return nil, nil
	}
	key, err := own.Secret(context.Background(), "srs")
	if err != nil {
		return nil, fmt.Errorf("srs: %w", err)
	}
	domain := c.SRS.Domain
	if domain.IsZero() {
		domain = c.Hostname
	}
	r, err := srs.New(srs.Options{Domain: domain, Key: key, Lifetime: cmp.Or(time.Duration(c.SRS.Lifetime), 21*24*time.Hour)})
	if err != nil {
		return nil, err
	}
	return &sendingOn{r, own}, nil
}

// extend tells the intake about it.
func (s *sendingOn) extend(r *intake.Rules) {
	if s == nil {
		return
	}
	expand := r.Expand
	r.Expand = func(ctx context.Context, p mail.Path) ([]mail.Path, error) {
		if of, err := s.Reverse(p); err == nil {
			return []mail.Path{of}, nil
		}
		return expand(ctx, p)
	}
	reaches := r.Reaches
	r.Reaches = func(ctx context.Context, by, p mail.Path) error { return reaches(ctx, by, s.sentBy(p)) }
	r.SendOn, r.SentBy = s.sendOn, s.sentBy
}

// sendOn is the reverse-path of mail from one address to another: its own from ours, and to
// ours.
func (s *sendingOn) sendOn(reverse, to mail.Path) mail.Path {
	for _, d := range []mail.Domain{to.Domain, reverse.Domain} {
		if _, ours, err := s.own.Local(context.Background(), d); ours || err != nil {
			return reverse
		}
	}
	rewritten, _ := s.Forward(reverse)
	return rewritten
}

// sentBy is who hears of mail with that reverse-path.
func (s *sendingOn) sentBy(reverse mail.Path) mail.Path {
	if of, err := s.Reverse(reverse); err == nil {
		return of
	}
	return reverse
}

// returned answers for a recipient that is an address under which mail was sent on.
func (s *sendingOn) returned(rcpt mail.Path) (bool, mail.Status) {
	if s == nil {
		return false, mail.Status{}
	}
	switch _, err := s.Reverse(rcpt); {
	case err == nil:
		return true, mail.Status{}
	case errors.Is(err, srs.ErrNotOurs):
		return false, mail.Status{}
	case errors.Is(err, srs.ErrExpired):
		return true, mail.Permanent(550, 1, 6, "This address has expired")
	}
	return true, mail.Permanent(550, 1, 1, "No such user here")
}
