package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// letter is a message as its client sent it, and what the client was told.
type letter struct {
	id    string // Message-ID
	to    []string
	text  string // with the last CRLF, dots not stuffed
	code  int    // of the reply at the end of data; 0: none
	queue string // the queue id in it
}

// ledger has every message that was sent, and checks what became of them.
type ledger struct {
	t       testing.TB
	mu      sync.Mutex
	letters map[string]*letter
}

func newLedger(t testing.TB) *ledger { return &ledger{t: t, letters: make(map[string]*letter)} }

// sender is who all letters are from: the domain for reports.
const sender = "sender@sender.example"

// write makes a letter of about size bytes, with lines that begin with dots.
func (l *ledger) write(size int, to ...string) *letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := fmt.Sprintf("<%d.%d@client.example>", len(l.letters), size)
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: undisclosed-recipients:;\r\nSubject: a letter\r\n  folded\r\nMessage-ID: %s\r\n\r\n", sender, id)
	for n := 0; b.Len() < size; n++ {
		fmt.Fprintf(&b, "%sline %d of %s %s\r\n", strings.Repeat(".", n%3), n, id, strings.Repeat("x", 60))
	}
	fmt.Fprintf(&b, "end of %s\r\n", id)
	m := &letter{id: id, to: to, text: b.String()}
	l.letters[id] = m
	return m
}

// sizes of letters: in the queue's log, and in a file of their own.
const (
	small = 4 << 10
	large = 300 << 10
)

// post sends a letter in a session of its own. onReply, if any, is called as soon as the
// last reply was read. An error says that the gateway went away before.
func (l *ledger) post(addr string, m *letter, onReply func(code int)) (int, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	r := textproto.NewReader(bufio.NewReader(conn))
	if _, _, err := r.ReadResponse(220); err != nil {
		return 0, err
	}
	return l.transact(conn, r, m, onReply)
}

// transact sends a letter over a greeted connection.
func (l *ledger) transact(conn net.Conn, r *textproto.Reader, m *letter, onReply func(code int)) (int, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "EHLO client.example\r\nMAIL FROM:<%s>\r\n", sender)
	for _, to := range m.to {
		fmt.Fprintf(&b, "RCPT TO:<%s>\r\n", to)
	}
	b.WriteString("DATA\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return 0, err
	}
	for range 2 + len(m.to) {
		if code, text, err := r.ReadResponse(2); err != nil {
			if code != 0 { // refused before the end of data
				l.told(m, code, text)
				return code, nil
			}
			return 0, err
		}
	}
	if code, text, err := r.ReadResponse(354); err != nil {
		if code != 0 {
			l.told(m, code, text)
			return code, nil
		}
		return 0, err
	}
	stuffed := strings.ReplaceAll("\r\n"+m.text, "\r\n.", "\r\n..")[2:]
	if _, err := io.WriteString(conn, stuffed+".\r\n"); err != nil {
		return 0, err
	}
	code, text, err := r.ReadResponse(0)
	if err != nil {
		return 0, err
	}
	if onReply != nil {
		onReply(code)
	}
	l.told(m, code, text)
	return code, nil
}

func (l *ledger) told(m *letter, code int, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.code = code
	_, m.queue, _ = strings.Cut(text, "Ok: queued as ")
}

// accepted sends a letter that has to be accepted.
func (l *ledger) accepted(g *gateway, m *letter) {
	l.t.Helper()
	if code, err := l.post(g.addr[0], m, nil); err != nil || code != 250 {
		l.t.Fatalf("got %d, %v; want 250", code, err)
	}
}

// promised are the letters that were accepted.
func (l *ledger) promised() []*letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*letter
	for _, m := range l.letters {
		if m.code/100 == 2 {
			all = append(all, m)
		}
	}
	return all
}

// fate is what became of a letter for one recipient.
type fate struct {
	epochs  []int // of its deliveries
	reports int
}

var messageID = regexp.MustCompile(`(?m)^Message-ID: (<\S+@client\.example>)\r$`)

