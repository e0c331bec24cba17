package gateway

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// socket is a listening socket that outlives the server behind it: a reload hands it to a
// new one without refusing a connection.
type socket struct {
	net.Listener
	log   *slog.Logger
	begin sync.Once // accepting
	mu    sync.Mutex
	cur   *facade
}

// facade is the socket as one server sees it.
type facade struct {
	s     *socket
	conns chan net.Conn
	quit  chan struct{}
	once  sync.Once
}

func openSocket(network, address string, log *slog.Logger) (*socket, error) {
	if network == "unix" {
		removeStale(address)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return &socket{Listener: l, log: log}, nil
}

// removeStale removes a socket file that nobody listens on any more.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
}

// Close closes the socket, and ends the server that has it.
func (s *socket) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	cur := s.cur
	s.mu.Unlock()
	if cur != nil {
		cur.Close()
	}
	return err
}

// accept hands connections to whoever has the socket now.
func (s *socket) accept() {
	pause := 5 * time.Millisecond
	for {
		conn, err := s.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files, as a rule: wait for some to be closed (D-09)
			s.log.Error("cannot accept connections", "listener", s.Addr().String(), "error", err, "pause", pause)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		for conn != nil {
			s.mu.Lock()
			cur := s.cur
			s.mu.Unlock()
			if cur == nil {
				conn.Close()
				break
			}
			select {
			case cur.conns <- conn:
				conn = nil
			case <-cur.quit: // handed over meanwhile
			}
		}
	}
}

// hand makes a new facade the one that gets connections and closes the old one.
func (s *socket) hand() net.Listener {
	f := &facade{s: s, conns: make(chan net.Conn), quit: make(chan struct{})}
	s.mu.Lock()
	old := s.cur
	s.cur = f
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
	s.begin.Do(func() { go s.accept() })
	return f
}

// Accept waits for the next connection.
func (f *facade) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.quit:
		return nil, net.ErrClosed
	}
}

// Close ends this server's use of the socket; the socket stays.
func (f *facade) Close() error {
	f.once.Do(func() {
		close(f.quit)
		f.s.mu.Lock()
		if f.s.cur == f {
			f.s.cur = nil
		}
		f.s.mu.Unlock()
	})
	return nil
}

// Addr is the address of the socket.
func (f *facade) Addr() net.Addr { return f.s.Addr() }
