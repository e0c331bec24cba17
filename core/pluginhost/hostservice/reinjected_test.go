package hostservice

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// room is where plugins of a test wait.
type room struct {
	wait    *fakeWait
	plugin  string
	awaited []mail.Path
}

func (r *room) Await(plugin string, recipients []mail.Path) (Awaited, error) {
	r.plugin, r.awaited = plugin, recipients
	return r.wait, nil
}

type fakeWait struct {
	back   []*mail.Message
	taken  atomic.Bool
	closed chan struct{}
}

func (w *fakeWait) Token() string         { return "token" }
func (w *fakeWait) Take() []*mail.Message { w.taken.Store(true); return w.back }
func (w *fakeWait) Close()                { close(w.closed) }

func newRoom() *room { return &room{wait: &fakeWait{closed: make(chan struct{})}} }

// ended waits until the wait was given up.
func (r *room) ended(t *testing.T) {
	t.Helper()
	select {
	case <-r.wait.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the wait does not end")
	}
}

// What came back gets to the plugin as it is, and stays until the plugin is done with it.
func TestReinjected(t *testing.T) {
	r := newRoom()
	for _, from := range []string{"", "a@x.test"} {
		m := &mail.Message{Header: mail.NewHeader([]byte("X: \xff\r\n\r\n")), Body: mail.InlineBody([]byte("body\r\n"))}
		if from != "" {
			m.Envelope.ReversePath = mail.MustPath(from)
		}
		m.Envelope.Recipients = []mail.Recipient{{Path: mail.MustPath("b@x.test")}, {Path: mail.MustPath("c@x.test")}}
		r.wait.back = append(r.wait.back, m)
	}
	s, _ := serveHost(t, sdk.MayTakeReinjected, Services{Reinjections: r})
	h := connectHost(t, s, s.token)
	wait, err := h.Reinjected(t.Context(), []mail.Path{mail.MustPath("b@x.test"), mail.MustPath("c@x.test")})
	if err != nil {
		t.Fatal(err)
	}
	if wait.Token() != "token" || r.plugin != "p" || len(r.awaited) != 2 || r.wait.taken.Load() {
		t.Errorf("token %q, %+v", wait.Token(), r)
	}
	got, err := wait.Take()
	if err != nil || len(got) != 2 {
		t.Fatalf("%d, %v", len(got), err)
	}
	for i, m := range got {
		rc, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(rc)
		if e := m.Envelope; string(text) != "X: \xff\r\n\r\nbody\r\n" || e.ReversePath != r.wait.back[i].Envelope.ReversePath || len(e.Recipients) != 2 {
			t.Errorf("%+v %q", e, text)
		}
	}
	select {
	case <-r.wait.closed:
		t.Error("given up before the plugin was done")
	default:
	}
	wait.Close()
	r.ended(t)
}

// A plugin that goes away, and one that breaks the contract, do not wait on.
func TestReinjectedEnds(t *testing.T) {
	b := []mail.Path{mail.MustPath("b@x.test")}
	r := newRoom()
	s, denied := serveHost(t, sdk.MayTakeReinjected, Services{Reinjections: r})
	h := connectHost(t, s, s.token)
	wait, err := h.Reinjected(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	wait.Close()
	r.ended(t)
	if r.wait.taken.Load() {
		t.Error("nobody asked for the end")
	}
	if _, err := wait.Take(); err == nil {
		t.Error("taken after the end")
	}
	r.wait = newRoom().wait
	r.wait.back = []*mail.Message{{Header: mail.NewHeader([]byte("X: " + strings.Repeat("x", proto.MaxHeader) + "\r\n\r\n"))}}
	if wait, err = h.Reinjected(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := wait.Take(); err == nil || errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a header that does not fit: %v", err)
	}
	r.ended(t)
	for name, to := range map[string][]mail.Path{"nobody": nil, "no address": {{}}, "too many": make([]mail.Path, maxAwaited+1)} {
		if _, err := h.Reinjected(t.Context(), to); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if denied.Load() != 0 {
		t.Error("counted as a fault")
	}
	// Without the right, and where nothing can come back.
	s, denied = serveHost(t, ^sdk.MayTakeReinjected, Services{Reinjections: r})
	if _, err := connectHost(t, s, s.token).Reinjected(t.Context(), b); !errors.Is(err, sdk.ErrNotPermitted) || denied.Load() != 1 {
		t.Errorf("without the right: %v", err)
	}
	s, _ = serveHost(t, sdk.MayTakeReinjected, Services{})
	if _, err := connectHost(t, s, s.token).Reinjected(t.Context(), b); err == nil || errors.Is(err, sdk.ErrInvalid) || errors.Is(err, sdk.ErrNotPermitted) {
		t.Errorf("without the service: %v", err)
	}
	var none *sdk.Host
	if _, err := none.Reinjected(t.Context(), b); !errors.Is(err, sdk.ErrNoHost) {
		t.Errorf("without a host: %v", err)
	}
}
