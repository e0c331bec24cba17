package smtpd

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/postern-mail/postern/core/smtpd/wire"
	"github.com/postern-mail/postern/sdk/mail"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// authRig is a server with TLS and optional authentication; the client has greeted.
func authRig(t *testing.T, change ...func(*Options)) (*rig, func() *client) {
	r := newRig(t, append([]func(*Options){withTLS(TLSImplicit), func(o *Options) { o.Auth = AuthOptional }}, change...)...)
	return r, func() *client {
		c := r.dial()
		c.handshake()
		c.expect("220")
		c.do("EHLO x\r\n", "250")
		return c
	}
}

func TestAuth(t *testing.T) {
	_, dial := authRig(t)
	for name, lines := range map[string][]string{
		"PLAIN, initial":  {"AUTH PLAIN " + plainResponse("joe", "sesame"), "235"},
		"PLAIN":           {"auth plain", "334 ", plainResponse("joe", "sesame"), "235"},
		"LOGIN":           {"AUTH LOGIN", "334 " + b64("Username:"), b64("joe"), "334 " + b64("Password:"), b64("sesame"), "235"},
		"LOGIN, initial":  {"AUTH LOGIN " + b64("joe"), "334 " + b64("Password:"), b64("sesame"), "235"},
		"wrong":           {"AUTH PLAIN " + plainResponse("joe", "x"), "535 5.7.8"},
		"broken":          {"AUTH PLAIN " + plainResponse("broken", "x"), "454 4.7.0 Temporary authentication failure"},
		"cancelled":       {"AUTH PLAIN", "334 ", "*", "501"},
		"cancelled later": {"AUTH LOGIN", "334 ", b64("joe"), "334", "*", "501"},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial()
			for i := 0; i < len(lines); i += 2 {
				c.do(lines[i]+"\r\n", lines[i+1])
			}
			c.do("NOOP\r\n", "250 2.0.0 Ok")
			if strings.HasPrefix(lines[len(lines)-1], "235") {
				c.do("AUTH PLAIN "+plainResponse("joe", "sesame")+"\r\n", "503 5.5.1")
			}
		})
	}
}

func TestC03AuthSyntax(t *testing.T) {
	r, dial := authRig(t)
	c := dial()
	c.do("AUTH\r\n", "501 5.5.4")
	c.do("AUTH CRAM-MD5\r\n", "504 5.5.4")
	c.do("AUTH PLAIN !!!\r\n", "501 5.5.2")
	c.do("AUTH PLAIN a b\r\n", "501 5.5.2")
	c.do("AUTH PLAIN\r\n", "334 ")
	c.do("not base64!\r\n", "501 5.5.2 Invalid base64")
	c.do("NOOP\r\n", "250 2.0.0")
	c.do("AUTH PLAIN "+b64("joe\x00sesame")+"\r\n", "501 5.5.2")
	c.do("AUTH PLAIN =\r\n", "501 5.5.2")
	d := dial()
	d.do("AUTH PLAIN "+b64("\x00joe\x00ses\x00ame")+"\r\n", "501 5.5.2")
	d.do("AUTH LOGIN =\r\n", "501 5.5.2")
	d.do("MAIL FROM:<a@b.test>\r\n", "250")
	d.do("AUTH PLAIN "+plainResponse("joe", "sesame")+"\r\n", "503 5.5.1")
	d.do("RCPT TO:<b@mx.test>\r\n", "250")
	d.do("AUTH PLAIN "+plainResponse("joe", "sesame")+"\r\n", "503 5.5.1")

	// A line of 12,288 octets is taken, a longer one is not (RFC 4954 §4).
	for size, want := range map[int]string{wire.MaxAuth - 1: "501 5.5.2", wire.MaxAuth: "501 5.5.2", wire.MaxAuth + 1: "500 5.5.2", 1 << 20: "500 5.5.2"} {
		for _, initial := range []bool{true, false} {
			e := dial()
			line := "AUTH PLAIN "
			if !initial {
				e.do("AUTH PLAIN\r\n", "334 ")
				line = ""
			}
			e.send(line + strings.Repeat("A", size-len(line)-2) + "\r\n")
			e.expect(want)
			if want[:3] == "500" {
				e.closed()
			}
		}
	}
	if strings.Contains(r.log.String(), "joe") {
		t.Errorf("user name in the log: %s", r.log.String())
	}
}

func TestC01AuthFailureLimit(t *testing.T) {
	_, dial := authRig(t)
	c := dial()
	for range 3 {
		c.do("AUTH PLAIN "+plainResponse("joe", "x")+"\r\n", "535 5.7.8")
	}
	c.expect("421 4.7.0")
	c.closed()
}

func TestAuthOff(t *testing.T) {
	r := newRig(t, withTLS(TLSStart))
	c := r.hi()
	c.do("AUTH PLAIN "+plainResponse("joe", "sesame")+"\r\n", "502 5.5.1")
	c.startTLS()
	c.send("EHLO x\r\n")
	if strings.Contains(strings.Join(c.replyLines(), "\n"), "AUTH") {
		t.Error("AUTH offered")
	}
	c.do("MAIL FROM:<a@b.test> AUTH=<>\r\n", "555 5.5.4")
}

// echo is a mechanism of the Authenticator's own: a challenge, a final message, done.
type echo struct {
	*rig
	step int
}

func (e *echo) Mechanisms() []string { return []string{"PLAIN", "ECHO"} }
func (e *echo) Exchange(context.Context, *mail.Client, string) (Exchange, error) {
	return &echo{}, nil
}
func (e *echo) Account() string { return "joe" }
func (e *echo) Next(response []byte) ([]byte, bool, error) {
	e.step++
	switch {
	case e.step == 1:
		return []byte("who"), false, nil
	case e.step == 2 && string(response) == "joe":
		return []byte("welcome"), false, nil
	case e.step == 3 && len(response) == 0:
		return nil, true, nil
	}
	return nil, false, mail.Permanent(535, 7, 8, "Authentication failed")
}

func TestAuthExchange(t *testing.T) {
	r, dial := authRig(t, func(o *Options) { o.Authenticator = &echo{rig: o.Authenticator.(*rig)} })
	c := dial()
	c.do("AUTH ECHO\r\n", "334 "+b64("who"))
	c.do(b64("jim")+"\r\n", "535 5.7.8")
	c.do("AUTH ECHO\r\n", "334 "+b64("who"))
	c.do(b64("joe")+"\r\n", "334 "+b64("welcome"))
	c.do("\r\n", "235")
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	if m := r.only("x\r\n"); m.env.Client.User != "joe" || m.env.Client.Mechanism != "ECHO" {
		t.Errorf("%+v", m.env.Client)
	}
}

// The mechanism is the one that the client logged in with, and not one that failed.
func TestMechanism(t *testing.T) {
	r, dial := authRig(t)
	c := dial()
	c.do("AUTH LOGIN "+b64("joe")+"\r\n", "334 ")
	c.do(b64("x")+"\r\n", "535 5.7.8")
	send := func() {
		c.envelope()
		c.do("DATA\r\n", "354")
		c.do("x\r\n.\r\n", "250")
	}
	send()
	c.do("auth plain "+plainResponse("joe", "sesame")+"\r\n", "235")
	send()
	got := r.queued()
	if len(got) != 2 || got[0].env.Client.Mechanism != "" || got[1].env.Client.Mechanism != "PLAIN" {
		t.Errorf("%+v", got)
	}
}
