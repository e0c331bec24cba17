package smtpclient

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/sdk/mail"
)

// Ask asks the hops of a route which addresses they would take mail for, and sends none:
// MAIL FROM:<>, RCPT TO for one after another, QUIT. It returns one status for each; what
// comes after the first address that is not taken is not asked, and is zero.
//
// A permanent status is what a peer said to RCPT, and names it in Remote. All else that went wrong is
// temporary: of the connection and of the null reverse-path being refused too. TLS is as for
// a delivery. When ctx ends, so does Ask.
func (c *Client) Ask(ctx context.Context, r route.Route, rcpts ...mail.Path) []mail.Status {
	a := &asking{c: c, rcpts: rcpts, res: make([]mail.Status, len(rcpts))}
	a.last = mail.Temporary(451, 3, 5, "route has no next hop")
	a.run(ctx, r.Hops)
	if len(a.res) > 0 && a.res[0].IsZero() {
		a.res[0] = a.last
	}
	return a.res
}

// asking is the state of one Ask.
type asking struct {
	c     *Client
	rcpts []mail.Path
	res   []mail.Status
	last  mail.Status // of the last address that could not be asked
}

// run tries addresses in the order in which a delivery would, until one has answered.
func (a *asking) run(ctx context.Context, hops []route.Hop) {
	var list, later []target
	for _, hop := range hops {
		found, err := a.c.targets(ctx, hop, false)
		if err != nil {
			a.last = temporary(mail.StatusOf(err))
		}
		for _, t := range found {
			if a.c.hints.failedLately(t.endpoint) {
				later = append(later, t)
			} else {
				list = append(list, t)
			}
		}
	}
	list = append(list, later...)
	for i, t := range list {
		if err := ctx.Err(); err != nil {
			a.last = mail.Temporary(451, 4, 2, "asking ended: "+cause(err))
			return
		}
		if a.target(ctx, t, i < len(list)-1) {
			return
		}
	}
}

// target asks at one address and reports whether there was an answer to RCPT. Where another
// address is left it takes half of the time that is left, for one that does not answer.
func (a *asking) target(outer context.Context, t target, more bool) bool {
	ctx := outer
	if end, ok := outer.Deadline(); ok && more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(outer, time.Until(end)/2)
		defer cancel()
	}
	s, err := a.c.open(ctx, t, false, more)
	var oe *openError
	if errors.As(err, &oe) && oe.plain {
		s, err = a.c.open(ctx, t, true, more)
	}
	if errors.As(err, &oe) {
		a.last = temporary(oe.status)
	} else {
		stop := context.AfterFunc(ctx, s.abort)
		err = a.session(s)
		stop()
		s.quit()
	}
	if err != nil && outer.Err() == nil {
		a.c.hints.fail(t.endpoint) // not after the caller's impatience
	}
	return !a.res[0].IsZero()
}

// session asks over a session, in lock-step. After an error the session is broken.
func (a *asking) session(s *session) error {
	fail := func(err error) error {
		s.broken = true
		a.last = s.lost(err)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			a.last = mail.Temporary(451, 4, 2, s.remote+" did not answer in time")
		}
		return err
	}
	utf8 := slices.ContainsFunc(a.rcpts, func(p mail.Path) bool { return !p.IsASCII() })
	from := "MAIL FROM:<>"
	if utf8 && s.ext.utf8 {
		from += " SMTPUTF8"
	} else if utf8 {
		a.res[0] = mail.Temporary(450, 6, 7, s.remote+" does not support SMTPUTF8, which this address needs")
		return nil
	}
	if err := s.command(from, nil); err != nil {
		return fail(err)
	}
	if !s.reply.success() {
		a.res[0] = s.reply.deferred(5, 0, s.remote, "to MAIL FROM:<>")
		return nil
	}
	for i, p := range a.rcpts {
		if err := s.command("RCPT TO:<"+p.String()+">", nil); err != nil {
			return fail(err)
		}
		if a.res[i] = s.reply.status(s.remote); !a.res[i].Success() {
			return nil
		}
	}
	return nil
}

// temporary is a status that says nothing of the recipient.
func temporary(s mail.Status) mail.Status {
	if !s.Permanent() {
		return s
	}
	t := mail.Temporary(451, s.Enhanced[1], s.Enhanced[2], s.Text)
	t.Remote = s.Remote
	return t
}
