package smtpd

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestWholeDialogue(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Name = "mx1" })
	c := r.dial()
	c.expect("220 mx.test ESMTP")
	c.send("EHLO client.test\r\n")
	got := strings.Join(c.replyLines(), "\n")
	want := "250-mx.test\n250-PIPELINING\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n250-DSN\n250-LIMITS RCPTMAX=1000\n250-SIZE 10000\n250 ENHANCEDSTATUSCODES"
	if got != want {
		t.Errorf("EHLO: %s", got)
	}
	c.do("MAIL FROM:<a@client.test> SIZE=30 BODY=8BITMIME RET=HDRS ENVID=x+2By\r\n", "250 2.1.0 Ok")
	c.do("RCPT TO:<b@MX.test> NOTIFY=SUCCESS,delay ORCPT=rfc822;c+2Bd@e\r\n", "250 2.1.5 Ok")
	c.do("rcpt to:<no@mx.test>\r\n", "550 5.1.1 No such user")
	c.do("DATA\r\n", "354 End data with <CR><LF>.<CR><LF>")
	c.do("Subject: x\r\n\r\n..dot\r\n.\r\n", "250 2.0.0 Ok: queued as q1")
	c.do("QUIT\r\n", "221 2.0.0 Bye")
	c.closed()
	m := r.only("Subject: x\r\n\r\n.dot\r\n")
	e := m.env
	if e.Origin != mail.Incoming || e.ReversePath != mail.MustPath("a@client.test") || e.BodyType != mail.Body8BitMIME || e.Return != mail.ReturnHeaders || e.EnvelopeID != "x+y" {
		t.Errorf("envelope %+v", e)
	}
	if len(e.Recipients) != 1 || e.Recipients[0] != (mail.Recipient{Path: mail.MustPath("b@mx.test"), Notify: mail.NotifySuccess | mail.NotifyDelay, ORCPT: "rfc822;c+d@e"}) {
		t.Errorf("recipients %+v", e.Recipients)
	}
	if cl := e.Client; cl.Addr.String() != "127.0.0.1" || cl.Port == 0 || cl.Helo != "client.test" || cl.Protocol != "ESMTP" || cl.TLS != "" || cl.Listener != "mx1" {
		t.Errorf("client %+v", cl)
	}
}
