package sdktest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// complaints runs a check and returns what it complains of.
func complaints(t *testing.T, check func(testing.TB)) string {
	t.Helper()
	rec := &recorder{TB: t}
	check(rec)
	return strings.Join(rec.said, "\n")
}

// users is a directory that can be made to do wrong.
type users struct {
	broken string
	own    map[string]string
}

func (u users) Resolve(_ context.Context, a mail.Path) ([]mail.Path, error) {
	if u.broken == "error" && strings.HasPrefix(a.Local, "sdktest-") {
		return nil, errors.New("no such user")
	}
	if u.broken == "empty" {
		return []mail.Path{{}}, nil
	}
	if u.own[a.Fold().Local] == "" {
		return nil, nil
	}
	return []mail.Path{a.Fold()}, nil
}

func (u users) CheckPassword(_ context.Context, login mail.Path, password string) (mail.Path, error) {
	right, ok := u.own[login.Fold().Local]
	switch {
	case u.broken == "prefix" && ok && strings.HasPrefix(password, right), u.broken == "any" && password != "",
		u.broken == "unknown" && password == "secret", u.broken != "nobody" && ok && password == right:
		return login, nil
	}
	return mail.Path{}, nil
}

func TestDirectoryComplains(t *testing.T) {
	for broken, want := range map[string]string{
		"": "", "error": "no such user", "empty": "a target is empty", "prefix": "with a wrong password", "any": "with a wrong password",
		"unknown": "whom there cannot be", "nobody": "was not let in",
	} {
		said := complaints(t, func(t testing.TB) {
			Directory(t, users{broken, map[string]string{"bob": "secret"}}, mail.MustPath("bob@example.org"), "secret")
		})
		if (said == "") != (want == "") || !strings.Contains(said, want) {
			t.Errorf("%s: said %q", broken, said)
		}
	}
}

type observerFunc func([]sdk.Event) error

func (f observerFunc) Observe(_ context.Context, e []sdk.Event) error { return f(e) }

func TestObserverComplains(t *testing.T) {
	types := make(map[sdk.EventType]int)
	said := complaints(t, func(t testing.TB) {
		Observer(t, observerFunc(func(events []sdk.Event) error {
			for _, e := range events {
				types[e.Type]++
			}
			return nil
		}))
	})
	if said != "" || len(types) != 9 {
		t.Errorf("said %q; types %v", said, types)
	}
	seen := make(map[uint64]bool)
	said = complaints(t, func(t testing.TB) {
		Observer(t, observerFunc(func(events []sdk.Event) error {
			defer func() { seen[events[0].Seq] = true }()
			if seen[events[0].Seq] {
				return errors.New("duplicate key")
			}
			return nil
		}))
	})
	if !strings.Contains(said, "events of each type: duplicate key") {
		t.Errorf("said %q", said)
	}
}

// greeter says hello on its addresses.
type greeter struct {
	addresses []string
	early     chan struct{} // Serve returns at once, and closes it; nil: it does not
}

func (g greeter) Listeners(context.Context) ([]string, error) { return g.addresses, nil }

func (g greeter) Serve(ctx context.Context, listeners []net.Listener) error {
	if g.early != nil {
		defer close(g.early)
		return errors.New("tired")
	}
	var wg sync.WaitGroup
	for i, l := range listeners {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, g.addresses[i])
				c.Close()
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

func TestService(t *testing.T) {
	g := greeter{addresses: []string{":25", "unix:/run/greeter"}}
	for i, a := range Service(t, g) {
		c, err := net.Dial(a.Network(), a.String())
		if err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if strings.TrimSpace(line) != g.addresses[i] {
			t.Errorf("%s says %q", a, line)
		}
	}
}

// inner is a test whose end can be had before that of the outer one.
type inner struct {
	recorder
	cleanups []func()
}

func (i *inner) Cleanup(f func()) { i.cleanups = append(i.cleanups, f) }

func (i *inner) end() {
	for n := len(i.cleanups) - 1; n >= 0; n-- {
		i.cleanups[n]()
	}
}

func TestServiceComplains(t *testing.T) {
	in := &inner{recorder: recorder{TB: t}}
	early := make(chan struct{})
	Service(in, greeter{early: early})
	<-early
	in.end()
	if said := strings.Join(in.said, "\n"); !strings.Contains(said, "tired") {
		t.Errorf("said %q", said)
	}
}
