package smtpd

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestT01CommandsBeforeTLS(t *testing.T) {
	r := newRig(t, withTLS(TLSStart))
	c := r.hi()
	c.send("STARTTLS\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<b@mx.test>\r\n")
	c.closed()
	// In a segment of its own it becomes part of the handshake, which then fails.
	c = r.hi()
	c.do("STARTTLS\r\n", "220")
	c.send("MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n")
	rest, _ := io.ReadAll(c.r)
	if strings.Contains(string(rest), "250") || strings.Contains(string(rest), "354") {
		t.Errorf("answered %q", rest)
	}
	r.none()
}

func TestT02StateBeforeTLS(t *testing.T) {
	r := newRig(t, withTLS(TLSStart))
	c := r.hi()
	c.envelope()
	c.startTLS()
	c.do("RCPT TO:<b@mx.test>\r\n", "503 5.5.1")
	c.do("MAIL FROM:<a@x.test>\r\n", "503 5.5.1")
	c.do("DATA\r\n", "503 5.5.1")
	c.do("EHLO again\r\n", "250")
	c.do("RCPT TO:<b@mx.test>\r\n", "503 5.5.1")
	c.do("DATA\r\n", "503 5.5.1")
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	m := r.only("x\r\n")
	if cl := m.env.Client; cl.Helo != "again" || cl.Protocol != "ESMTPS" || !strings.HasPrefix(cl.TLS, "TLS1.3 TLS_") {
		t.Errorf("client %+v", cl)
	}
}

func TestT03STARTTLSForms(t *testing.T) {
	r := newRig(t, withTLS(TLSStart))
	c := r.dial()
	c.expect("220")
	c.send("EHLO x\r\n")
	if !strings.Contains(strings.Join(c.replyLines(), "\n"), "STARTTLS") {
		t.Error("STARTTLS not offered")
	}
	c.do("STARTTLS x\r\n", "501 5.5.4")
	c.do("STARTTLSxyz\r\n", "500 5.5.2")
	c.do("STARTTLS\t\r\n", "501 5.5.2")
	c.startTLS()
	c.do("STARTTLS\r\n", "503 5.5.1")
	c.send("EHLO x\r\n")
	if strings.Contains(strings.Join(c.replyLines(), "\n"), "STARTTLS") {
		t.Error("STARTTLS offered inside TLS")
	}
	plain := newRig(t)
	d := plain.hi()
	d.do("STARTTLS\r\n", "502 5.5.1")
}

func TestT08HandshakeStall(t *testing.T) {
	for _, mode := range []TLSMode{TLSStart, TLSImplicit} {
		t.Run(string(mode), func(t *testing.T) {
			r := newRig(t, withTLS(mode), func(o *Options) { o.Timeouts.Handshake = 500 * time.Millisecond })
			c := r.dial()
			if mode == TLSStart {
				c.expect("220")
				c.do("STARTTLS\r\n", "220")
			}
			c.send("\x16")
			c.closed() // the client's own deadline is 20 s
			// Others are served meanwhile and afterwards.
			d := r.dial()
			if mode == TLSImplicit {
				d.handshake()
			}
			d.expect("220")
			d.do("QUIT\r\n", "221")
			eventually(t, "sessions end", func() bool { return r.srv.Sessions() == 0 })
		})
	}
}

func TestT09FailedHandshakeCloses(t *testing.T) {
	r := newRig(t, withTLS(TLSStart), func(o *Options) { o.TLSConfig = o.TLSConfig.Clone(); o.TLSConfig.MinVersion = tls.VersionTLS12 })
	c := r.hi()
	c.do("STARTTLS\r\n", "220")
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err := conn.Handshake(); err == nil {
		t.Fatal("TLS 1.1 accepted")
	}
	io.WriteString(c.conn, "NOOP\r\n")
	if rest, _ := io.ReadAll(c.r); strings.Contains(string(rest), "250") {
		t.Errorf("goes on in the clear: %q", rest)
	}
}

