package smtpd

import (
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestA21SMTPUTF8(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<ü@x.test>\r\n", "553 5.6.7")
	c.do("MAIL FROM:<a@bücher.test>\r\n", "553 5.6.7")
	c.do("MAIL FROM:<ü@bücher.test> SMTPUTF8\r\n", "250")
	for _, domain := range []string{"bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "bücher。test", "bücher.test."} {
		c.do("RCPT TO:<ü@"+domain+">\r\n", "250")
	}
	c.do("RCPT TO:<\u2028@x.test>\r\n", "501 5.1.3")
	c.do("RCPT TO:<\u0085@x.test>\r\n", "501 5.1.3")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	m := r.only("x\r\n")
	for _, p := range m.env.Recipients {
		if p.Path.String() != "ü@xn--bcher-kva.test" {
			t.Errorf("%q", p.Path)
		}
	}
}

func TestA26ManyRecipients(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Recipients = 100 })
	c := r.hi()
	cmds, want := "MAIL FROM:<a@x.test>\r\n", []string{"250"}
	for i := range 1000 {
		cmds += "RCPT TO:<b" + itoa(i) + "@mx.test>\r\n"
		if i < 100 {
			want = append(want, "250")
		} else {
			want = append(want, "452 4.5.3")
		}
	}
	c.do(cmds+"DATA\r\n", append(want, "354")...)
	c.do("x\r\n.\r\n", "250")
	if m := r.only("x\r\n"); len(m.env.Recipients) != 100 || m.env.Recipients[99].Path.Local != "b99" {
		t.Errorf("%d recipients", len(m.env.Recipients))
	}
}

func TestA27ManyBadRecipients(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	for range 10 {
		c.do("RCPT TO:<no@mx.test>\r\n", "550")
	}
	c.expect("421 4.7.0")
	c.closed()
	// Who we relay for may have a bad list.
	trusted := startRig(t, &rig{connect: func(c *mail.Client) mail.Status { c.Class = mail.Relay; return mail.Status{} }})
	c = trusted.hi()
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	for range 50 {
		c.do("RCPT TO:<no@mx.test>\r\n", "550")
	}
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	if m := trusted.only("x\r\n"); m.env.Origin != mail.Submitted {
		t.Errorf("origin %v", m.env.Origin)
	}
}
