package smtpd

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestC05SlowCommands(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Timeouts.Command = 2 * time.Second })
	var wg sync.WaitGroup
	for range 20 {
		c := r.dial()
		c.expect("220")
		wg.Go(func() {
			for _, b := range []byte(strings.Repeat("NOOP", 500)) { // never idle for long, and at it for minutes
				if _, err := c.conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond) // the pace of the client
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
	r := newRig(t, func(o *Options) { o.Limits.Junk = 1 << 30; o.Timeouts.Session = 2 * time.Second })
	c := r.hi()
	for got := ""; !strings.HasPrefix(got, "421 4.4.2"); got = c.reply() { // nothing else ends it
		io.WriteString(c.conn, "NOOP\r\n")
	}
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
			for {
				if _, err := c.conn.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) // the pace of the client
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
	c.conn.SetWriteDeadline(time.Now().Add(time.Minute))
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
	// What is counted is told, limit or not; nobody is not counted.
	seen := make(chan int, 4)
	tell := func(c *mail.Client) mail.Status { seen <- c.Connections; return mail.Status{} }
	for name, r := range map[string]*rig{"limit": {connect: tell}, "none": {connect: tell}} {
		startRig(t, r, func(o *Options) {
			if name == "none" {
				o.Limits.Networks = []NetworkLimit{{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
			}
		})
		r.hi()
		second := r.hi()
		r.hi()
		second.do("QUIT\r\n", "221")
		eventually(t, "session ends", func() bool { return r.srv.Sessions() == 2 })
		r.hi()
		if got := [4]int{<-seen, <-seen, <-seen, <-seen}; got != [4]int{1, 2, 3, 3} {
			t.Errorf("%s: %v", name, got)
		}
	}
	proxied := startRig(t, &rig{connect: tell}, func(o *Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for _, proxy := range []struct {
		header string
		count  int
	}{{"TCP4 192.0.2.7 127.0.0.1 4096 25", 1}, {"TCP4 192.0.2.8 127.0.0.1 4096 25", 1}, {"TCP4 192.0.2.7 127.0.0.1 4097 25", 2}, {"UNKNOWN", 0}} {
		c := proxied.dial()
		c.send("PROXY " + proxy.header + "\r\n")
		c.expect("220")
		if got := <-seen; got != proxy.count {
			t.Errorf("%s: %d", proxy.header, got)
		}
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

func TestD09AcceptErrors(t *testing.T) { synctest.Test(t, testAcceptErrors) }

func testAcceptErrors(t *testing.T) {
	r := &rig{t: t, log: &syncBuffer{}}
	srv, err := New(Options{Hostname: "mx.test", Policy: r, Intake: r, Log: slog.New(slog.NewJSONHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	failing := &failingListener{Listener: l}
	failing.fails.Store(3)
	done := make(chan error, 1)
	start := time.Now() // as timers have it
	go func() { done <- srv.Serve(failing) }()
	ours, theirs := net.Pipe()
	l.conns <- theirs // it goes on
	if waited := time.Since(start); waited != 35*time.Millisecond {
		t.Errorf("backed off for %v", waited) // 5 + 10 + 20 ms
	}
	ours.Close()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(r.log.String(), "cannot accept"); n != 1 {
		t.Errorf("%d log lines", n)
	}
}

// TestC15IdleMemory: an idle session costs at most 64 KiB, its client here included.
func TestC15IdleMemory(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.PerAddress = 1000 })
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := used()
	for range 200 {
		r.hi()
	}
	if each := (used() - before) / 200; each > 64<<10 {
		t.Errorf("%d octets for each", each)
	} else {
		t.Logf("%d octets for each", each)
	}
}
