package managesieve

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// patience is how long a test waits before it gives up.
const patience = 20 * time.Second

// memory is a [Scripts] for one account: three scripts of 2000 bytes at most. A script with the
// word "bad" has two faults, one with "odd" a warning; a script named "trouble" is out of reach.
type memory struct {
	sync.Mutex
	scripts map[string]string
	active  string
	hold    chan struct{} // if there is one, Put waits for it
	held    chan struct{}
}

func (m *memory) do(name string, f func() error) error {
	m.Lock()
	defer m.Unlock()
	if name == "trouble" {
		return errors.New("no route to the database")
	}
	return f()
}

func (m *memory) existing(name string, f func()) error {
	return m.do(name, func() error {
		if _, ok := m.scripts[name]; !ok {
			return &Refusal{CodeNonexistent, "There is no script of that name"}
		}
		f()
		return nil
	})
}

func (m *memory) List(context.Context, mail.Path) (list []Script, err error) {
	err = m.do("", func() error {
		for _, name := range slices.Sorted(maps.Keys(m.scripts)) {
			list = append(list, Script{name, name == m.active})
		}
		return nil
	})
	return list, err
}

func (m *memory) Get(_ context.Context, _ mail.Path, name string) (text []byte, err error) {
	err = m.existing(name, func() { text = []byte(m.scripts[name]) })
	return text, err
}

func (m *memory) HaveSpace(_ context.Context, _ mail.Path, name string, size int64) error {
	return m.do(name, func() error {
		if _, ok := m.scripts[name]; !ok && len(m.scripts) == 3 {
			return &Refusal{CodeMaxScripts, "Three scripts are enough"}
		}
		if size > 2000 {
			return &Refusal{CodeMaxSize, "2000 bytes are enough"}
		}
		return nil
	})
}

func (m *memory) Put(ctx context.Context, a mail.Path, name string, text []byte) (string, error) {
	if m.hold != nil {
		m.held <- struct{}{}
		<-m.hold
	}
	if err := m.HaveSpace(ctx, a, name, int64(len(text))); err != nil {
		return "", err
	}
	warnings, err := m.Check(ctx, a, text)
	if err != nil {
		return "", err
	}
	return warnings, m.do(name, func() error { m.scripts[name] = string(text); return nil })
}

func (m *memory) Check(_ context.Context, _ mail.Path, text []byte) (string, error) {
	switch {
	case bytes.Contains(text, []byte("bad")):
		return "", &Refusal{"", "line 1: \"bad\" is bad\nline 2: so is this"}
	case bytes.Contains(text, []byte("odd")):
		return "line 1: that is odd\n", nil
	}
	return "", nil
}

func (m *memory) Activate(_ context.Context, _ mail.Path, name string) error {
	if name == "" {
		return m.do("", func() error { m.active = ""; return nil })
	}
	return m.existing(name, func() { m.active = name })
}

func (m *memory) Delete(_ context.Context, _ mail.Path, name string) error {
	if name == m.active && name != "" {
		return &Refusal{CodeActive, "The script is active"}
	}
	return m.existing(name, func() { delete(m.scripts, name) })
}

func (m *memory) Rename(_ context.Context, _ mail.Path, name, to string) error {
	if _, ok := m.scripts[to]; ok {
		return &Refusal{CodeAlreadyExists, "There is a script of that name already"}
	}
	return m.existing(name, func() { m.scripts[to] = m.scripts[name]; delete(m.scripts, name) })
}

// users is a [Logins]: everybody has the password "secret". TEST has the server speak last.
type users struct {
	none     bool
	disabled *atomic.Bool
}

func (u users) Mechanisms(context.Context) ([]string, error) {
	if u.none {
		return nil, errors.New("not yet")
	}
	return []string{"PLAIN", "LOGIN", "TEST"}, nil
}

func (u users) Enabled(context.Context, mail.Path) (bool, error) {
	return u.disabled == nil || !u.disabled.Load(), nil
}

func (users) Login(_ context.Context, mechanism string, c mail.Client) (Exchange, error) {
	if c.TLS == "" || !c.Addr.IsValid() {
		return nil, errors.New("the client is not described")
	}
	return &exchange{mechanism: mechanism}, nil
}

type exchange struct {
	mechanism, user string
	step            int
	account         mail.Path
}

func (x *exchange) Next(response []byte) ([]byte, bool, error) {
	x.step++
	switch said := string(response); x.mechanism {
	case "PLAIN":
		if response == nil {
			return []byte{}, false, nil
		}
		parts := strings.Split(said, "\x00")
		if len(parts) != 3 {
			return nil, false, mail.Permanent(501, 5, 2, "Malformed authentication response")
		}
		return x.end(parts[1], parts[2])
	case "LOGIN":
		switch x.step {
		case 1:
			return []byte("Username:"), false, nil
		case 2:
			x.user = said
			return []byte("Password:"), false, nil
		}
		return x.end(x.user, said)
	}
	switch x.step {
	case 1:
		return []byte(strings.Repeat("challenge ", 200)), false, nil // a literal
	case 2:
		return []byte("last words"), false, nil
	}
	if len(response) > 0 {
		return nil, false, errors.New("the client should be silent")
	}
	return x.end("alice@example.org", "secret")
}

