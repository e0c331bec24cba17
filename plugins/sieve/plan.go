package sieve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/plugins/sieve/engine"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// planning is one plan in the making. Scripts run one after the other, as long as each keeps
// the message, implicitly or not; what the last one keeps is kept.
type planning struct {
	*Plugin
	ctx     context.Context
	m       *mail.Message
	owner   mail.Path // the account
	given   mail.Path // the address that the message was sent to
	display string    // the owner's name; "" if it is not known
	boxes   mailboxes // the recipient's

	plan    *sdk.Plan
	message *engine.Message // as the next script sees it
	edited  *engine.Message // the same if scripts have changed it; else nil
	flags   []string        // of the last keep that had any
	kept    bool
	replied bool     // a vacation reply is part of the plan
	copies  []copied // of what is sent, to be filed
	draft   *sdk.Body
	bodies  map[*byte]sdk.Section // what is in the draft already, by its first byte
	last    step                  // that has not kept the message
}

// step is a script of the sequence.
type step struct {
	name  string // for people
	admin bool
	hash  string
	make  func() (*engine.Script, error)
}

// Plan runs the admin's and the owner's scripts for the one recipient of m.
func (p *Plugin) Plan(ctx context.Context, m *mail.Message) (*sdk.Plan, error) {
	pl := &planning{Plugin: p, ctx: ctx, m: m, plan: &sdk.Plan{}, kept: true, message: &engine.Message{Header: m.Header, Body: m.Body}}
	pl.boxes.p = pl
	if err := pl.addresses(); err != nil {
		return nil, err
	}
	steps, err := pl.steps()
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		if !pl.kept {
			break
		}
		if err := pl.run(s); err != nil {
			return nil, err
		}
	}
	if err := pl.finish(); err != nil {
		return nil, err
	}
	pl.plan.Notes = pl.plan.Notes[:min(len(pl.plan.Notes), maxNotes)]
	return pl.plan, nil
}

// steps is the sequence of scripts.
func (p *planning) steps() ([]step, error) {
	var steps []step
	before, after := p.adminScripts(p.owner)
	file := func(name string) step {
		return step{name: name, admin: true, make: func() (*engine.Script, error) { return p.adminScript(p.ctx, name) }}
	}
	for _, name := range before {
		steps = append(steps, file(name))
	}
	script, ok, err := p.scripts.Active(p.ctx, p.owner)
	if err != nil && !errors.Is(err, sdk.ErrNoHost) {
		return nil, err
	}
	if ok {
		if ok, err = p.wanted(); err != nil {
			return nil, err
		}
	}
	if ok {
		steps = append(steps, step{name: script.Name, hash: script.Hash, make: func() (*engine.Script, error) { return p.own(script) }})
	}
	for _, name := range after {
		steps = append(steps, file(name))
	}
	return steps, nil
}

// wanted reports whether the owner's script is to run: not with the setting sieve = off of his account.
func (p *planning) wanted() (bool, error) {
	a, err := p.host.Lookup(p.ctx, p.owner)
	if errors.Is(err, sdk.ErrNoHost) || err == nil && a.Info == nil {
		return true, nil
	} else if err != nil {
		return false, err
	}
	p.display = a.Info.DisplayName
	return a.Info.Settings["sieve"] != "off", nil
}

// own compiles the owner's script. A text that cannot be had is a fault of it, unless it has been
// replaced meanwhile.
func (p *planning) own(script Script) (*engine.Script, error) {
	s, err := p.compiled.get(script.Hash, func() ([]byte, error) { return p.scripts.Text(p.ctx, p.owner, script) })
	if errors.Is(err, ErrNoScript) || errors.Is(err, ErrDamaged) {
		now, _, nerr := p.scripts.Active(p.ctx, p.owner)
		if nerr == nil && now.id == script.id {
			return nil, &engine.Error{Message: "its text is damaged: put it again"}
		}
		return nil, errors.Join(err, nerr)
	}
	return s, err
}

// run runs one script and takes over what it wants done. An error means that there can be no
// plan now.
func (p *planning) run(s step) error {
	script, err := s.make()
	var fault *engine.Error
	switch {
	case errors.As(err, &fault):
		return p.fault(s, fault)
	case err != nil && s.admin: // it was there when the gateway started
		return fmt.Errorf("script %s: %w", s.name, err)
	case err != nil:
		return err
	}
	result, err := script.Run(p.ctx, p.message, p.env(s))
	if err != nil {
		return err
	}
	if result.Fault != nil {
		return p.fault(s, result.Fault)
	}
	if err = p.take(s, result); errors.As(err, &fault) {
		return p.fault(s, fault)
	}
	return err
}

