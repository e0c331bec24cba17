package sdktest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/samples"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Directory checks what every directory promises, with an account that it has: the address
// exists and the password opens the account, in a form that the gateway takes; another password
// does not, nor does any for a user that there cannot be; and what clients ask for, whatever
// it is, gets an answer and no error.
func Directory(t testing.TB, d sdk.Directory, account mail.Path, password string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resolve := func(a mail.Path) []mail.Path {
		targets, err := d.Resolve(ctx, a)
		if err == nil {
			targets, err = wire.Targets(&proto.ResolveResponse{Targets: wire.Paths(targets)})
		}
		if err != nil {
			t.Errorf("Resolve of %s: %v", a, err)
		}
		return targets
	}
	if len(resolve(account)) == 0 {
		t.Errorf("there is no %s", account)
	}
	got, err := d.CheckPassword(ctx, account, password)
	switch {
	case err != nil:
		t.Errorf("the password of %s: %v", account, err)
	case got.IsZero():
		t.Errorf("%s was not let in with the right password", account)
	}
	nobody := mail.Path{Local: "sdktest-" + strings.ToLower(rand.Text()), Domain: account.Domain}
	wrong := append(samples.Passwords(), password+"x", strings.ToUpper(password)+"x")
	for _, a := range append(samples.Addresses(account.Domain), nobody, account) {
		resolve(a)
		for _, w := range wrong {
			if w == password {
				continue
			}
			if got, err := d.CheckPassword(ctx, a, w); err != nil || !got.IsZero() {
				t.Errorf("%s with a wrong password: %s, %v", a, got, err)
			}
		}
	}
	if got, err := d.CheckPassword(ctx, nobody, password); err != nil || !got.IsZero() {
		t.Errorf("%s, whom there cannot be, with somebody's password: %s, %v", nobody, got, err)
	}
}

// Folders asks a mailbox for the folders of a recipient as the gateway does. It fails the test when
// the list breaks the contract, or has a name that means another folder or none. It returns the answer.
func Folders(t testing.TB, f sdk.Folders, recipient mail.Path) (*sdk.FolderList, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	list, err := f.Folders(ctx, recipient)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = &sdk.FolderList{}
	}
	if _, err := wire.Folders(wire.FolderList(list)); err != nil {
		t.Errorf("the list breaks the contract: %v", err)
	}
	for _, f := range list.Folders {
		if found, ok := list.Find(f.Name); !ok || found.Name != f.Name {
			t.Errorf("folder %q cannot be found by its name", f.Name)
		}
	}
	return list, nil
}

// Observer tells an observer of events of each type, with all that can be known and with as
// little as there may be, and of the same ones again, which it has to take.
func Observer(t testing.TB, o sdk.Observer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events := samples.Events()
	newer := events[0]
	newer.Type, newer.Seq = 99, 1000
	for what, batch := range map[string][]sdk.Event{"events of each type": events, "a type that is newer": {newer}} {
		for range 2 {
			if err := o.Observe(ctx, batch); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// Service runs a service as the gateway does, on addresses of its own in the place of those
// that the service names: a port of loopback, or a unix socket in a temporary folder. It returns
// where to connect to, in the order of the service's addresses. At the end of the test the
// service is told to end, and has to within the gateway's time, and not before.
func Service(t testing.TB, s sdk.Service) []net.Addr {
	t.Helper()
	names, err := s.Listeners(t.Context())
	if err == nil {
		_, err = wire.Listeners(&proto.ListenersResponse{Addresses: names})
	}
	if err != nil {
		t.Fatalf("the service's addresses: %v", err)
	}
	var listeners []net.Listener
	var addrs []net.Addr
	for _, name := range names {
		network, at := "tcp", "127.0.0.1:0"
		if strings.HasPrefix(name, "unix:") {
			network, at = "unix", filepath.Join(shortDir(t), "s")
		}
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		listeners, addrs = append(listeners, l), append(addrs, l.Addr())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listeners) }()
	t.Cleanup(func() {
		select {
		case err := <-done:
			done <- err // and nothing more will come
			t.Errorf("Serve returned before it was told to: %v", err)
		default:
		}
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(serviceEnd):
			t.Errorf("Serve did not return within %s after its context ended", serviceEnd)
		}
		for _, l := range listeners {
			l.Close()
		}
	})
	return addrs
}

// serviceEnd is what the gateway gives a service to end.
const serviceEnd = 30 * time.Second

// shortDir is a temporary folder whose name leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "service")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
