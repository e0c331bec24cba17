package milter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// fake is a milter of the test, below any library: it records what it is sent and answers
// with whatever bytes the test likes.
type fake struct {
	addr string

	mu   sync.Mutex
	said []string // "C unknown|4|..." and so on, of all connections
	over int      // connections that have ended
	cond *sync.Cond
	done chan struct{}
}

// answers gives what to send for a command; nil sends nothing. hangUp closes the connection,
// and forEver sends progress until it is closed.
type answers func(code byte, data []byte) []byte

const (
	hangUp  = "\xffhang up"
	forEver = "\xfffor ever"
)

// optneg is an answer to the negotiation.
func optneg(version, actions, protocol uint32, more ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, version)
	b = binary.BigEndian.AppendUint32(b, actions)
	b = binary.BigEndian.AppendUint32(b, protocol)
	return packet('O', string(append(b, more...)))
}

func packet(code byte, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)+1))
	return append(append(b, code), data...)
}

func number(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

func packets(ps ...[]byte) []byte { return bytes.Join(ps, nil) }

// agreeable negotiates everything and goes on, except where it is told otherwise.
func agreeable(actions, protocol uint32, other map[byte][]byte) answers {
	return func(code byte, data []byte) []byte {
		if a, ok := other[code]; ok {
			return a
		}
		switch code {
		case 'O':
			return optneg(6, actions, protocol)
		case 'D', 'A', 'Q':
			return nil
		}
		return packet('c', "")
	}
}

func newFake(t testing.TB, a answers) *fake {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{addr: "unix:" + l.Addr().String(), done: make(chan struct{})}
	f.cond = sync.NewCond(&f.mu)
	var conns sync.WaitGroup
	go func() {
		defer close(f.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				f.serve(c, a)
				f.mu.Lock()
				f.over++
				f.mu.Unlock()
				f.cond.Broadcast()
			})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-f.done
		conns.Wait() // every connection has been closed by the plugin
	})
	return f
}

// ended waits until n connections have ended.
func (f *fake) ended(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.over < n {
		f.cond.Wait()
	}
}

func (f *fake) serve(c net.Conn, a answers) {
	defer c.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		data := make([]byte, n)
		if n == 0 || n > 1<<20 {
			panic(fmt.Sprint("packet of ", n))
		}
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		f.mu.Lock()
		f.said = append(f.said, string(data[:1])+" "+strings.ReplaceAll(strings.TrimSuffix(string(data[1:]), "\x00"), "\x00", "|"))
		f.mu.Unlock()
		out := a(data[0], data[1:])
		if string(out) == hangUp {
			return
		}
		for string(out) == forEver {
			if _, err := c.Write(packet('p', "")); err != nil {
				return
			}
		}
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
		}
		if data[0] == 'Q' {
			return
		}
	}
}

// heard returns the commands with that code.
func (f *fake) heard(codes string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.said {
		if strings.IndexByte(codes, s[0]) >= 0 {
			out = append(out, s)
		}
	}
	return out
}

func configured(t testing.TB, address, settings string) *Plugin {
	t.Helper()
	p := New()
	c := sdk.Config{Settings: fmt.Appendf(nil, "address = %q\n%s", address, settings), Hostname: "mx.example.org"}
	if err := p.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return p
}

// message makes one with these recipients.
func message(text string, to ...string) *mail.Message {
	h, body := mail.SplitMessage([]byte(text))
	m := &mail.Message{Header: h, Body: mail.InlineBody(body)}
	m.Envelope = mail.Envelope{ID: "0c1f3k9w2m4xq", Origin: mail.Incoming, ReversePath: mail.MustPath("alice@example.net")}
	for _, r := range to {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: mail.MustPath(r)})
	}
	return m
}

const small = "From: a@example.net\r\nSubject: x\r\n\r\nbody\r\n"
