package suite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// A service gets listeners for the addresses that it names, but elsewhere: on any port of
// loopback, and on unix sockets in the temporary folder. So nobody needs rights for the
// ports of the settings, and a gateway that runs is not disturbed.

const (
	acceptLimit = 2 * time.Second        // for an active service to accept a connection
	quiet       = 200 * time.Millisecond // in which one that is not active must not
)

// A listener that is handed to a plugin.
type listener struct {
	name string // the address that the plugin named
	ln   net.Listener
	file *os.File
}

type acceptor interface {
	net.Listener
	SetDeadline(time.Time) error
	File() (*os.File, error)
}

// listen opens a listener that stands for an address.
func (r *run) listen(name string) (l listener, err error) {
	network, at := "tcp", "127.0.0.1:0"
	if strings.HasPrefix(name, "unix:") {
		dir, err := os.MkdirTemp(r.dir, "l")
		if err != nil {
			return l, err
		}
		network, at = "unix", filepath.Join(dir, "s")
	}
	l.name = name
	if l.ln, err = net.Listen(network, at); err != nil {
		return l, err
	}
	l.file, err = l.ln.(acceptor).File()
	return l, err
}

func (l listener) close() {
	if l.ln != nil {
		l.ln.Close()
	}
	if l.file != nil {
		l.file.Close()
	}
}

// left connects, and reports whether nobody accepts the connection for that time. It knows
// sooner of who says something or hangs up.
func (l listener) left(wait time.Duration) (bool, error) {
	c, err := net.Dial(l.ln.Addr().Network(), l.ln.Addr().String())
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(wait))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	// We have the same listener: a connection that is still there nobody wanted.
	a := l.ln.(acceptor)
	a.SetDeadline(time.Now().Add(50 * time.Millisecond))
	got, err := a.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	got.Close()
	return true, nil
}

// taken connects, and waits until somebody accepts.
func (l listener) taken() error {
	for begun := time.Now(); ; {
		left, err := l.left(quiet)
		if err != nil || !left {
			return err
		}
		if time.Since(begun) > acceptLimit {
			return fmt.Errorf("it is active and accepts no connections on %s", l.name)
		}
	}
}

func listenersEnv(all []listener) string {
	var parts []string
	for i, l := range all {
		parts = append(parts, strconv.Itoa(4+i)+"="+l.name)
	}
	return proto.EnvListeners + "=" + strings.Join(parts, ",")
}

// service goes through the life of one: asked for its listeners, started with them, activated,
// drained.
func (r *run) service(ctx context.Context) {
	defer r.end() // it has been drained
	var all []listener
	defer func() {
		for _, l := range all {
			l.close()
		}
	}()
	if !r.check(ctx, "service: names its listeners", func(ctx context.Context) (string, error) {
		p, err := r.live(ctx)
		if err != nil {
			return "", err
		}
		names, err := r.names(ctx, p)
		if err != nil {
			return "", err
		}
		for _, name := range names {
			l, err := r.listen(name)
			all = append(all, l)
			if err != nil {
				return "", err
			}
		}
		return strings.Join(names, ", "), nil
	}) {
		return
	}
	if !r.check(ctx, "service: starts with its listeners and waits", func(ctx context.Context) (string, error) { return "", r.waits(ctx, all) }) {
		return
	}
	if !r.check(ctx, "service: works once it is activated", func(ctx context.Context) (string, error) { return "", r.works(ctx, all) }) {
		return
	}
	r.check(ctx, "service: stops when it is drained", func(ctx context.Context) (string, error) { return r.stops(ctx, all) })
}

// names asks where it wants to listen.
func (r *run) names(ctx context.Context, p *process) ([]string, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	a, err := proto.NewServiceClient(p.conn).Listeners(ctx, &proto.ListenersRequest{})
	if err != nil {
		return nil, callError("Listeners", err)
	}
	return wire.Listeners(a)
}

// waits starts a process with the listeners. Until it is activated it must not use them.
func (r *run) waits(ctx context.Context, all []listener) error {
	p, err := r.fresh(ctx, all...)
	if err != nil {
		return err
	}
	if err := r.begin(ctx, p); err != nil {
		return err
	}
	names, err := r.names(ctx, p)
	if err != nil {
		return err
	}
	for i, name := range names {
		if len(names) != len(all) || name != all[i].name {
			return fmt.Errorf("started with its listeners it wants others: %s", strings.Join(names, ", "))
		}
	}
	for _, l := range all {
		left, err := l.left(quiet)
		if err != nil {
			return err
		}
		if !left {
			return fmt.Errorf("it accepts connections on %s before it is activated, while another process may be active", l.name)
		}
	}
	return r.health(ctx, p)
}

// works activates it.
func (r *run) works(ctx context.Context, all []listener) error {
	limited, cancel := r.limited(ctx)
	defer cancel()
	if _, err := proto.NewServiceClient(r.proc.conn).Activate(limited, &proto.ActivateRequest{}); err != nil {
		return callError("Activate", err)
	}
	for _, l := range all {
		if err := l.taken(); err != nil {
			return err
		}
	}
	select {
	case <-r.proc.dead:
		return errors.New("it ended by itself")
	case <-time.After(quiet):
	}
	return r.health(ctx, r.proc)
}

// stops drains it. After that the listeners are the next process's.
func (r *run) stops(ctx context.Context, all []listener) (string, error) {
	begun := time.Now()
	if _, err := r.drain(ctx); err != nil {
		return "", err
	}
	took := time.Since(begun)
	for _, l := range all {
		left, err := l.left(quiet)
		if err != nil {
			return "", fmt.Errorf("connections to %s are refused after Drain: the next process could not take them: %w", l.name, err)
		}
		if !left {
			return "", fmt.Errorf("it accepts connections on %s after Drain", l.name)
		}
	}
	return "after " + took.Round(time.Millisecond).String(), nil
}
