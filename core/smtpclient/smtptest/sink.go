// Package smtptest is the other end of an SMTP or LMTP connection, for tests: a [Sink] that
// records every message byte for byte and answers as its script says.
package smtptest

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Words of a script that are no replies.
const (
	Drop  = "DROP"  // close the connection
	Stall = "STALL" // say nothing until the sink closes or the client hangs up
)

// Options of a Sink. The zero Options are a plain SMTP server that takes everything.
type Options struct {
	LMTP bool
	// Extensions are the lines of the reply to EHLO; nil: Extensions().
	Extensions []string
	// TLS, if set, makes the sink offer STARTTLS, or with Implicit speak TLS at once.
	TLS      *tls.Config
	Implicit bool
	// Users and their passwords; AUTH PLAIN and LOGIN are offered where there are any.
	Users map[string]string
	// Socket, if set, is the path of a unix socket to listen on.
	Socket string
}

// Extensions are what a sink offers by default.
func Extensions() []string {
	return []string{"PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}
}

// Message is a message that the sink accepted.
type Message struct {
	Conn int    // number of the connection, from 1
	Helo string // argument of EHLO, HELO or LHLO
	User string // logged in as
	TLS  bool
	From string   // reverse-path as it stood between the angle brackets
	To   []string // forward-paths likewise; with LMTP there is a Message for each
	Mail string   // the whole MAIL line
	Rcpt []string // the RCPT lines that were accepted
	Data []byte   // the message, dots unstuffed
	Raw  []byte   // what came after 354, final dot included
}

// Line is a command line that the sink read.
type Line struct {
	Conn int
	TLS  bool
	Text string
}

// Sink is a recording server on a port of the loopback interface.
type Sink struct {
	opts Options
	l    net.Listener
	done chan struct{}

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when a line or a message comes
	script   map[string][]string
	always   map[string]string
	messages []Message
	lines    []Line
	conns    map[net.Conn]bool
	count    int
	wg       sync.WaitGroup
}

// New starts a sink; it stops with the test.
func New(t testing.TB, o Options) *Sink {
	t.Helper()
	if o.Extensions == nil {
		o.Extensions = Extensions()
	}
	network, address := "tcp", "127.0.0.1:0"
	if o.Socket != "" {
		network, address = "unix", o.Socket
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sink{opts: o, l: l, done: make(chan struct{}), changed: make(chan struct{}),
		script: make(map[string][]string), always: make(map[string]string), conns: make(map[net.Conn]bool)}
	s.wg.Go(s.accept)
	t.Cleanup(s.Close)
	return s
}

// Addr is "host:port", or the path of the socket.
func (s *Sink) Addr() string { return s.l.Addr().String() }

// On sets the replies to the next occurrences of a verb, after those set before. Verbs are
// those of SMTP, and BANNER, and DOT for the end of a message. A reply is without its last
// line end; "" is the usual one. Drop and Stall are no replies. After a 421 the sink closes.
func (s *Sink) On(verb string, replies ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script[verb] = append(s.script[verb], replies...)
}

// Always sets the usual reply to a verb.
func (s *Sink) Always(verb, reply string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always[verb] = reply
}

// Messages are those accepted so far.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Lines are the command lines read so far, secrets included.
func (s *Sink) Lines() []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// Connections is the number of connections so far.
func (s *Sink) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Wait waits until n messages were accepted, and returns them; the test fails after limit.
func (s *Sink) Wait(t testing.TB, n int, limit time.Duration) []Message {
	t.Helper()
	if !s.until(limit, func() bool { return len(s.messages) >= n }) {
		t.Fatalf("%d messages after %s, want %d", len(s.Messages()), limit, n)
	}
	return s.Messages()
}

// WaitLine waits until a client has said a line; the test fails after limit. What a client does not wait for, as after
// QUIT, is read some time later.
func (s *Sink) WaitLine(t testing.TB, text string, limit time.Duration) {
	t.Helper()
	if !s.until(limit, func() bool { return slices.ContainsFunc(s.lines, func(l Line) bool { return l.Text == text }) }) {
		t.Fatalf("nobody said %q in %s", text, limit)
	}
}

// until waits until something is true, which it asks for under the lock whenever something has come.
func (s *Sink) until(limit time.Duration, ok func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// Close closes all connections and stops.
func (s *Sink) Close() {
	s.mu.Lock()
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	s.l.Close()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Hangup closes the connections that are open now.
func (s *Sink) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

func (s *Sink) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.count++
		n := s.count
		s.conns[c] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(&conn{sink: s, nc: c, n: n})
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}
