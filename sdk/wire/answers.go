package wire

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

const (
	maxTargets   = 1000 // what one address stands for
	maxListeners = 32   // of one service
	maxSocket    = 100  // bytes of a unix socket's path
)

// Targets reads what a directory says that an address stands for. An error says what it did
// wrong.
func Targets(r *proto.ResolveResponse) ([]mail.Path, error) {
	if n := len(r.GetTargets()); n > maxTargets {
		return nil, fmt.Errorf("%d targets are too many", n)
	}
	var targets []mail.Path
	for _, p := range r.GetTargets() {
		t, err := address(p)
		if err != nil {
			return nil, fmt.Errorf("a target is malformed: %w", err)
		}
		if t.IsZero() {
			return nil, errors.New("a target is empty")
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// Listeners reads where a service wants to listen. An error says what it did wrong.
func Listeners(r *proto.ListenersResponse) ([]string, error) {
	all := r.GetAddresses()
	if len(all) > maxListeners {
		return nil, fmt.Errorf("wants to listen on more than %d addresses", maxListeners)
	}
	for i, a := range all {
		if err := checkListener(a); err != nil {
			return nil, fmt.Errorf("wants to listen on %q: %w", clip(a), err)
		}
		if slices.Contains(all[:i], a) {
			return nil, fmt.Errorf("wants to listen on %s twice", a)
		}
	}
	return all, nil
}

func checkListener(address string) error {
	if strings.ContainsAny(address, ",=") || !isLine(address, maxText) {
		return errors.New("it is not an address")
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if len(path) < 2 || len(path) > maxSocket || path[0] != '/' {
			return fmt.Errorf("the path of a unix socket is absolute and has at most %d bytes", maxSocket)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New(`it is neither "host:port" nor "unix:/path"`)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port is not a number")
	}
	return nil
}
