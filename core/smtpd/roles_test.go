package smtpd

import (
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestP21Proxy(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	relay := func(c *mail.Client) mail.Status {
		if c.Addr.IsLoopback() {
			c.Class = mail.Relay
		}
		return mail.Status{}
	}
	proxied := func(patience time.Duration) *rig {
		return startRig(t, &rig{connect: relay}, func(o *Options) { o.ProxyFrom, o.Timeouts.Handshake = loopback, patience })
	}
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xc0\x00\x02\x07" + "\x7f\x00\x00\x01" + "\x10\x00" + "\x00\x19"
	for name, c := range map[string]struct{ header, addr string }{
		"v1":         {"PROXY TCP4 192.0.2.7 127.0.0.1 4096 25\r\n", "192.0.2.7"},
		"v1 IPv6":    {"PROXY TCP6 2001:db8::7 ::1 4096 25\r\n", "2001:db8::7"},
		"v1 mapped":  {"PROXY TCP6 ::ffff:192.0.2.7 ::1 4096 25\r\n", "192.0.2.7"},
		"v2":         {v2, "192.0.2.7"},
		"v1 unknown": {"PROXY UNKNOWN\r\n", "invalid IP"},
		"v2 local":   {"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := proxied(20 * time.Second)
			c2 := r.dial()
			c2.send(c.header)
			c2.expect("220")
			c2.do("EHLO x\r\n", "250")
			c2.envelope()
			c2.do("DATA\r\n", "354")
			c2.do("x\r\n.\r\n", "250")
			m := r.only("x\r\n")
			if got := m.env.Client.Addr.String(); got != c.addr || m.env.Client.Class != mail.Stranger {
				t.Errorf("client %s, %v", got, m.env.Client.Class)
			}
		})
	}
	for name, first := range map[string]string{
		"none":      "EHLO x\r\n",
		"malformed": "PROXY TCP4 192.0.2.7\r\n",
		"silence":   "",
		"long":      "PROXY " + strings.Repeat("x", 1<<20),
		"twice":     "PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\nPROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n",
		"early":     "PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\nEHLO x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := proxied(100 * time.Millisecond)
			c := r.dial()
			go io.WriteString(c.conn, first)
			got, _ := io.ReadAll(c.r)
			if strings.HasPrefix(string(got), "220") || strings.Contains(string(got), "250") {
				t.Errorf("answered %q", got)
			}
		})
	}
	t.Run("untrusted", func(t *testing.T) {
		r := startRig(t, &rig{}, func(o *Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
		c := r.dial()
		c.expect("220")
		c.do("PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\n", "554 5.5.0")
		c.closed()
	})
}

func TestLMTP(t *testing.T) {
	r := &rig{network: "unix", addr: filepath.Join(t.TempDir(), "lmtp")}
	r.receive = func(_ ctx, e *mail.Envelope, rd io.Reader) (Receipt, error) {
		rec, err := r.record(e, rd)
		for i := range e.Recipients {
			st := rec.Reply
			if i == 1 {
				st = mail.Permanent(552, 2, 2, "Over quota")
			}
			rec.PerRecipient = append(rec.PerRecipient, st)
		}
		return rec, err
	}
	startRig(t, r, func(o *Options) { o.Role = LMTP })
	c := r.dial()
	c.expect("220 mx.test LMTP")
	c.do("EHLO x\r\n", "500 5.5.2")
	c.do("HELO x\r\n", "500 5.5.2")
	c.do("LHLO x\r\n", "250 ENHANCEDSTATUSCODES")
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	c.do("DATA\r\n", "503 5.5.1")
	for _, to := range []string{"b", "c", "b"} {
		c.do("RCPT TO:<"+to+"@mx.test>\r\n", "250")
	}
	c.do("RCPT TO:<no@mx.test>\r\n", "550")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250 2.0.0 Ok: queued as q1", "552 5.2.2 Over quota", "250 2.0.0 Ok: queued as q1")
	if m := r.only("x\r\n"); m.env.Client.Protocol != "LMTP" || m.env.Client.Addr.IsValid() {
		t.Errorf("%+v", m.env.Client)
	}
	// One reply for each recipient whatever happens.
	r.receive = func(_ ctx, _ *mail.Envelope, rd io.Reader) (Receipt, error) {
		io.Copy(io.Discard, rd)
		return Receipt{}, errors.New("broken")
	}
	for begin, want := range map[string]string{"BDAT 3 LAST\r\nx\r\n": "451 4.3.0", "BDAT 10001\r\n" + strings.Repeat("x", 10001): "552 5.3.4", "BDAT 1 LAST\r\n\n": "554 5.6.0"} {
		d := r.dial()
		d.expect("220")
		d.do("LHLO x\r\n", "250")
		d.envelope()
		d.do("RCPT TO:<c@mx.test>\r\n", "250")
		d.do(begin, want, want)
	}
}

func TestOptions(t *testing.T) {
	r := &rig{}
	good := Options{Hostname: "mx.test", Policy: r, Intake: r}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(*Options){
		"hostname": func(o *Options) { o.Hostname = "" },
		"role":     func(o *Options) { o.Role = "imap" },
		"tls":      func(o *Options) { o.TLS = "maybe" },
		"auth":     func(o *Options) { o.Auth = "perhaps" },
		"cert":     func(o *Options) { o.TLS = TLSStart },
		"checker":  func(o *Options) { o.Auth, o.TLS, o.TLSConfig = AuthOptional, TLSStart, testTLS() },
		"clear":    func(o *Options) { o.Auth, o.Authenticator = AuthRequired, r },
		"policy":   func(o *Options) { o.Policy = nil },
		"intake":   func(o *Options) { o.Intake = nil },
		"reserved": func(o *Options) { o.Limits.Sessions, o.Limits.Reserved = 5, 5 },
	} {
		o := good
		f(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
