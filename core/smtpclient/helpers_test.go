package smtpclient

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/resolver/resolvertest"
	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
	"github.com/postern-mail/postern/sdk/mail"
)

// rig is a client whose network is a map: what it dials leads to sinks.
type rig struct {
	*Client
	log *syncBuffer

	mu     sync.Mutex
	dialed []string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newRig makes a client. network maps "192.0.2.1:25" to where a sink listens; what is not
// in it refuses the connection, and a nil network is the real one.
func newRig(t testing.TB, network map[string]string, edit func(*Options)) *rig {
	t.Helper()
	r := &rig{log: &syncBuffer{}}
	o := Options{
		Hostname: "gw.example.org",
		Resolver: resolvertest.Zones{},
		Log:      slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Timeouts: Timeouts{Dial: 5 * time.Second, Banner: 5 * time.Second, Command: 5 * time.Second, Handshake: 5 * time.Second,
			Mail: 5 * time.Second, Rcpt: 5 * time.Second, Data: 5 * time.Second, Block: 5 * time.Second, Dot: 5 * time.Second, Attempt: 30 * time.Second},
		Dial: func(ctx context.Context, n, addr string) (net.Conn, error) {
			r.mu.Lock()
			r.dialed = append(r.dialed, addr)
			r.mu.Unlock()
			if network != nil {
				to, ok := network[addr]
				if !ok {
					return nil, &net.OpError{Op: "dial", Net: n, Err: context.DeadlineExceeded}
				}
				addr = to
			}
			return (&net.Dialer{}).DialContext(ctx, n, addr)
		},
	}
	if edit != nil {
		edit(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r.Client = c
	return r
}

func (r *rig) dials() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.dialed...)
}

// hops is a route over next hops as the configuration has them.
func hops(t testing.TB, list ...string) route.Route {
	t.Helper()
	var r route.Route
	for _, s := range list {
		h, err := route.ParseHop(s)
		if err != nil {
			t.Fatal(err)
		}
		r.Hops = append(r.Hops, h)
	}
	r.Transport = route.SMTP
	return r
}

func toMX(domain string) route.Route {
	return route.Route{Transport: route.SMTP, Hops: []route.Hop{{Scheme: route.SchemeMX, Address: domain}}}
}

// envelope is one from sender@example.org to the addresses.
func envelope(to ...string) *mail.Envelope {
	e := &mail.Envelope{ID: "0123456789abc", ReversePath: mail.MustPath("sender@example.org")}
	for _, a := range to {
		e.Recipients = append(e.Recipients, mail.Recipient{Path: mail.MustPath(a)})
	}
	return e
}

func all(e *mail.Envelope) []int {
	var list []int
	for i := range e.Recipients {
		list = append(list, i)
	}
	return list
}

const testHeader = "From: a@example.org\r\nSubject: test\r\n\r\n"

// send attempts to deliver a small message to all recipients of e.
func (r *rig) send(to route.Route, e *mail.Envelope) []Result {
	return r.Attempt(context.Background(), &Job{Route: to, Envelope: e, Recipients: all(e),
		Header: mail.NewHeader([]byte(testHeader)), Body: mail.InlineBody([]byte("hello\r\n"))})
}

// one sends to one recipient and returns its result.
func (r *rig) one(to route.Route) Result { return r.send(to, envelope("rcpt@example.net"))[0] }

func want(t *testing.T, got Result, code int, enhanced string) {
	t.Helper()
	if got.Code != code || got.EnhancedString() != enhanced {
		t.Errorf("got %q, want %d %s", got.Error(), code, enhanced)
	}
}

func verbs(s *smtptest.Sink) string {
	var list []string
	for _, l := range s.Lines() {
		verb, _, _ := strings.Cut(l.Text, " ")
		list = append(list, verb)
	}
	return strings.Join(list, " ")
}
