package smtpclient

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/route"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// TestStartTLS: used where it is offered, whoever's certificate it is, with the right name
// before and after.
func TestStartTLS(t *testing.T) {
	ca := smtptest.NewCA(t)
	for name, conf := range map[string]*tls.Config{"good": ca.Config(t, "127.0.0.1"), "wrong name": ca.Config(t, "x.test")} {
		sink := smtptest.New(t, smtptest.Options{TLS: conf})
		res := newRig(t, nil, nil).one(hops(t, "smtp://"+sink.Addr()))
		want(t, res, 250, "2.0.0")
		if m := sink.Messages(); len(m) != 1 || !m[0].TLS || !res.TLS {
			t.Errorf("%s: %+v", name, m)
		}
		for _, l := range sink.Lines() {
			if strings.HasPrefix(l.Text, "EHLO") && l.Text != "EHLO gw.example.org" {
				t.Error(l.Text)
			}
		}
		if v := verbs(sink); v != "EHLO STARTTLS EHLO MAIL RCPT DATA" {
			t.Error(v)
		}
	}
	sink := smtptest.New(t, smtptest.Options{TLS: ca.Config(t, "127.0.0.1"), Implicit: true})
	want(t, newRig(t, nil, nil).one(hops(t, "smtps://"+sink.Addr())), 250, "2.0.0")
	if m := sink.Messages(); len(m) != 1 || !m[0].TLS {
		t.Errorf("implicit: %+v", m)
	}
}

// TestT04ResponseInjection: replies that come before TLS are never taken for replies within.
func TestT04ResponseInjection(t *testing.T) {
	got := make(chan string, 10)
	addr := smtptest.Serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, "220 x\r\n")
		br.ReadString('\n')
		io.WriteString(c, "250-x\r\n250 STARTTLS\r\n")
		br.ReadString('\n')
		io.WriteString(c, "220 go\r\n250-SIZE 1\r\n250 AUTH PLAIN\r\n")
		rest, _ := io.ReadAll(br)
		got <- string(rest)
	})
	for _, tlsMode := range []TLS{Opportunistic, Required} {
		r := newRig(t, nil, func(o *Options) {
			o.Destinations = []Destination{{Match: "*", TLS: tlsMode}}
			o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "secret"}, nil }
		})
		to := hops(t, "smtp://"+addr)
		to.Hops[0].Credentials = "smarthost"
		if res := r.one(to); !res.Temporary() {
			t.Errorf("%v", res)
		}
		if s := <-got; s != "" {
			t.Errorf("said %q", s)
		}
	}
}

// TestT05Stripping: with TLS required, a hop without it gets nothing but QUIT.
func TestT05Stripping(t *testing.T) {
	ca := smtptest.NewCA(t)
	for name, c := range map[string]struct {
		opts   smtptest.Options
		script string
	}{
		"not offered": {},
		"refused":     {smtptest.Options{TLS: ca.Config(t, "127.0.0.1")}, "454 4.7.0 not now"},
		"for good":    {smtptest.Options{TLS: ca.Config(t, "127.0.0.1")}, "554 5.7.0 never"},
	} {
		sink := smtptest.New(t, c.opts)
		sink.Always("STARTTLS", c.script)
		if c.script == "" {
			sink.Always("STARTTLS", "502 no")
		}
		for _, login := range []string{"", "smarthost"} {
			r := newRig(t, nil, func(o *Options) {
				o.RootCAs = ca.Pool
				o.Destinations = []Destination{{Match: "127.0.0.1", TLS: Required}}
				o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "secret"}, nil }
			})
			to := hops(t, "smtp://"+sink.Addr())
			to.Hops[0].Credentials = login
			if res := r.one(to); res.Code/100 != 4 || res.Enhanced[1] != 7 {
				t.Errorf("%s: %v", name, res)
			}
		}
		for _, l := range sink.Lines() {
			if !strings.HasPrefix(l.Text, "EHLO") && l.Text != "STARTTLS" && l.Text != "QUIT" {
				t.Errorf("%s: said %q", name, l.Text)
			}
		}
	}
}

// TestT06OpportunisticFallback: a failed handshake means one more connection in the clear,
// logged; not where TLS is required.
func TestT06OpportunisticFallback(t *testing.T) {
	broken := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}
	old := &tls.Config{GetCertificate: broken.GetCertificate, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	for _, conf := range []*tls.Config{broken, old} {
		sink := smtptest.New(t, smtptest.Options{TLS: conf})
		r := newRig(t, nil, nil)
		want(t, r.one(hops(t, "smtp://"+sink.Addr())), 250, "2.0.0")
		if sink.Connections() != 2 || sink.Messages()[0].TLS || !strings.Contains(r.log.String(), "tls handshake failed") {
			t.Errorf("%d connections, log %s", sink.Connections(), r.log)
		}
		r = newRig(t, nil, func(o *Options) { o.Destinations = []Destination{{Match: "*", TLS: Required}} })
		want(t, r.one(hops(t, "smtp://"+sink.Addr())), 451, "4.7.4")
		if len(sink.Messages()) != 1 {
			t.Error("sent in the clear though TLS is required")
		}
	}
	sink := smtptest.New(t, smtptest.Options{TLS: broken})
	sink.On("STARTTLS", "454 4.7.0 not now")
	want(t, newRig(t, nil, nil).one(hops(t, "smtp://"+sink.Addr())), 250, "2.0.0")
	if sink.Connections() != 1 {
		t.Error("a refused STARTTLS needs no second connection")
	}
}

