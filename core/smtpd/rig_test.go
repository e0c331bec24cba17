package smtpd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// message is what the recording Intake got.
type message struct {
	env  *mail.Envelope
	data string
}

// rig is a server with a recording Intake, a permissive Policy and one account.
type rig struct {
	t       testing.TB
	srv     *Server
	addr    string
	network string
	log     *syncBuffer

	mu       sync.Mutex
	messages []message
	failed   int         // messages whose reader failed
	asked    atomic.Bool // the policy was asked about a recipient

	receive   func(ctx context.Context, e *mail.Envelope, r io.Reader) (Receipt, error)
	connect   func(c *mail.Client) mail.Status
	sender    func(c *mail.Client, p mail.Path, size int64) mail.Status
	recipient func(e *mail.Envelope, p mail.Path) mail.Status
	hello     func(c *mail.Client) mail.Status
}

func (r *rig) Connect(_ context.Context, c *mail.Client) mail.Status {
	if r.connect != nil {
		return r.connect(c)
	}
	return mail.Status{}
}

func (r *rig) Hello(_ context.Context, c *mail.Client) mail.Status {
	if r.hello != nil {
		return r.hello(c)
	}
	return mail.Status{}
}

func (r *rig) Mail(_ context.Context, c *mail.Client, p mail.Path, size int64) mail.Status {
	if r.sender != nil {
		return r.sender(c, p, size)
	}
	return mail.Status{}
}

func (r *rig) Recipient(_ context.Context, e *mail.Envelope, p mail.Path) mail.Status {
	r.asked.Store(true)
	if r.recipient != nil {
		return r.recipient(e, p)
	}
	if strings.HasPrefix(p.Local, "no") {
		return mail.Permanent(550, 1, 1, "No such user")
	}
	return mail.Status{}
}

func (r *rig) Receive(ctx context.Context, e *mail.Envelope, rd io.Reader) (Receipt, error) {
	if r.receive != nil {
		return r.receive(ctx, e, rd)
	}
	return r.record(e, rd)
}

func (r *rig) record(e *mail.Envelope, rd io.Reader) (Receipt, error) {
	data, err := io.ReadAll(rd)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed++
		return Receipt{}, err
	}
	r.messages = append(r.messages, message{e, string(data)})
	id := fmt.Sprintf("q%d", len(r.messages))
	return Receipt{ID: id, Reply: mail.OK(250, 0, 0, "Ok: queued as "+id)}, nil
}

func (r *rig) Mechanisms() []string { return []string{"PLAIN", "LOGIN"} }

func (r *rig) Authenticate(_ context.Context, _ *mail.Client, _, user, password string) (string, error) {
	switch {
	case user == "broken":
		return "", errors.New("database is away: secret detail")
	case user == "joe" && password == "sesame":
		return "joe", nil
	}
	return "", mail.Permanent(535, 7, 8, "Authentication failed")
}

func (r *rig) queued() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]message(nil), r.messages...)
}

// newRig starts a server; it is shut down when the test ends.
func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	return startRig(t, &rig{t: t}, change...)
}

func startRig(t testing.TB, r *rig, change ...func(*Options)) *rig {
	t.Helper()
	r.t, r.log = t, &syncBuffer{}
	o := Options{
		Hostname: "mx.test", Policy: r, Intake: r, Authenticator: r, DSN: true,
		Limits:   Limits{MessageSize: 10_000},
		Timeouts: Timeouts{Linger: 200 * time.Millisecond},
		Log:      slog.New(slog.NewJSONHandler(r.log, nil)),
	}
	for _, f := range change {
		f(&o)
	}
	srv, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.srv = srv
	if r.network == "" {
		r.network, r.addr = "tcp", "127.0.0.1:0"
	}
	l, err := net.Listen(r.network, r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != ErrClosed {
			t.Errorf("serve: %v", err)
		}
		if strings.Contains(r.log.String(), "sesame") {
			t.Error("password in the log")
		}
	})
	return r
}

func withTLS(mode TLSMode) func(*Options) {
	return func(o *Options) { o.TLS, o.TLSConfig = mode, testTLS() }
}

var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// client is a byte-exact SMTP client.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (r *rig) dial() *client {
	r.t.Helper()
	conn, err := net.Dial(r.network, r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &client{r.t, conn, bufio.NewReader(conn)}
}

// hello dials, takes the banner and says EHLO.
func (r *rig) hi() *client {
	r.t.Helper()
	c := r.dial()
	c.expect("220 mx.test ESMTP")
	c.do("EHLO client.test\r\n", "250")
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("write %.60q: %v", s, err)
	}
}

// reply reads one reply; it returns its last line and checks the form of all.
func (c *client) reply() string {
	c.t.Helper()
	lines := c.replyLines()
	return lines[len(lines)-1]
}

func (c *client) replyLines() (lines []string) {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("reading a reply: %v (so far %q %q)", err, lines, line)
		}
		if len(line) > 512 || !strings.HasSuffix(line, "\r\n") || len(line) < 6 || strings.ContainsFunc(line[:len(line)-2], func(r rune) bool { return r < ' ' || r > '~' }) {
			c.t.Fatalf("malformed reply line %q", line)
		}
		line = line[:len(line)-2]
		lines = append(lines, line)
		if line[3] == ' ' {
			return lines
		}
	}
}

func (c *client) expect(prefix string) {
	c.t.Helper()
	if got := c.reply(); !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
}

// do sends a command and expects the replies.
func (c *client) do(command string, prefixes ...string) {
	c.t.Helper()
	c.send(command)
	for _, p := range prefixes {
		if got := c.reply(); !strings.HasPrefix(got, p) {
			c.t.Fatalf("%.80q: got %q, want %q", command, got, p)
		}
	}
}

// closed expects the end of the connection and nothing before it.
func (c *client) closed() {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err == nil || line != "" || isTimeout(err) {
		c.t.Fatalf("connection not closed: %q %v", line, err)
	}
}

// envelope begins a transaction.
func (c *client) envelope() {
	c.t.Helper()
	c.do("MAIL FROM:<a@client.test>\r\n", "250")
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
}

func (c *client) startTLS() {
	c.t.Helper()
	c.do("STARTTLS\r\n", "220")
	c.handshake()
}

func (c *client) handshake() {
	c.t.Helper()
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
}

// none checks that no message was queued.
func (r *rig) none() {
	r.t.Helper()
	if m := r.queued(); len(m) != 0 {
		r.t.Fatalf("queued: %+v", m)
	}
}

// only checks that one message was queued and returns it.
func (r *rig) only(data string) message {
	r.t.Helper()
	m := r.queued()
	if len(m) != 1 || m[0].data != data {
		r.t.Fatalf("queued %d: %.300v, want one %.300q", len(m), m, data)
	}
	return m[0]
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// eventually waits for a condition that another goroutine makes true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// ctx is short for the many functions that do not use it.
type ctx = context.Context

func itoa(n int) string { return fmt.Sprint(n) }