// TestT11Truncation: TLS that ends without the end of the message queues nothing.
func TestT11Truncation(t *testing.T) {
	for name, begin := range map[string]string{"DATA": "DATA\r\n", "BDAT": "BDAT 100 LAST\r\n"} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprint(name, reset), func(t *testing.T) {
				r := newRig(t, withTLS(TLSStart))
				c := r.hi()
				c.startTLS()
				c.do("EHLO x\r\n", "250")
				c.envelope()
				c.send(begin)
				if name == "DATA" {
					c.expect("354")
				}
				c.send("Subject: half\r\n")
				tcp := c.conn.(*tls.Conn).NetConn().(*net.TCPConn)
				if reset {
					tcp.SetLinger(0)
					tcp.Close()
				} else {
					c.conn.(*tls.Conn).CloseWrite()
					io.WriteString(tcp, "x\r\n.\r\n")
					c.closed()
				}
				eventually(t, "session ends", func() bool { return r.srv.Sessions() == 0 })
				r.none()
			})
		}
	}
}

func TestT12AuthInTheClear(t *testing.T) {
	r := newRig(t, withTLS(TLSRequired), func(o *Options) { o.Role, o.Auth = Submission, AuthRequired })
	c := r.dial()
	c.expect("220")
	c.send("EHLO x\r\n")
	if strings.Contains(strings.Join(c.replyLines(), "\n"), "AUTH") {
		t.Error("AUTH offered in the clear")
	}
	c.do("AUTH PLAIN "+plainResponse("joe", "sesame")+"\r\n", "538 5.7.11")
	c.do("MAIL FROM:<joe@mx.test>\r\n", "530 5.7.0 Must issue a STARTTLS command first")
	c.do("RCPT TO:<joe@mx.test>\r\n", "530 5.7.0")
	c.do("DATA\r\n", "530 5.7.0")
	c.startTLS()
	c.do("EHLO x\r\n", "250")
	c.do("MAIL FROM:<joe@mx.test>\r\n", "530 5.7.0 Authentication required")
	c.do("AUTH PLAIN "+plainResponse("joe", "sesame")+"\r\n", "235 2.7.0")
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	m := r.only("x\r\n")
	if m.env.Origin != mail.Submitted || m.env.Client.User != "joe" || m.env.Client.Class != mail.Authenticated || m.env.Client.Protocol != "ESMTPSA" {
		t.Errorf("envelope %+v", m.env)
	}
	if strings.Contains(r.log.String(), plainResponse("joe", "sesame")) {
		t.Error("credentials in the log")
	}
}

func plainResponse(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

func TestT13CrossProtocol(t *testing.T) {
	r := newRig(t)
	for _, first := range []string{
		"GET / HTTP/1.1\r\nHost: mx.test\r\n\r\nMAIL FROM:<a@b.test>\r\n",
		"POST / HTTP/1.1\r\nHost: mx.test\r\n\r\n",
		"CONNECT mx.test:25 HTTP/1.1\r\n\r\n",
		"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nEHLO x\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // TLS ClientHello, its beginning
	} {
		c := r.dial()
		c.expect("220")
		c.send(first)
		c.expect("5")
		c.closed()
	}
	r.none()
}

func TestImplicitTLS(t *testing.T) {
	r := newRig(t, withTLS(TLSImplicit), func(o *Options) { o.RequireTLS = true })
	c := r.dial()
	c.handshake()
	c.expect("220")
	c.send("EHLO x\r\n")
	if got := strings.Join(c.replyLines(), "\n"); strings.Contains(got, "STARTTLS") || !strings.Contains(got, "REQUIRETLS") {
		t.Error(got)
	}
	c.do("MAIL FROM:<a@x.test> REQUIRETLS\r\n", "250")
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	if m := r.only("x\r\n"); !m.env.RequireTLS || m.env.Client.TLS == "" {
		t.Errorf("%+v", m.env)
	}
	c.do("QUIT\r\n", "221")
	c.closed()
}
