package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

// Filter is a filter plugin, whatever process it has at the moment.
type Filter struct {
	slot *slot
	host *Host
}

// Mailbox is a mailbox plugin, whatever process it has at the moment.
type Mailbox struct{ slot *slot }

// Filter returns the filter of that name; false if no plugin of that name is configured, or it
// is no filter.
func (h *Host) Filter(name string) (*Filter, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Filter {
		return nil, false
	}
	return &Filter{sl, h}, true
}

// Mailbox returns the mailbox of that name; false if no plugin of that name is configured, or it
// is no mailbox.
func (h *Host) Mailbox(name string) (*Mailbox, bool) {
	sl := h.find(name)
	if sl == nil || !sl.description().Mailbox {
		return nil, false
	}
	return &Mailbox{sl}, true
}

func (h *Host) find(name string) *slot {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.slots[name]
}

// description is that of the last process; the zero value when there is none any more.
func (sl *slot) description() wire.Description {
	s := sl.sup.Load()
	if s == nil {
		return wire.Description{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.desc
}

// Manifest is what the plugin declares.
func (f *Filter) Manifest() sdk.Manifest { return f.slot.description().Manifest }

// Filter asks the plugin about one version of a message. The verdict it returns keeps the
// contract and the manifest. An error is a [*Failure], or that of ctx when the caller gave
// up.
func (f *Filter) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	v, _, err := f.Rewrite(ctx, m, 0, nil)
	return v, err
}

// Manifest is what the plugin declares.
func (b *Mailbox) Manifest() sdk.Manifest { return b.slot.description().Manifest }

// Deliver has the plugin store one message for one recipient. It may ask twice: the key sees
// to it that the message is stored once. An error is the plugin's
// [mail.Status] (not a success), a [*Failure], or that of ctx when the caller gave up.
func (b *Mailbox) Deliver(ctx context.Context, d *sdk.Delivery) error {
	var answer error
	again := *d
	err := b.slot.judged(ctx, d.Message.Envelope.Client, func(ctx context.Context, p *process) error {
		if !p.desc.Mailbox {
			return fail(b.slot.name, Error, errNotMailbox)
		}
		req, err := wire.DeliverRequest(&again)
		if err != nil {
			return fail(b.slot.name, Error, err)
		}
		again.Fresh = false // if there is a second time
		resp, err := p.mailbox.Deliver(ctx, req)
		if err != nil {
			return err
		}
		var ok bool
		if answer, ok = wire.Delivered(resp); !ok {
			return garbage(b.slot.name, fmt.Errorf("its answer breaks the contract: %w", answer))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answer
}

// Room asks whether a message of that size (0: not known) for the recipient would be taken
// now. An error is the plugin's [mail.Status] why not, a [*Failure], or that of ctx; nil:
// it would, or the plugin cannot tell.
func (b *Mailbox) Room(ctx context.Context, recipient mail.Path, size int64) error {
	if !b.slot.description().Room {
		return nil
	}
	var answer error
	err := b.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Room {
			return nil
		}
		resp, err := p.mailbox.Room(ctx, wire.RoomRequest(recipient, size))
		if err != nil {
			return err
		}
		var ok bool
		if answer, ok = wire.Roomy(resp); !ok {
			return garbage(b.slot.name, fmt.Errorf("its answer breaks the contract: %w", answer))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answer
}

// Folders lists the folders of a recipient's mailbox; nil: the plugin does not tell. An error is
// a [*Failure], or that of ctx.
func (b *Mailbox) Folders(ctx context.Context, recipient mail.Path) (*sdk.FolderList, error) {
	if !b.slot.description().Folders {
		return nil, nil
	}
	var list *sdk.FolderList
	err := b.slot.call(ctx, func(ctx context.Context, p *process) error {
		if !p.desc.Folders {
			return nil
		}
		resp, err := p.mailbox.Folders(ctx, wire.FoldersRequest(recipient))
		if err != nil {
			return err
		}
		if list, err = wire.Folders(resp.GetList()); err != nil {
			return garbage(b.slot.name, fmt.Errorf("its answer breaks the contract: %w", err))
		}
		return nil
	})
	return list, err
}

// call runs do with the process of the moment and a deadline. It returns nil, a *Failure,
// or the caller's own error.
func (sl *slot) call(caller context.Context, do question) error {
	s, p, err := sl.enter(caller)
	if err != nil {
		return err
	}
	defer p.calls.leave()
	s.calls.Add(1)
	ctx, cancel := s.limited(caller)
	defer cancel()
	return s.settle(p, s.perform(ctx, p, do))
}

// limited is ctx with the deadline of a call, and how to end it. A caller who waits no longer
// than that saves another context.
func (s *supervisor) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := s.spec.Timeout
	if limit == 0 {
		limit = s.host.timing.callTime
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= limit {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}

// perform runs do in p. It returns nil, a *Failure, or the caller's own error.
func (s *supervisor) perform(caller context.Context, p *process, do question) error {
	err := do(caller, p)
	if err == nil {
		return nil
	}
	var f *Failure
	if !errors.As(err, &f) {
		err = classify(caller, s.spec.Name, p.isDead(), err)
		if !errors.As(err, &f) {
			return err // the caller's
		}
	}
	if f.reason == Down {
		select { // the connection may break before the end of the process is noticed
		case <-p.run.dead:
			f.died = !p.run.wasKilled()
		case <-after(deathNotice):
		case <-caller.Done():
		}
	}
	return f
}

// settle counts the outcome of a call, and looks after the process.
func (s *supervisor) settle(p *process, err error) error {
	f, failed := err.(*Failure)
	switch {
	case !failed && err == nil:
		p.answered.Add(1)
		p.garbage.Store(0)
		s.answered()
	case failed:
		s.fault(p, f)
	}
	return err
}

// fault notes a failure, and looks after the process.
func (s *supervisor) fault(p *process, f *Failure) {
	s.failed.Add(1)
	switch f.reason {
	case Convicted:
		return // logged
	case Down:
		select { // what it said last tells why
		case <-p.run.exited:
			if f.Stack == "" {
				f.Stack = lastBytes(p.run.err.last(), maxStack)
			}
		case <-after(100 * time.Millisecond):
		}
		return // the death itself is logged
	case Error:
		p.answered.Add(1)
		if !f.garbage {
			p.garbage.Store(0)
		} else if p.garbage.Add(1) == maxGarbage {
			s.lookAt()
		}
	case Timeout:
		s.lookAt() // does it hang?
	}
	if s.complain.AllowN(s.host.opt.Clock(), 1) {
		s.log.Error("plugin failed", "reason", f.reason, "error", f.Err, "failures", s.failed.Load())
	}
}

// stray counts an answer that nobody asked for. Right answers between them do not excuse it:
// who mixes up calls may mix up verdicts.
func (s *supervisor) stray(p *process, err error) {
	s.fault(p, fail(s.spec.Name, Error, err))
	if p.strays.Add(1) == maxGarbage {
		s.lookAt()
	}
}

// lookAt has the supervisor look at its process now.
func (s *supervisor) lookAt() {
	select {
	case s.check <- struct{}{}:
	default:
	}
}

// enter finds the live process and counts the call in. While there is none it fails at
// once, unless there will be one in a moment.
func (sl *slot) enter(ctx context.Context) (*supervisor, *process, error) {
	var patience <-chan time.Time
	for {
		s := sl.sup.Load()
		if s == nil {
			return nil, nil, fail(sl.name, Down, errUnknown)
		}
		if sl.disabled.Load() {
			s.failed.Add(1)
			return nil, nil, fail(sl.name, Down, errDisabled)
		}
		p := s.cur.Load()
		if p != nil && !p.isDead() && p.calls.enter() {
			return s, p, nil
		}
		if sl.sup.Load() != s { // just replaced
			continue
		}
		if patience == nil {
			patience = after(reviveWait)
		}
		if !s.await(ctx, patience) && sl.sup.Load() == s {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, nil, fmt.Errorf("plugin %s: %w", sl.name, context.Cause(ctx))
			}
			s.failed.Add(1)
			return nil, nil, fail(sl.name, Down, errDown)
		}
	}
}
