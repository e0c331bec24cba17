package hostservice

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
	"github.com/postern-mail/postern/core/state"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// serveHost is a server for a plugin that declares rights, and how often it did what it must not.
func serveHost(t *testing.T, rights sdk.HostRight, services Services) (*Server, *atomic.Int64) {
	t.Helper()
	var denied atomic.Int64
	log := pluginlog.New(slog.New(slog.DiscardHandler), "p", time.Now)
	s := New(Options{Plugin: "p", Services: services, Counters: &Counters{}, Log: log, Fault: func(error) { denied.Add(1) }})
	dir, err := os.MkdirTemp("", "host") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if _, err := s.Listen(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Grant(rights)
	return s, &denied
}

func connectHost(t *testing.T, s *Server, token string) *sdk.Host {
	t.Helper()
	h, err := sdk.ConnectHost(s.address, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// G-17: who finds the socket but does not know the token gets nothing, and is counted.
func TestG17HostNeedsToken(t *testing.T) {
	s, denied := serveHost(t, ^sdk.HostRight(0), Services{State: state.NewFacts(1<<20, time.Now)})
	for i, token := range []string{"", "x", s.token[1:], s.token + "x"} {
		if err := connectHost(t, s, token).SetState(t.Context(), "k", []byte("v"), 0); err == nil {
			t.Errorf("token %q is good enough", token)
		}
		if n := denied.Load(); n != int64(i+1) {
			t.Errorf("%d faults are counted after %d calls", n, i+1)
		}
	}
	if err := connectHost(t, s, s.token).SetState(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Error(err)
	}
}

// Limits of what a call may say, at the limit and beyond.
func TestHostLimits(t *testing.T) {
	s, _ := serveHost(t, sdk.MayKeepState|sdk.MayCount|sdk.MayKeepData, Services{State: state.NewFacts(1<<20, time.Now)})
	h, ctx := connectHost(t, s, s.token), t.Context()
	key := func(n int) string { return string(bytes.Repeat([]byte("k"), n)) }
	for _, tt := range []struct {
		name string
		err  error
		ok   bool
	}{
		{"a key of 256", h.SetState(ctx, key(maxStateKey), nil, 0), true},
		{"a key of 257", h.SetState(ctx, key(maxStateKey+1), nil, 0), false},
		{"no key", h.SetState(ctx, "", nil, 0), false},
		{"a value of 4096", h.SetState(ctx, "k", make([]byte, maxStateValue), 0), true},
		{"a value of 4097", h.SetState(ctx, "k", make([]byte, maxStateValue+1), 0), false},
		{"a negative lifetime", h.SetState(ctx, "k", nil, -2*time.Second), false},
		{"a counter of 64", h.Count(ctx, key(maxCounterName), 1), true},
		{"a counter of 65", h.Count(ctx, key(maxCounterName+1), 1), false},
		{"a counter in capitals", h.Count(ctx, "A", 1), false},
	} {
		if (tt.err == nil) != tt.ok || !tt.ok && !errors.Is(tt.err, sdk.ErrInvalid) {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
	for i := range maxCounters - 1 {
		if err := h.Count(ctx, key(i+1), 1); err != nil {
			t.Fatalf("counter %d: %v", i+2, err)
		}
	}
	if err := h.Count(ctx, "one_more", 1); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a counter too many: %v", err)
	}
	if err := h.Count(ctx, "k", 1); err != nil {
		t.Errorf("a counter that is there: %v", err)
	}
	// A service that this process does not have is a failure for now.
	if _, err := h.Data(ctx, mail.MustPath("a@example.org"), "k"); err == nil || errors.Is(err, sdk.ErrInvalid) || errors.Is(err, sdk.ErrNotPermitted) {
		t.Errorf("no such service: %v", err)
	}
}

// listing is a mailbox that tells its folders to all but "p".
type listing struct{ err error }

func (l listing) Folders(_ context.Context, plugin string, to mail.Path) (*sdk.FolderList, error) {
	if to.Local == "untold" {
		return nil, nil
	}
	return &sdk.FolderList{Folders: []sdk.Folder{{Name: plugin, Uses: []string{`\Junk`}}}, Separators: "."}, l.err
}

// Folders are told to who has the right; a failure is one for now, unless it can never be told.
func TestHostFolders(t *testing.T) {
	ask := func(rights sdk.HostRight, folders Folders, to string) (*sdk.FolderList, error) {
		s, _ := serveHost(t, rights, Services{Folders: folders})
		return connectHost(t, s, s.token).Folders(t.Context(), mail.MustPath(to))
	}
	l, err := ask(sdk.MayAskFolders, listing{}, "a@example.org")
	if f, ok := l.Use(`\junk`); err != nil || !ok || f.Name != "p" || l.Separators != "." {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := ask(sdk.MayAskFolders, listing{}, "untold@example.org"); l != nil || err != nil {
		t.Errorf("%+v, %v", l, err)
	}
	for _, tt := range []struct {
		rights  sdk.HostRight
		folders Folders
		want    error // nil: another one
	}{
		{^sdk.MayAskFolders, listing{}, sdk.ErrNotPermitted},
		{sdk.MayAskFolders, listing{mail.Permanent(550, 3, 5, "never")}, sdk.ErrInvalid},
		{sdk.MayAskFolders, listing{errors.New("down")}, nil},
		{sdk.MayAskFolders, nil, nil},
	} {
		_, err := ask(tt.rights, tt.folders, "a@example.org")
		if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && (err == nil || errors.Is(err, sdk.ErrInvalid) || errors.Is(err, sdk.ErrNotPermitted)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
