package pluginhost

import (
	"context"
	"errors"
	"fmt"
)

var (
	errDisabled    = errors.New("disabled by an admin")
	errNotDisabled = errors.New("it is not disabled")
	errClosed      = errors.New("plugin host: closed")
)

// Restart replaces the process of a plugin: the new one is started beside the old, and when
// it is configured and healthy it takes over. After an error the old one goes on.
func (h *Host) Restart(ctx context.Context, name string) error {
	return h.steer(name, func(sl *slot, s *supervisor) error {
		if sl.disabled.Load() {
			return fmt.Errorf("plugin %q is %w: enable it", name, errDisabled)
		}
		if err := h.replace(ctx, sl, s); err != nil {
			return err
		}
		h.opt.Up(name)
		return nil
	})
}

// Disable takes a plugin out of use until it is enabled, or the host starts anew. It counts
// as down from now on; the calls it has go on, and then its process ends.
func (h *Host) Disable(name string) error {
	return h.steer(name, func(sl *slot, s *supervisor) error {
		if sl.disabled.Swap(true) {
			return nil
		}
		s.log.Warn("plugin disabled by an admin")
		h.retireLater(s)
		return nil
	})
}

// Enable takes a disabled plugin back into use, with a new process. After an error it
// stays disabled.
func (h *Host) Enable(ctx context.Context, name string) error {
	return h.steer(name, func(sl *slot, s *supervisor) error {
		if !sl.disabled.Load() {
			return fmt.Errorf("plugin %q: %w", name, errNotDisabled)
		}
		if err := h.replace(ctx, sl, s); err != nil {
			return err
		}
		sl.disabled.Store(false)
		s.log.Info("plugin enabled by an admin")
		h.opt.Up(name)
		return nil
	})
}

// steer runs do with a plugin that is configured; nothing else changes plugins meanwhile.
func (h *Host) steer(name string, do func(*slot, *supervisor) error) error {
	h.reload.Lock()
	defer h.reload.Unlock()
	if h.closed {
		return errClosed
	}
	sl := h.find(name)
	if sl == nil {
		return fmt.Errorf("there is no plugin %q: see postern plugin list", name)
	}
	return do(sl, sl.sup.Load())
}

// replace puts a new process in the place of the old.
func (h *Host) replace(ctx context.Context, sl *slot, old *supervisor) error {
	spec := old.spec
	spec.program = stamp(spec.Command)
	p, err := h.launchHealthy(ctx, spec)
	if err != nil {
		return err
	}
	sl.sup.Store(h.supervise(p))
	h.retireLater(old)
	return nil
}

// launchHealthy launches a process that answers a health check.
func (h *Host) launchHealthy(ctx context.Context, spec Spec) (*process, error) {
	p, err := h.launch(ctx, spec)
	if err == nil && !p.healthy(ctx, h.timing.health) {
		p.kill()
		return nil, fmt.Errorf("plugin %q: does not answer a health check", spec.Name)
	}
	return p, err
}
