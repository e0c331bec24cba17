package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/postern-mail/postern/sdk/proto"
)

// Service works by itself for as long as it runs: a server for other protocols, or something
// that happens by the clock.
type Service interface {
	// Listeners returns the addresses it wants to listen on: "host:port" or "unix:/path",
	// each once, none for a service that only has a clock. It is called once, after
	// Configure. The gateway opens them, also privileged ports, and starts the plugin anew
	// if need be.
	Listeners(ctx context.Context) ([]string, error)
	// Serve does the work, with the listeners in the order of the addresses, until ctx ends;
	// then it finishes what cannot wait and returns. It is never called while another
	// process of the plugin is in its Serve, and connections wait meanwhile. It has half a
	// minute to return; then the process is ended. If it returns before ctx ends, the
	// process ends and is started anew.
	Serve(ctx context.Context, listeners []net.Listener) error
}

// running is the state of a plugin's Service.
type running struct {
	mu        sync.Mutex
	addresses []string
	cancel    context.CancelFunc
	done      chan struct{} // closed when Serve has returned; nil: not active
}

// handedOver are the listeners in the environment, by address.
func handedOver() (map[string]int, error) {
	fds := make(map[string]int)
	v := os.Getenv(proto.EnvListeners)
	os.Unsetenv(proto.EnvListeners)
	for part := range strings.SplitSeq(v, ",") {
		if part == "" {
			continue
		}
		n, address, ok := strings.Cut(part, "=")
		fd, err := strconv.Atoi(n)
		if !ok || err != nil || fd < 3 {
			return nil, fmt.Errorf("%s=%q is malformed", proto.EnvListeners, v)
		}
		syscall.CloseOnExec(fd) // it is not for the plugin's children
		fds[address] = fd
	}
	return fds, nil
}

func (s *server) Listeners(ctx context.Context, _ *proto.ListenersRequest) (*proto.ListenersResponse, error) {
	addresses, err := s.service.Listeners(ctx)
	if err != nil {
		return nil, failure(err)
	}
	s.running.mu.Lock()
	defer s.running.mu.Unlock()
	s.running.addresses = addresses
	return &proto.ListenersResponse{Addresses: addresses}, nil
}

func (s *server) Activate(context.Context, *proto.ActivateRequest) (*proto.ActivateResponse, error) {
	r := &s.running
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done != nil {
		return nil, failure(errors.New("it is active already"))
	}
	var listeners []net.Listener
	for _, a := range r.addresses {
		fd, ok := s.handed[a]
		if !ok {
			return nil, failure(fmt.Errorf("no listener for %s was handed over", a))
		}
		f := os.NewFile(uintptr(fd), a)
		l, err := net.FileListener(f)
		f.Close()
		delete(s.handed, a)
		if err != nil {
			return nil, failure(fmt.Errorf("listener for %s: %w", a, err))
		}
		listeners = append(listeners, l)
	}
	for a, fd := range s.handed { // at its last start it wanted them: here they would listen on
		syscall.Close(fd)
		delete(s.handed, a)
	}
	ctx, cancel := context.WithCancel(WithHost(context.Background(), s.host))
	r.cancel, r.done = cancel, make(chan struct{})
	go s.serve(ctx, listeners, r.done)
	return &proto.ActivateResponse{}, nil
}

// serve runs the Service. Its end before its time is that of the process.
func (s *server) serve(ctx context.Context, listeners []net.Listener, done chan struct{}) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("panic in Serve", "panic", fmt.Sprint(p), "stack", clip(string(debug.Stack()), maxStack))
			os.Exit(2)
		}
	}()
	err := s.service.Serve(ctx, listeners)
	for _, l := range listeners {
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the gateway's
		}
		l.Close()
	}
	if ctx.Err() == nil {
		slog.Error("the service ended before its time", "error", fmt.Sprint(err))
		os.Exit(1)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
		slog.Warn("the service did not end cleanly", "error", err)
	}
	close(done)
}

// end ends the Service and waits for it.
func (s *server) end(ctx context.Context) {
	s.running.mu.Lock()
	cancel, done := s.running.cancel, s.running.done
	s.running.mu.Unlock()
	if done == nil {
		return
	}
	cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
