package failover

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOrder(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := New([]string{"a", "b", "c"}, func() time.Time { return now })
	down := map[string]bool{"a": true}
	var asked []string
	ask := func(_ context.Context, address string) error {
		if asked = append(asked, address); down[address] {
			return errors.New("is down")
		}
		return nil
	}
	expect := func(want ...string) {
		t.Helper()
		asked = nil
		s.Ask(t.Context(), ask)
		if !slices.Equal(asked, want) {
			t.Errorf("asked %v, want %v", asked, want)
		}
	}
	expect("a", "b")
	expect("b") // a failed just now
	now = now.Add(rest - 1)
	down["b"] = true
	expect("b", "c")
	now = now.Add(1)
	down["a"] = false
	expect("a") // again in its place
	down["a"], down["c"] = true, true
	expect("a", "c", "b")
	if err := s.Ask(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "a: is down; b: is down; c: is down") || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	now = now.Add(-time.Hour) // the clock is put back
	expect("a", "b", "c")
}

// A server that hangs leaves the others their time, and the caller some for the answer.
func TestShare(t *testing.T) { synctest.Test(t, testShare) }

func testShare(t *testing.T) {
	s := New([]string{"slow", "good"}, time.Now)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	hang := func(ctx context.Context, address string) error {
		if address == "slow" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	if err := s.Ask(ctx, hang); err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	s = New([]string{"slow"}, time.Now)
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := s.Ask(short, hang); !errors.Is(err, context.DeadlineExceeded) || short.Err() != nil {
		t.Errorf("%v, %v", err, short.Err())
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Ask(gone, hang); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStop(t *testing.T) {
	s := New([]string{"a", "b"}, time.Now)
	mine := errors.New("mine")
	n := 0
	ask := func(context.Context, string) error { n++; return Stop(mine) }
	for range 2 {
		if err := s.Ask(t.Context(), ask); err != mine {
			t.Error(err)
		}
	}
	if n != 2 || !s.failed[0].IsZero() {
		t.Errorf("%d calls, failed %v", n, s.failed)
	}
}

func TestSplit(t *testing.T) {
	for address, want := range map[string]string{
		"unix:/run/x": "unix /run/x", "127.0.0.1:3310": "tcp 127.0.0.1:3310", "[::1]:3310": "tcp [::1]:3310", "av.example.org:3310": "tcp av.example.org:3310",
		"unix:": "", "unix:x": "", "/run/x": "", "127.0.0.1": "", ":3310": "", "host:": "", "host:0": "", "": "",
	} {
		network, target, err := Split(address)
		if want == "" != (err != nil) || err == nil && network+" "+target != want {
			t.Errorf("%q: %s %s %v", address, network, target, err)
		}
	}
}

// What waits for a peer ends with the context, also where the context has no deadline.
func TestDial(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Dial(ctx, "unix:"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("read something")
	}
	if _, err := Dial(t.Context(), "unix:"+l.Addr().String()+".gone"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}
