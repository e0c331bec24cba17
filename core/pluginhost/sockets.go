package pluginhost

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/postern-mail/postern/core/pluginhost/child"
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

// of returns what is held for a plugin.
func (s *sockets) of(plugin string) []child.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []child.Listener
	for address, h := range s.open {
		if h.plugin == plugin {
			out = append(out, child.Listener{Address: address, File: h.file})
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