// fates reads the sinks. It reports mail that nobody sent, and mail that is not what was sent.
func (l *ledger) fates(sinks ...*sink) map[string]*fate {
	l.t.Helper()
	fates := make(map[string]*fate)
	at := func(id, to string) *fate {
		f := fates[id+" "+to]
		if f == nil {
			f = &fate{}
			fates[id+" "+to] = f
		}
		return f
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range sinks {
		for _, a := range s.mail() {
			found := messageID.FindStringSubmatch(a.Data)
			if found == nil {
				l.t.Errorf("mail that nobody sent: %.300q", a.Data)
				continue
			}
			m := l.letters[found[1]]
			if m == nil {
				l.t.Errorf("mail that nobody sent: %s", found[1])
				continue
			}
			for _, to := range m.to {
				if a.From == "" && strings.Contains(a.Data, "Final-Recipient: rfc822;"+to) || a.From == "" && strings.Contains(a.Data, "Final-Recipient: rfc822; "+to) {
					at(m.id, to).reports++
				}
			}
			if a.From == "" {
				continue
			}
			l.same(m, a)
			for _, to := range a.To {
				if !slices.Contains(m.to, to) {
					l.t.Errorf("%s was delivered to %s", m.id, to)
				}
				at(m.id, to).epochs = append(at(m.id, to).epochs, a.Epoch)
			}
		}
	}
	return fates
}

var receivedField = regexp.MustCompile(`^Received: from [^\r\n]+\r\n\tby mx\.example\.org [^\r\n]+\r\n\tid ([0-9a-z]+)(\r\n\tfor <[^>\r\n]+>)?;\r\n\t[^\r\n]+\r\n$`)

// same wants what arrived to be what was sent, with our trace field before it and nothing else.
func (l *ledger) same(m *letter, a arrived) {
	l.t.Helper()
	trace, ok := strings.CutSuffix(a.Data, m.text)
	if !ok || !receivedField.MatchString(trace) {
		l.t.Errorf("%s arrived altered: %d bytes for %d, begins %.200q, ends %.200q", m.id, len(a.Data), len(m.text), a.Data, a.Data[max(0, len(a.Data)-200):])
	}
	if a.From != sender {
		l.t.Errorf("%s arrived from %q", m.id, a.From)
	}
}

// check asserts the invariants: what was accepted is delivered, reported or still there
// (I1), what was refused is never delivered (I2), and nothing is delivered twice but by
// another life of the gateway, and more than allowed times not at all (I3). queue is what
// the gateway has left.
func (l *ledger) check(queue []queued, allowed int, sinks ...*sink) {
	l.t.Helper()
	fates := l.fates(sinks...)
	left := make(map[string]bool)
	for _, q := range queue {
		left[q.ID+" "+q.Recipient] = true
	}
	for _, m := range l.letters {
		for _, to := range m.to {
			f := fates[m.id+" "+to]
			if f == nil {
				f = &fate{}
			}
			switch n := len(f.epochs); {
			case m.code/100 == 2 && n == 0 && f.reports == 0 && !left[m.queue+" "+to]:
				l.t.Errorf("I1: %s to %s was accepted as %s and is lost", m.id, to, m.queue)
			case m.code >= 400 && n > 0:
				l.t.Errorf("I2: %s to %s was refused with %d and delivered", m.id, to, m.code)
			case n > allowed:
				l.t.Errorf("I3: %s to %s was delivered %d times, %d allowed", m.id, to, n, allowed)
			}
			for i, e := range f.epochs {
				if slices.Contains(f.epochs[:i], e) {
					l.t.Errorf("I3: %s to %s was delivered twice without a crash between", m.id, to)
				}
			}
		}
	}
}

// arrive waits until all that was promised is at the sinks, for every recipient.
func (l *ledger) arrive(sinks ...*sink) {
	l.t.Helper()
	for _, m := range l.promised() {
		for _, to := range m.to {
			l.at(m, to, sinks...)
		}
	}
}

// at waits until a letter is at one of the sinks.
func (l *ledger) at(m *letter, to string, sinks ...*sink) {
	l.t.Helper()
	eventually(l.t, m.id+" arrives for "+to, func() bool {
		return slices.ContainsFunc(sinks, func(s *sink) bool { return s.has(m, to) })
	})
}

func (s *sink) has(m *letter, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.got, func(a arrived) bool {
		return a.From != "" && slices.Contains(a.To, to) && strings.Contains(a.Data, "\r\nMessage-ID: "+m.id+"\r\n")
	})
}

// eventually waits for something that can only be looked at.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// drained waits until the queue is empty: all outcomes are recorded.
func (g *gateway) drained() {
	g.t.Helper()
	eventually(g.t, "the queue is empty", func() bool { return len(g.queue()) == 0 })
}

// hurry makes everything due in the queue of a stopped gateway.
func (g *gateway) hurry() { g.must("queue", "retry", "--all") }

// freeze stops the process as it is, and returns when nothing of it runs any more.
func (g *gateway) freeze() {
	g.cmd.Process.Signal(syscall.SIGSTOP)
	var info unix.Siginfo
	for unix.Waitid(unix.P_PID, g.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// relayTo is a configuration that hands all mail to a sink.
func relayTo(s *sink) string {
	return basics + fmt.Sprintf("[smarthost]\naddress = %q\n", s.addr)
}

// often is how many rounds a test makes: all of them with POSTERN_FULL=1.
func often(few, full int) int {
	if os.Getenv("POSTERN_FULL") == "1" {
		return full
	}
	return few
}

// segments are the files of the queue's log, the newest last.
func (g *gateway) segments() []string {
	names, _ := filepath.Glob(filepath.Join(g.dir, "data", "queue", "*.log"))
	return names
}

// contents are the files of large bodies.
func (g *gateway) contents() []string {
	names, _ := filepath.Glob(filepath.Join(g.dir, "data", "content", "??????????????????????????"))
	return names
}

const unixTerm = syscall.SIGTERM

func netDial(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, patience) }

// stuff doubles the dots that begin lines; text begins within a line or at the start of one
// without a dot.
func stuff(text string) string { return strings.ReplaceAll(text, "\r\n.", "\r\n..") }