func (x *exchange) end(user, password string) ([]byte, bool, error) {
	switch {
	case user == "many":
		return nil, false, mail.Temporary(421, 7, 0, "Too many failed log-ins, try again later")
	case user == "later":
		return nil, false, errors.New("no route to the database")
	case password != "secret":
		return nil, false, mail.Permanent(535, 7, 8, "Authentication credentials invalid")
	}
	x.account = mail.MustPath(user)
	return nil, true, nil
}

func (x *exchange) Account() mail.Path { return x.account }

func (x *exchange) Close() {}

// lineLog collects log lines.
type lineLog struct {
	sync.Mutex
	bytes.Buffer
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(b)
}

func (l *lineLog) text() string {
	l.Lock()
	defer l.Unlock()
	return l.String()
}

func certificate(t testing.TB) func(context.Context) (*tls.Config, error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
	}
}

// rig is a server that listens.
type rig struct {
	t       testing.TB
	scripts *memory
	log     *lineLog
	addr    string
	end     func() // ends the server and waits for it
}

// serving starts a server; change changes its options.
func serving(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, scripts: &memory{scripts: make(map[string]string)}, log: &lineLog{}}
	o := Options{Scripts: r.scripts, Logins: users{}, TLS: certificate(t), Implementation: "Test 1.0", Extensions: []string{"fileinto", "enotify"},
		Notify: []string{"mailto"}, Redirects: 4, MaxScript: 8000, Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, []net.Listener{l}) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not end")
		}
		if n := len(s.links) + s.clients.all + len(s.clients.each) + s.exchanges.all + len(s.exchanges.each); n != 0 || s.memory.left.Load() != scriptMemory {
			t.Errorf("left are %v, %v, %v and %d bytes", s.links, &s.clients, &s.exchanges, scriptMemory-s.memory.left.Load())
		}
	})
	t.Cleanup(r.end)
	return r
}

// peer is a client.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (r *rig) dial() *peer {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &peer{r.t, conn, bufio.NewReader(conn)}
}

// secure begins TLS after an OK to STARTTLS.
func (p *peer) secure() {
	p.t.Helper()
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.conn, p.r = c, bufio.NewReader(c)
}

// talk plays a dialogue, line by line:
//
//	C: text    the client says it, with the end of line
//	C"text"    the same without, as a Go string
//	S: text    the server says it; a * at the end stands for anything
//	S: ...     it says something, and at the end OK, NO or BYE
//	TLS        TLS begins
//	ALICE      STARTTLS, and log-in as alice
//	END        the server closes the connection
func (p *peer) talk(dialogue string) *peer {
	p.t.Helper()
	for n, line := range strings.Split(dialogue, "\n") {
		line = strings.TrimLeft(line, " \t")
		said, _ := strings.CutPrefix(line, "C: ")
		want, _ := strings.CutPrefix(line, "S: ")
		switch {
		case line == "" || line[0] == '#':
		case line == "TLS":
			p.secure()
		case line == "ALICE":
			p.talk("S: ...\nC: STARTTLS\nS: OK*\nTLS\nS: ...\nC: AUTHENTICATE \"PLAIN\" \"" + plain("alice@example.org", "secret") + "\"\nS: OK*")
		case line == "END":
			if rest, err := io.ReadAll(p.r); len(rest) > 0 || err != nil {
				p.t.Fatalf("line %d: there is %q (%v), want the end", n, rest, err)
			}
		case strings.HasPrefix(line, `C"`):
			text, err := strconv.Unquote(line[1:])
			if err != nil {
				p.t.Fatal(err)
			}
			p.send(text)
		case said != line:
			p.send(said + "\r\n")
		case line == "S: ...":
			for got := p.line(n); !strings.HasPrefix(got, "OK") && !strings.HasPrefix(got, "NO") && !strings.HasPrefix(got, "BYE"); {
				got = p.line(n)
			}
		case want != line:
			got := p.line(n)
			if ok := strings.HasSuffix(want, "*") && strings.HasPrefix(got, strings.TrimSuffix(want, "*")); !ok && got != want {
				p.t.Fatalf("line %d: the server says %q, want %q", n, got, want)
			}
		default:
			p.t.Fatalf("line %d is %q", n, line)
		}
	}
	return p
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) line(n int) string {
	p.t.Helper()
	line, err := p.r.ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "\r\n") {
		p.t.Fatalf("line %d: read %q, %v", n, line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