// TestT07Certificates: required TLS takes only certificates that verify, or the pinned one;
// opportunistic TLS does not mind.
func TestT07Certificates(t *testing.T) {
	ca, other := smtptest.NewCA(t), smtptest.NewCA(t)
	key1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		key1024 = nil // this Go makes no such keys any more
	}
	good := ca.Issue(t, nil, nil, "127.0.0.1")
	expired := ca.Issue(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "127.0.0.1")
	sum := sha256.Sum256(expired.Certificate[0])
	wrong := sha256.Sum256(good.Certificate[0])
	type test struct {
		name string
		cert tls.Certificate
		rule Destination
		ok   bool
	}
	list := []test{
		{"good", good, Destination{}, true},
		{"expired", expired, Destination{}, false},
		{"not yet", ca.Issue(t, nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "127.0.0.1"), Destination{}, false},
		{"wrong name", ca.Issue(t, nil, nil, "127.0.0.2", "x.test"), Destination{}, false},
		{"wrong usage", ca.Issue(t, nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "127.0.0.1"), Destination{}, false},
		{"unknown CA", other.Issue(t, nil, nil, "127.0.0.1"), Destination{}, false},
		{"private CA", other.Issue(t, nil, nil, "127.0.0.1"), Destination{CAFile: other.File}, true},
		{"private CA, another's certificate", good, Destination{CAFile: other.File}, false},
		{"pinned", expired, Destination{Pin: "sha256:" + hex.EncodeToString(sum[:])}, true},
		{"pin of another", expired, Destination{Pin: "sha256:" + hex.EncodeToString(wrong[:])}, false},
	}
	if key1024 != nil {
		list = append(list, test{"RSA 1024", ca.Issue(t, key1024, nil, "127.0.0.1"), Destination{}, false})
	}
	for _, c := range list {
		sink := smtptest.New(t, smtptest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{c.cert}}, Users: map[string]string{"user": "secret"}})
		c.rule.Match = "127.0.0.1"
		for _, mode := range []TLS{Required, Opportunistic} {
			for _, login := range []string{"", "smarthost"} { // N-20: a log-in insists as well
				rule := c.rule
				rule.TLS = mode
				r := newRig(t, nil, func(o *Options) {
					o.RootCAs = ca.Pool
					o.Destinations = []Destination{rule}
					o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "secret"}, nil }
				})
				to := hops(t, "smtp://"+sink.Addr())
				to.Hops[0].Credentials = login
				res := r.one(to)
				if c.ok || mode == Opportunistic && login == "" {
					want(t, res, 250, "2.0.0")
				} else {
					want(t, res, 451, "4.7.5")
				}
				if strings.Contains(r.log.String(), "secret") {
					t.Error("password in the log")
				}
			}
		}
		for _, l := range sink.Lines() {
			if strings.HasPrefix(l.Text, "AUTH") && (!c.ok || !l.TLS) {
				t.Errorf("%s: AUTH to an unverified peer", c.name)
			}
		}
	}
}

func TestAuth(t *testing.T) {
	ca := smtptest.NewCA(t)
	auth := func(edit func(*Options), o smtptest.Options) (Result, *smtptest.Sink) {
		o.TLS, o.Users = ca.Config(t, "127.0.0.1"), map[string]string{"user": "secret"}
		sink := smtptest.New(t, o)
		if edit == nil {
			edit = func(*Options) {}
		}
		r := newRig(t, nil, func(o *Options) {
			o.RootCAs = ca.Pool
			o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "secret"}, nil }
			edit(o)
		})
		to := route.Route{Hops: []route.Hop{{Scheme: route.SchemeSMTP, Address: sink.Addr(), Credentials: "x"}}}
		return r.one(to), sink
	}
	res, sink := auth(nil, smtptest.Options{})
	want(t, res, 250, "2.0.0")
	if m := sink.Messages(); m[0].User != "user" {
		t.Errorf("%+v", m)
	}
	for name, edit := range map[string]func(*Options){
		"wrong password": func(o *Options) {
			o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "other"}, nil }
		},
		"no credentials": func(o *Options) { o.Credentials = nil },
		"lost credentials": func(o *Options) {
			o.Credentials = func(string) (Credentials, error) { return Credentials{}, errors.New("no such file") }
		},
	} {
		res, sink := auth(edit, smtptest.Options{})
		if !res.Temporary() || len(sink.Messages()) != 0 {
			t.Errorf("%s: %v", name, res)
		}
	}
}

// TestAuthLogin: for servers that know nothing else.
func TestAuthLogin(t *testing.T) {
	ca := smtptest.NewCA(t)
	sink := smtptest.New(t, smtptest.Options{TLS: ca.Config(t, "127.0.0.1"), Implicit: true, Users: map[string]string{"user": "secret"}})
	sink.Always("EHLO", "250-x\r\n250 AUTH LOGIN")
	r := newRig(t, nil, func(o *Options) {
		o.RootCAs = ca.Pool
		o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "secret"}, nil }
	})
	to := hops(t, "smtps://"+sink.Addr())
	to.Hops[0].Credentials = "x"
	want(t, r.one(to), 250, "2.0.0")
	if m := sink.Messages(); len(m) != 1 || m[0].User != "user" {
		t.Errorf("%+v", m)
	}
	sink.Always("EHLO", "250-x\r\n250 AUTH CRAM-MD5")
	r.Close()
	if res := r.one(to); !res.Temporary() {
		t.Errorf("%v", res)
	}
}
