package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/core/pluginhost/child"
	"github.com/postern-mail/postern/core/pluginhost/draft"
	"github.com/postern-mail/postern/core/pluginhost/hostservice"
)

// Host runs plugins. Build it with [Start].
type Host struct {
	opt      Options
	timing   timing
	parent   *child.Parent
	drafts   draft.Dir
	sockets  sockets // of services
	counters hostservice.Counters

	reload sync.Mutex // one Reload or Close at a time
	mu     sync.RWMutex
	slots  map[string]*slot
	order  []string
	retire sync.WaitGroup // supervisors that are being stopped
	trials inflight       // see suspects.go
	online sync.Map       // programs whose manifest asks for the network, by Spec.key
	life   context.Context
	die    context.CancelFunc // ends what is still going on when the host is closed
	closed bool
}

// A slot is a plugin's name. What runs behind it changes.
type slot struct {
	name string
	sup  atomic.Pointer[supervisor] // nil: not configured (any more)

	disabled atomic.Bool // by an admin; see steer.go
	suspects atomic.Int32
	court    chan struct{} // held by the one trial at a time
}

// Start starts and configures all plugins at once. If one of them cannot be, it returns
// errors that name every such plugin, and nothing is left running.
func Start(ctx context.Context, opt Options, specs []Spec) (*Host, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Up == nil {
		opt.Up = func(string) {}
	}
	if opt.SelfExe == "" {
		opt.SelfExe = "/proc/self/exe"
	}
	h := &Host{opt: opt, timing: defaultTiming(), slots: make(map[string]*slot), trials: newInflight()}
	if opt.timing != nil {
		h.timing = *opt.timing
	}
	h.life, h.die = context.WithCancel(context.Background())
	if err := h.open(); err != nil {
		return nil, err
	}
	if err := h.Reload(ctx, specs); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

func (h *Host) open() error {
	var err error
	h.parent, err = child.Open(child.Options{RunDir: h.opt.RunDir, SelfExe: h.opt.SelfExe, Group: h.opt.ContentGroup, Log: h.opt.Log})
	if err != nil {
		return err
	}
	dir := h.opt.DraftDir
	if dir == "" {
		dir = filepath.Join(h.opt.RunDir, "drafts")
	}
	if h.drafts, err = draft.Open(dir); err != nil {
		h.parent.Close()
	}
	return err
}

func (h *Host) release() {
	h.sockets.close()
	h.die()
	h.drafts.Close()
	h.parent.Close()
}

// Reload makes specs the plugins that run. Those that did not change, neither the spec nor
// the program, keep their process.
// The new ones are started beside the old, and when all are configured and healthy they
// take over at once; the old ones finish what they have and end in the background. After
// an error everything is as it was.
func (h *Host) Reload(ctx context.Context, specs []Spec) error {
	h.reload.Lock()
	defer h.reload.Unlock()
	if h.closed {
		return errClosed
	}
	var faults []error
	seen := make(map[string]bool)
	specs = slices.Clone(specs)
	for i, s := range specs {
		specs[i].program = stamp(s.Command)
		if err := s.check(); err != nil {
			faults = append(faults, err)
		}
		if seen[s.Name] {
			faults = append(faults, fmt.Errorf("plugin %q is configured twice", s.Name))
		}
		seen[s.Name] = true
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	fresh, err := h.launchAll(ctx, specs)
	if err != nil {
		return err
	}
	h.swap(specs, fresh)
	return nil
}

// launchAll launches what is new or changed. The result has nil for the others.
func (h *Host) launchAll(ctx context.Context, specs []Spec) ([]*process, error) {
	fresh := make([]*process, len(specs))
	faults := make([]error, len(specs))
	var wg sync.WaitGroup
	for i, s := range specs {
		if sup := h.supervisor(s.Name); sup != nil && sup.spec.equal(s) {
			continue
		}
		wg.Go(func() {
			fresh[i], faults[i] = h.launchHealthy(ctx, s)
		})
	}
	wg.Wait()
	err := errors.Join(faults...)
	if err != nil {
		for _, p := range fresh {
			if p != nil {
				wg.Go(func() {
					p.kill()
					h.sockets.tidy(p.spec.Name, nil, false)
				})
			}
		}
		wg.Wait()
		return nil, err
	}
	return fresh, nil
}

func (h *Host) swap(specs []Spec, fresh []*process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := make(map[string]bool)
	h.order = h.order[:0:0]
	for i, s := range specs {
		keep[s.Name] = true
		h.order = append(h.order, s.Name)
		if fresh[i] == nil {
			continue
		}
		sl := h.slots[s.Name]
		if sl == nil {
			sl = &slot{name: s.Name, court: make(chan struct{}, 1)}
			h.slots[s.Name] = sl
		}
		fresh[i].barred = sl.disabled.Load()
		now := h.supervise(fresh[i])
		h.retireLater(sl.sup.Swap(now))
		if sl.disabled.Load() { // its new settings are good; that was the question
			h.retireLater(now)
		}
	}
	for name, sl := range h.slots {
		if !keep[name] {
			h.retireLater(sl.sup.Swap(nil))
			delete(h.slots, name)
		}
	}
}

func (h *Host) retireLater(s *supervisor) {
	if s == nil {
		return
	}
	h.retire.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), h.timing.drain)
		defer cancel()
		s.stop(ctx)
		h.tidySockets(s.spec.Name)
	})
}

func (h *Host) supervisor(name string) *supervisor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if sl := h.slots[name]; sl != nil {
		return sl.sup.Load()
	}
	return nil
}

// Close drains and ends all plugins. When ctx ends, they are killed. The host cannot be
// used again.
func (h *Host) Close(ctx context.Context) {
	h.reload.Lock()
	defer h.reload.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	h.mu.Lock()
	slots := h.slots
	h.slots, h.order = make(map[string]*slot), nil
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, sl := range slots {
		if s := sl.sup.Swap(nil); s != nil {
			wg.Go(func() { s.stop(ctx) })
		}
	}
	wg.Wait()
	h.retire.Wait()
	h.trials.close()
	select {
	case <-h.trials.idle:
	case <-ctx.Done():
	}
	h.die()
	<-h.trials.idle
	h.release()
}
