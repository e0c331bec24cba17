package smtpd

import (
	"crypto/tls"
	"io"
	"net/smtp"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	esmtp "github.com/emersion/go-smtp"
)

// TestStandardClient: net/smtp gets on with us, with STARTTLS and a log-in.
func TestStandardClient(t *testing.T) {
	r := newRig(t, withTLS(TLSRequired), func(o *Options) { o.Role, o.Auth = Submission, AuthRequired })
	c, err := smtp.Dial(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Hello("client.test"))
	must(c.StartTLS(&tls.Config{InsecureSkipVerify: true}))
	must(c.Auth(smtp.PlainAuth("", "joe", "sesame", "127.0.0.1")))
	must(c.Mail("joe@mx.test"))
	must(c.Rcpt("b@x.test"))
	w, err := c.Data()
	must(err)
	_, err = io.WriteString(w, "Subject: x\n\n.dot\n")
	must(err)
	must(w.Close())
	must(c.Quit())
	r.only("Subject: x\r\n\r\n.dot\r\n")
}

// TestOtherClient: so does the client of go-smtp.
func TestOtherClient(t *testing.T) {
	r := newRig(t, withTLS(TLSImplicit), func(o *Options) { o.Auth = AuthOptional })
	c, err := esmtp.DialTLS(r.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(sasl.NewLoginClient("joe", "sesame")); err != nil {
		t.Fatal(err)
	}
	if err := c.SendMail("joe@mx.test", []string{"a@x.test", "b@x.test"}, strings.NewReader("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	if m := r.only("Subject: x\r\n\r\nx\r\n"); len(m.env.Recipients) != 2 {
		t.Errorf("%+v", m.env)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}
