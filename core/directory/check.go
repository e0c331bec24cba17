package directory

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// checkSuspects refuses aliases and groups that were changed and now lead round in a
// circle, or to addresses of ours that do not exist. Changes that follow may break what is
// whole now (somebody leaves); that is met when mail comes.
func (c *change) checkSuspects() error {
	done := make(map[mail.Path]bool)
	for _, p := range c.suspects {
		if done[p] {
			continue
		}
		done[p] = true
		if err := c.checkAlias(p); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) checkAlias(p mail.Path) error {
	a, at, ok, catchAll, err := place(c.ctx, c.ask, p)
	if err != nil {
		return err
	}
	targets := a.targets
	if p.Local == "" {
		targets = catchAll
	} else if !ok || at != p {
		return nil // it was removed again
	}
	w := &walk{c: c, from: p, done: make(map[mail.Path]bool)}
	for _, text := range targets {
		if err := w.first(text, a.account); err != nil {
			return err
		}
	}
	e := c.d.expansion(c.ctx)
	e.ask = c.ask
	if err := e.add(p, 0); errors.Is(err, ErrTooDeep) {
		return fmt.Errorf("leads through more than %d aliases, or to more than %d addresses", maxDepth, maxTargets)
	} else if err != nil {
		return err
	}
	return nil
}

// walk looks for a way from an alias back to it.
type walk struct {
	c     *change
	from  mail.Path
	chain []string
	done  map[mail.Path]bool
}

// first takes a target of the alias itself: it has to exist.
func (w *walk) first(text string, account bool) error {
	p, ours, err := w.local(text)
	if err != nil || !ours {
		return err
	}
	if p == w.from {
		if !account {
			return fmt.Errorf("%s leads to itself, and there is no account of that address that could keep a copy", text)
		}
		return nil
	}
	_, _, dom, err := w.c.domain(p.Domain)
	if err != nil {
		return err
	}
	_, _, ok, catchAll, err := place(w.c.ctx, w.c.ask, p)
	if err != nil {
		return err
	}
	isOwnCatchAll := w.from.Local == "" && w.from.Domain == p.Domain
	elsewhere := dom != nil && (!dom.knows() || len(dom.CatchAll) > 0 && !dom.Stored)
	if !ok && !isPostmaster(p) && !elsewhere && (len(catchAll) == 0 || isOwnCatchAll) {
		return fmt.Errorf("%s does not exist", text)
	}
	return w.on(p, text)
}

// on follows an address of ours.
func (w *walk) on(p mail.Path, text string) error {
	w.chain = append(w.chain, text)
	defer func() { w.chain = w.chain[:len(w.chain)-1] }()
	a, at, ok, catchAll, err := place(w.c.ctx, w.c.ask, p)
	if err != nil {
		return err
	}
	targets := a.targets
	if !ok {
		at, targets = mail.Path{Domain: p.Domain}, catchAll
	}
	if at == w.from {
		return fmt.Errorf("leads back to itself: %s -> %s", w.name(), strings.Join(w.chain, " -> "))
	}
	if w.done[at] || len(w.done) > maxTargets {
		return nil
	}
	w.done[at] = true
	for _, t := range targets {
		next, ours, err := w.local(t)
		if err != nil {
			return err
		}
		if ours && next != at {
			if err := w.on(next, t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) name() string {
	if w.from.Local == "" {
		return "@" + w.from.Domain.String()
	}
	return w.from.String()
}

// local reads a target; ours says that this directory is asked about it.
func (w *walk) local(text string) (p mail.Path, ours bool, err error) {
	p, err = mail.ParsePath(text)
	if err != nil || p.IsZero() {
		return p, false, nil
	}
	name, ours, dom, err := w.c.domain(p.Domain)
	if err != nil || !ours || dom != nil && dom.Elsewhere {
		return p, false, err
	}
	return mail.Path{Local: p.Local, Domain: name}.Fold(), true, nil
}
