package smtpd

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestC05SlowCommands(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Timeouts.Command = 150 * time.Millisecond })
	var wg sync.WaitGroup
	for range 20 {
		c := r.dial()
		c.expect("220")
		wg.Go(func() {
			for _, b := range []byte(strings.Repeat("NOOP", 500)) { // an octet every 10 ms, 20 s in all
				if _, err := c.conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		defer c.closed()
		defer c.expect("421 4.4.2")
	}
	defer wg.Wait()
	d := r.dial() // others are served meanwhile
	d.expect("220")
	d.do("QUIT\r\n", "221")
}

func TestSessionCap(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Timeouts.Session = 100 * time.Millisecond })
	c := r.hi()
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		io.WriteString(c.conn, "NOOP\r\n")
		if got := c.reply(); strings.HasPrefix(got, "421 4.4.2") {
			return
		}
	}
	t.Fatal("session goes on")
}

func TestC06SlowData(t *testing.T) {
	for _, begin := range []string{"DATA\r\n", "BDAT 5000 LAST\r\n"} {
		r := newRig(t, func(o *Options) { o.Timeouts.Grace = 100 * time.Millisecond })
		c := r.hi()
		c.envelope()
		c.send(begin)
		if begin[0] == 'D' {
			c.expect("354")
		}
		done := make(chan struct{})
		go func() { // far below 500 octets a second, never idle for long
			defer close(done)
			for range 2000 {
				if _, err := c.conn.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		c.expect("421 4.4.2")
		c.closed()
		<-done
		r.none()
		if r.failed != 1 {
			t.Errorf("%d readers failed", r.failed)
		}
	}
}

// TestIdleData: a read timeout in a message ends the connection; the rest of the message
// is not read as commands.
func TestIdleData(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Timeouts.Data = 50 * time.Millisecond })
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("Subject: x\r\n\r\n", "421 4.4.2")
	io.WriteString(c.conn, smuggled)
	c.closed()
	r.none()
}

func TestC07SlowReader(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Junk = 1 << 30; o.Timeouts.Write = 100 * time.Millisecond })
	c := r.hi()
	c.conn.(*net.TCPConn).SetReadBuffer(4096)
	noops := strings.Repeat("NOOP\r\n", 10_000)
	c.conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := io.WriteString(c.conn, noops); err != nil {
			if isTimeout(err) {
				t.Fatal("still open")
			}
			break
		}
	}
	eventually(t, "session ends", func() bool { return r.srv.Sessions() == 0 })
}

