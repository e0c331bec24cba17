package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/wire"
)

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

// question is one call to a process: it returns nil, a *Failure, or a gRPC error.
type question func(context.Context, *process) error

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

// judged is call for a question that may be asked twice, about a message of that client. The
// first process counts the call as in flight until the trial is over.
func (sl *slot) judged(caller context.Context, client mail.Client, do question) error {
	s, p, err := sl.enter(caller)
	if err != nil {
		return err
	}
	defer p.calls.leave()
	s.calls.Add(1)
	ctx, cancel := s.limited(caller)
	defer cancel()
	err = s.perform(ctx, p, do)
	if f, ok := err.(*Failure); ok && f.died {
		err = sl.try(ctx, s, p, f, state.ClientKey(client.Addr), do)
	}
	return s.settle(p, err)
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
		case <-p.child.Dead():
			f.died = !p.child.Killed()
		case <-time.After(deathNotice):
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
		case <-p.child.Exited():
			if f.Stack == "" {
				f.Stack = lastBytes(p.child.Err.Last(), maxStack)
			}
		case <-time.After(100 * time.Millisecond):
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
			patience = time.After(reviveWait)
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
