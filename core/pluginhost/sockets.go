package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// sockets are the listeners that the host holds for services. They stay open while
// processes change, so clients wait for the next one instead of being refused.
type sockets struct {
	mu   sync.Mutex
	open map[string]*heldSocket // by address
	// turns has, for each plugin, who is active: at most one process.
	turns map[string]chan struct{}
}

type heldSocket struct {
	plugin  string
	ln      net.Listener
	file    *os.File // what is handed over
	pending bool     // nobody has taken it into use yet
}

// handed is a listener as a process gets it.
type handed struct {
	address string
	file    *os.File
}

// of returns what is held for a plugin.
func (s *sockets) of(plugin string) []handed {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []handed
	for address, h := range s.open {
		if h.plugin == plugin {
			out = append(out, handed{address, h.file})
		}
	}
	return out
}

// hold opens the addresses that are not held yet.
func (s *sockets) hold(plugin string, addresses []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, address := range addresses {
		if h := s.open[address]; h != nil {
			if h.plugin != plugin {
				return fmt.Errorf("wants to listen on %s, where plugin %q does", address, h.plugin)
			}
			continue
		}
		network, at := "tcp", address
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			network, at = "unix", path
		}
		ln, err := net.Listen(network, at)
		if err != nil {
			return fmt.Errorf("wants to listen on %s: %w", address, err)
		}
		f, err := ln.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			ln.Close()
			return fmt.Errorf("wants to listen on %s: %w", address, err)
		}
		if s.open == nil {
			s.open = make(map[string]*heldSocket)
		}
		s.open[address] = &heldSocket{plugin: plugin, ln: ln, file: f, pending: true}
	}
	return nil
}

// settle notes that a process has taken its listeners into use, and returns where they are.
func (s *sockets) settle(plugin string, wants []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at []string
	for _, address := range wants {
		if h := s.open[address]; h != nil && h.plugin == plugin {
			h.pending = false
			at = append(at, h.ln.Addr().String())
		}
	}
	return at
}

// tidy closes what a plugin does not want: of those in use with used, else of those that
// nobody has taken into use.
func (s *sockets) tidy(plugin string, wants []string, used bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, h := range s.open {
		if h.plugin == plugin && h.pending != used && !slices.Contains(wants, address) {
			h.ln.Close()
			h.file.Close()
			delete(s.open, address)
		}
	}
}

func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.open {
		h.ln.Close()
		h.file.Close()
	}
	s.open = nil
}

// turn is what a process has to take before it is active, and gives back when it is not.
func (s *sockets) turn(plugin string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns == nil {
		s.turns = make(map[string]chan struct{})
	}
	if s.turns[plugin] == nil {
		s.turns[plugin] = make(chan struct{}, 1)
	}
	return s.turns[plugin]
}

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
		missing = missing || !slices.ContainsFunc(p.run.listeners, func(g handed) bool { return g.address == a })
	}
	if !missing || h.opt.Idle {
		return nil
	}
	if err := h.sockets.hold(p.spec.Name, p.wants); err != nil {
		return err
	}
	return errListeners
}

// listenersEnv names the descriptors: the first comes after the parent's.
func listenersEnv(list []handed) string {
	var parts []string
	for i, l := range list {
		parts = append(parts, strconv.Itoa(4+i)+"="+l.address)
	}
	return proto.EnvListeners + "=" + strings.Join(parts, ",")
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
	case <-p.run.exited:
		return
	}
	call, cancel := context.WithTimeout(ctx, s.host.timing.start)
	defer cancel()
	if _, err := proto.NewServiceClient(p.conn).Activate(call, &proto.ActivateRequest{}); err != nil {
		if ctx.Err() == nil {
			s.log.Error("service cannot be activated and is killed", "pid", p.run.pid, "error", classify(ctx, s.spec.Name, p.isDead(), err))
			p.run.Kill(ctx)
		}
		return
	}
	p.answered.Add(1) // it does not die of its first call; clients wait for the next process
	s.log.Info("service active", "pid", p.run.pid, "listeners", s.host.sockets.settle(s.spec.Name, p.wants))
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
