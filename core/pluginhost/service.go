package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/postern-mail/postern/core/pluginhost/child"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// errListeners says that a process wants listeners that it was not given; they are open now.
var errListeners = errors.New("wants other listeners than at its last start")

// listeners asks a service where it wants to listen.
func (p *process) listeners(ctx context.Context, h *Host) error {
	if !p.desc.Service {
		return nil
	}
	r, err := proto.NewServiceClient(p.conn).Listeners(ctx, &proto.ListenersRequest{})
	if err != nil {
		return fmt.Errorf("does not say where it listens: %w", classify(ctx, p.spec.Name, p.isDead(), err))
	}
	if p.wants, err = wire.Listeners(r); err != nil {
		return err
	}
	missing := false
	for _, a := range p.wants {
		missing = missing || !slices.ContainsFunc(p.given, func(g child.Listener) bool { return g.Address == a })
	}
	if !missing || h.opt.Idle {
		return nil
	}
	if err := h.sockets.hold(p.spec.Name, p.wants); err != nil {
		return err
	}
	return errListeners
}

// begin activates a service when its predecessor is not active any more.
func (s *supervisor) begin(ctx context.Context, p *process) {
	if !p.desc.Service || p.barred || s.host.opt.Idle {
		return
	}
	select {
	case s.host.sockets.turn(s.spec.Name) <- struct{}{}:
		s.active = true
	case <-ctx.Done():
		return
	case <-p.child.Exited():
		return
	}
	call, cancel := context.WithTimeout(ctx, s.host.timing.start)
	defer cancel()
	if _, err := proto.NewServiceClient(p.conn).Activate(call, &proto.ActivateRequest{}); err != nil {
		if ctx.Err() == nil {
			s.log.Error("service cannot be activated and is killed", "pid", p.child.Pid(), "error", classify(ctx, s.spec.Name, p.isDead(), err))
			p.child.Kill(ctx)
		}
		return
	}
	p.answered.Add(1) // it does not die of its first call; clients wait for the next process
	s.log.Info("service active", "pid", p.child.Pid(), "listeners", s.host.sockets.settle(s.spec.Name, p.wants))
}

// rest says that the process is not active any more: it has ended.
func (s *supervisor) rest() {
	if s.active {
		s.active = false
		<-s.host.sockets.turn(s.spec.Name)
	}
}

// tidySockets closes what the plugin of today does not want.
func (h *Host) tidySockets(name string) {
	sl := h.find(name)
	if sl != nil && sl.disabled.Load() {
		h.sockets.tidy(name, nil, false)
		h.sockets.tidy(name, nil, true)
		return
	}
	var wants []string
	if sl != nil {
		if s := sl.sup.Load(); s != nil {
			s.mu.Lock()
			wants = s.last.wants
			s.mu.Unlock()
		}
	}
	h.sockets.tidy(name, wants, true)
}