// take adds what a script wants done, all of it or, with an [*engine.Error], nothing.
func (p *planning) take(s step, r *engine.Result) error {
	before, copies := slices.Clone(p.plan.Actions), len(p.copies)
	kept, message, edited, flags, replied := false, p.message, p.edited, p.flags, p.replied
	undo := func(f *engine.Error) error {
		p.plan.Actions, p.copies, p.replied = before, p.copies[:copies], replied
		return f
	}
	for _, a := range r.Actions {
		if a.Kind == engine.Keep {
			kept = true
			if a.Edited != nil {
				message, edited = a.Edited, a.Edited
			}
			if len(a.Flags) > 0 {
				flags = a.Flags
			}
			continue
		}
		if err := p.add(s, a); errors.As(err, new(temporary)) {
			return err
		} else if err != nil {
			return undo(&engine.Error{Line: a.Line, Message: err.Error()})
		}
	}
	if kept && edited != nil {
		if err := p.usable(edited); err != nil {
			return undo(&engine.Error{Message: err.Error()})
		}
	}
	if !p.fits(len(r.Remember)) {
		return undo(&engine.Error{Message: "the scripts want too much done"})
	}
	p.kept, p.message, p.edited, p.flags, p.last = kept, message, edited, flags, s
	for _, mark := range r.Remember {
		p.plan.AndRemember(s.key(mark.Key), mark.Lifetime)
	}
	return nil
}

// What a plan may have of all scripts together. The gateway takes a little more: a notice of a fault, the last keep.
const (
	maxPlan      = 64 // actions
	maxRedirects = 32
	maxMessages  = 6 // replies and notifications
	maxMarks     = 80
	maxNotes     = 16
)

// fits reports whether the plan, with some marks more, is one that can be carried out.
func (p *planning) fits(marks int) bool {
	count := make(map[sdk.PlanKind]int)
	for _, a := range p.plan.Actions {
		count[a.Kind]++
	}
	return len(p.plan.Actions)+len(p.copies) <= maxPlan && count[sdk.PlanRedirect] <= maxRedirects &&
		count[sdk.PlanVacation]+count[sdk.PlanNotify] <= maxMessages && len(p.plan.Remember)+marks <= maxMarks
}

// key is where a script's marks are among those of its recipient.
func (s step) key(key string) string {
	if s.admin {
		return "admin/" + key
	}
	return key
}

// add makes an action of the plan.
func (p *planning) add(s step, a engine.Action) error {
	if slices.ContainsFunc(p.plan.Actions, func(o sdk.PlanAction) bool { return o.Kind == sdk.PlanReject }) && a.Kind != engine.Notify {
		return errors.New("the message is refused, nothing else can be done with it")
	}
	switch a.Kind {
	case engine.FileInto:
		folder, err := p.folder(a.Mailbox, a.SpecialUse)
		if err != nil {
			return err
		}
		return p.keep(sdk.PlanAction{Folder: folder, Flags: a.Flags, Create: a.Create}, a.Edited)
	case engine.Redirect:
		to, err := mail.ParsePath(a.Address)
		if err != nil || to.IsZero() {
			return fmt.Errorf("'%s' is no address to redirect to", a.Address)
		}
		p.plan.Redirect(to)
		return p.version(a.Edited)
	case engine.Reject, engine.EReject:
		for _, o := range p.plan.Actions {
			if o.Kind != sdk.PlanNotify {
				return errors.New("an earlier script has kept, sent or answered the message: it cannot be refused any more")
			}
		}
		p.plan.Reject(mail.Permanent(550, 7, 1, oneLine(a.Reason, 400)))
	case engine.Vacation:
		if p.replied {
			return errors.New("an earlier script has answered already")
		}
		p.replied = true
		return p.vacation(s, a)
	case engine.Notify:
		return p.notify(a)
	}
	return nil
}

// keep files the message, once in each folder: the last word counts.
func (p *planning) keep(a sdk.PlanAction, edited *engine.Message) error {
	p.plan.Actions = slices.DeleteFunc(p.plan.Actions, func(o sdk.PlanAction) bool { return o.Kind == sdk.PlanKeep && o.Folder == a.Folder })
	a.Kind, a.Flags = sdk.PlanKeep, validFlags(a.Flags)
	p.plan.Actions = append(p.plan.Actions, a)
	return p.version(edited)
}

// validFlags are those that a mailbox can set.
func validFlags(flags []string) []string {
	var out []string
	for _, f := range flags {
		word := strings.TrimPrefix(f, `\`)
		ok := word != "" && len(f) <= 100 && strings.IndexFunc(word, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
		}) < 0
		if ok && len(out) < 50 {
			out = append(out, f)
		}
	}
	return out
}

// finish keeps what the last script keeps, and says so where nothing is left of the message.
func (p *planning) finish() error {
	if p.kept {
		if err := p.keep(sdk.PlanAction{Flags: p.flags}, p.edited); err != nil {
			return err
		}
	}
	stays := func(o sdk.PlanAction) bool {
		return o.Kind == sdk.PlanKeep || o.Kind == sdk.PlanRedirect || o.Kind == sdk.PlanReject
	}
	if !slices.ContainsFunc(p.plan.Actions, stays) {
		p.plan.Discard("discarded by the script " + oneLine(p.last.name, 200))
	}
	for _, c := range p.copies { // last: the message itself comes first
		section, err := p.write(c.body)
		if err != nil {
			return err
		}
		p.plan.Actions = append(p.plan.Actions, c.action)
		p.plan.WithBody(section)
	}
	return nil
}
