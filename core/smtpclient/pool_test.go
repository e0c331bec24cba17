package smtpclient

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/resolver/resolvertest"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

func TestReuse(t *testing.T) {
	for _, limit := range []int{1, 2, 3} {
		sink := smtptest.New(t, smtptest.Options{})
		r := newRig(t, nil, func(o *Options) { o.Pool.MaxMessages = limit })
		for range 6 {
			want(t, r.one(hops(t, "smtp://"+sink.Addr())), 250, "2.0.0")
		}
		if sink.Connections() != 6/limit {
			t.Errorf("limit %d: %d connections", limit, sink.Connections())
		}
	}
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, func(o *Options) { o.Pool.MaxConns = -1 })
	for range 3 {
		want(t, r.one(hops(t, "smtp://"+sink.Addr())), 250, "2.0.0")
	}
	if sink.Connections() != 3 {
		t.Errorf("no reuse: %d connections", sink.Connections())
	}
}

// TestReuseKeepsPoliciesApart: a connection made under one policy is not used under
// another.
func TestReuseKeepsPoliciesApart(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	z := resolvertest.Zones{
		"a.test": {MX: []string{"10 mx.test"}}, "b.test": {MX: []string{"10 mx.test"}}, "c.test": {MX: []string{"10 mx.test"}},
		"mx.test": {Addrs: []string{"192.0.2.1"}},
	}
	r := newRig(t, map[string]string{"192.0.2.1:25": sink.Addr()}, func(o *Options) {
		o.Resolver = z
		o.Destinations = []Destination{{Match: "b.test", TLS: Required}}
	})
	want(t, r.one(toMX("a.test")), 250, "2.0.0")
	want(t, r.one(toMX("c.test")), 250, "2.0.0")
	if sink.Connections() != 1 {
		t.Errorf("%d connections for two domains of one host", sink.Connections())
	}
	want(t, r.one(toMX("b.test")), 451, "4.7.4")
	if len(sink.Messages()) != 2 {
		t.Error("sent in the clear over a connection of another policy")
	}
}

// TestStaleConnection: an idle connection that the peer has closed costs nothing.
func TestStaleConnection(t *testing.T) {
	for name, kill := range map[string]func(*smtptest.Sink){
		"closed":          (*smtptest.Sink).Hangup,
		"421 to MAIL":     func(s *smtptest.Sink) { s.On("MAIL", "421 4.4.2 idle too long") },
		"dropped at MAIL": func(s *smtptest.Sink) { s.On("MAIL", smtptest.Drop) },
	} {
		sink := smtptest.New(t, smtptest.Options{})
		r := newRig(t, nil, nil)
		to := hops(t, "smtp://"+sink.Addr())
		want(t, r.one(to), 250, "2.0.0")
		kill(sink)
		want(t, r.one(to), 250, "2.0.0")
		if sink.Connections() != 2 || len(sink.Messages()) != 2 {
			t.Errorf("%s: %d connections, %d messages", name, sink.Connections(), len(sink.Messages()))
		}
	}
}

// TestIdleConnectionsClose: after their time, with QUIT, and with the client.
func TestIdleConnectionsClose(t *testing.T) {
	for _, byTime := range []bool{true, false} {
		sink := smtptest.New(t, smtptest.Options{})
		r := newRig(t, nil, func(o *Options) {
			if byTime {
				o.Pool.MaxIdle = 50 * time.Millisecond
			}
		})
		want(t, r.one(hops(t, "smtp://"+sink.Addr())), 250, "2.0.0")
		if !byTime {
			r.Close()
		}
		deadline := time.Now().Add(time.Minute)
		for !strings.HasSuffix(verbs(sink), "QUIT") && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if !strings.HasSuffix(verbs(sink), "QUIT") {
			t.Errorf("by time %v: %s", byTime, verbs(sink))
		}
	}
}

func TestConcurrent(t *testing.T) {
	sink := smtptest.New(t, smtptest.Options{})
	r := newRig(t, nil, func(o *Options) { o.Pool.MaxConns, o.Pool.MaxMessages = 3, 7 })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if res := r.one(hops(t, "smtp://"+sink.Addr())); res.Code != 250 {
					t.Error(res)
				}
			}
		})
	}
	wg.Wait()
	if n := len(sink.Messages()); n != 200 {
		t.Errorf("%d messages", n)
	}
	r.pool.mu.Lock()
	n := r.pool.n
	r.pool.mu.Unlock()
	if n > 3 {
		t.Errorf("%d idle connections", n)
	}
}