func TestC08PerAddress(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.PerAddress = 3 })
	var held []*client
	for range 3 {
		held = append(held, r.hi())
	}
	c := r.dial()
	c.expect("421 4.7.0")
	c.closed()
	held[0].do("QUIT\r\n", "221")
	eventually(t, "a place is free", func() bool { return r.srv.Sessions() == 2 })
	r.hi()
	// A named network has a limit of its own.
	own := newRig(t, func(o *Options) {
		o.Limits.PerAddress = 1
		o.Limits.Networks = []NetworkLimit{{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
	})
	for range 5 {
		own.hi()
	}
}

func TestC09AllSessions(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Sessions, o.Limits.Reserved = 4, 2 })
	r.hi()
	r.hi()
	c := r.dial()
	c.expect("421 4.3.2") // the other two are reserved
	c.closed()
	eventually(t, "refused session ends", func() bool { return r.srv.Sessions() == 2 })
	s := newRig(t, func(o *Options) {
		o.Limits.Sessions, o.Limits.Reserved = 4, 2
		o.Limits.ReservedFor = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for range 4 {
		s.hi()
	}
	c = s.dial()
	c.expect("421 4.3.2")
	c.closed()
}

// TestC12Counting: IPv4 addresses are counted one by one, also mapped ones, IPv6 by /64.
func TestC12Counting(t *testing.T) {
	same := func(a, b string) bool {
		x, _ := clientAddr(netip.AddrPortFrom(netip.MustParseAddr(a), 1))
		y, _ := clientAddr(netip.AddrPortFrom(netip.MustParseAddr(b), 2))
		return keyOf(x) == keyOf(y)
	}
	if !same("::ffff:10.0.0.1", "10.0.0.1") || same("10.0.0.1", "10.0.0.2") || !same("2001:db8::1", "2001:db8::ffff:1") || same("2001:db8::1", "2001:db8:0:1::1") || !same("fe80::1%eth0", "fe80::1") {
		t.Error("counted wrongly")
	}
	if keyOf(netip.Addr{}) != (addressKey{}) {
		t.Error("no address has a key")
	}
}

func TestP21Proxy(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	relay := func(c *mail.Client) mail.Status {
		if c.Addr.IsLoopback() {
			c.Class = mail.Relay
		}
		return mail.Status{}
	}
	proxied := func() *rig {
		return startRig(t, &rig{connect: relay}, func(o *Options) { o.ProxyFrom = loopback; o.Timeouts.Handshake = 100 * time.Millisecond })
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
			r := proxied()
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
			r := proxied()
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

func TestConnectRefused(t *testing.T) {
	r := startRig(t, &rig{connect: func(*mail.Client) mail.Status { return mail.Permanent(554, 7, 1, "You are listed") }})
	c := r.dial()
	c.expect("554 5.7.1 You are listed")
	c.closed()
}

func TestHelloRefused(t *testing.T) {
	r := startRig(t, &rig{hello: func(c *mail.Client) mail.Status {
		if c.Helo == "mx.test" {
			return mail.Permanent(550, 7, 1, "That is me")
		}
		return mail.Status{}
	}})
	c := r.dial()
	c.expect("220")
	c.do("EHLO mx.test\r\n", "550 5.7.1 That is me")
	c.do("MAIL FROM:<a@x.test>\r\n", "503")
	c.do("EHLO x.test\r\n", "250")
}

// TestPolicy421: a 421 ends the session.
func TestPolicy421(t *testing.T) {
	r := startRig(t, &rig{recipient: func(*mail.Envelope, mail.Path) mail.Status { return mail.Temporary(421, 7, 0, "Go away") }})
	c := r.hi()
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	c.do("RCPT TO:<b@mx.test>\r\nNOOP\r\n", "421 4.7.0 Go away")
	c.closed()
}

// TestPanics: a panic behind any interface ends one session and nothing else.
func TestPanics(t *testing.T) {
	oops := func() mail.Status { panic("oops") }
	for name, r := range map[string]*rig{
		"connect":   {connect: func(*mail.Client) mail.Status { return oops() }},
		"hello":     {hello: func(*mail.Client) mail.Status { return oops() }},
		"sender":    {sender: func(*mail.Client, mail.Path, int64) mail.Status { return oops() }},
		"recipient": {recipient: func(*mail.Envelope, mail.Path) mail.Status { return oops() }},
		"receive": {receive: func(_ ctx, _ *mail.Envelope, rd io.Reader) (Receipt, error) {
			rd.Read(make([]byte, 1))
			return Receipt{}, oops()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			startRig(t, r)
			c := r.dial()
			for _, cmd := range []string{"", "EHLO x\r\n", "MAIL FROM:<a@x.test>\r\n", "RCPT TO:<b@mx.test>\r\n", "DATA\r\n", "x\r\n.\r\n"} {
				c.send(cmd)
				if got := c.reply(); strings.HasPrefix(got, "421 4.3.0") {
					c.closed()
					r.none()
					if !strings.Contains(r.log.String(), "oops") {
						t.Error("not logged")
					}
					return
				}
			}
			t.Error("no panic")
		})
	}
}

// TestUnreadMessage: an Intake that says yes without having read the message is not believed.
func TestUnreadMessage(t *testing.T) {
	r := &rig{}
	r.receive = func(ctx, *mail.Envelope, io.Reader) (Receipt, error) { return Receipt{ID: "q1"}, nil }
	startRig(t, r)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "451 4.3.0")
	c.do("NOOP\r\n", "250 2.0.0 Ok")
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

// failingListener fails to accept as a process without free descriptors does.
type failingListener struct {
	net.Listener
	fails atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestD09AcceptErrors(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := &failingListener{Listener: l}
	failing.fails.Store(3)
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- r.srv.Serve(failing) }()
	r.addr = l.Addr().String()
	r.hi() // it goes on
	if waited := time.Since(start); waited < 30*time.Millisecond {
		t.Errorf("backed off for %v only", waited) // 5 + 10 + 20 ms
	}
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	if n := strings.Count(r.log.String(), "cannot accept"); n != 1 {
		t.Errorf("%d log lines", n)
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
