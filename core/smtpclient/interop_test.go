package smtpclient

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// foreign is a server that somebody else wrote.
type foreign struct {
	mu  sync.Mutex
	got []string // "user from to: data"
}

type foreignSession struct {
	*foreign
	user, from string
	to         []string
}

func (f *foreign) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &foreignSession{foreign: f}, nil
}

func (s *foreignSession) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *foreignSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if user != "user" || pass != "secret" {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}
func (s *foreignSession) Reset()        { s.from, s.to = "", nil }
func (s *foreignSession) Logout() error { return nil }
func (s *foreignSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}
func (s *foreignSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == "nobody@x.test" {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody"}
	}
	s.to = append(s.to, to)
	return nil
}
func (s *foreignSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.to {
		s.got = append(s.got, s.user+" "+s.from+" "+to+": "+string(b))
	}
	return err
}
func (s *foreignSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	err := s.Data(r)
	for _, to := range s.to {
		if to == "full@x.test" {
			status.SetStatus(to, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"})
		} else {
			status.SetStatus(to, err)
		}
	}
	return nil
}

// TestForeignServer: an independent implementation agrees with ours, over STARTTLS with a
// log-in, reused connections and LMTP.
func TestForeignServer(t *testing.T) {
	ca := smtptest.NewCA(t)
	for _, lmtp := range []bool{false, true} {
		f := &foreign{}
		srv := smtp.NewServer(f)
		srv.Domain, srv.LMTP, srv.EnableDSN, srv.EnableSMTPUTF8 = "foreign.test", lmtp, true, true
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, nil, "127.0.0.1")}}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go srv.Serve(l)
		r := newRig(t, nil, func(o *Options) {
			o.RootCAs = ca.Pool
			o.Credentials = func(string) (Credentials, error) { return Credentials{"user", "secret"}, nil }
		})
		scheme, full := "smtp://", 250
		if lmtp {
			scheme, full = "lmtp://", 452
		}
		to := hops(t, scheme+l.Addr().String())
		to.Hops[0].Credentials = "smarthost"
		for range 3 {
			res := r.send(to, envelope("a@x.test", "nobody@x.test", "full@x.test"))
			if res[0].Code != 250 || res[1].Code != 550 || res[2].Code != full {
				t.Errorf("lmtp %v: %v", lmtp, res)
			}
		}
		if want := "user sender@example.org a@x.test: " + testHeader + "hello\r\n"; len(f.got) != 6 || f.got[0] != want || len(r.dials()) != 1 {
			t.Errorf("lmtp %v: %d connections, got %q", lmtp, len(r.dials()), f.got)
		}
		r.Close()
		srv.Close()
	}
}
