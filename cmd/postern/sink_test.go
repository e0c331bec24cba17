package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// drop is an answer that is none: the sink closes the connection.
const drop = "DROP"

// arrived is a message that a sink took.
type arrived struct {
	From  string
	To    []string
	Data  string // dots unstuffed
	Epoch int    // how often the gateway had been restarted when it connected
}

// sink is a byte-exact next hop. Unlike smtptest's it asks the test for each answer, so
// that a test can act, stop the gateway say, between a command and its reply.
type sink struct {
	addr string

	mu     sync.Mutex
	cond   *sync.Cond
	answer func(verb, line string) string
	said   func(verb, reply string)
	got    []arrived
	epoch  int
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
	l      net.Listener
	closed bool
}

func newSink(t testing.TB) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{addr: l.Addr().String(), l: l, conns: make(map[net.Conn]bool)}
	s.cond = sync.NewCond(&s.mu)
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		l.Close()
		s.hangup()
		s.wg.Wait()
	})
	return s
}

// script makes f decide the answers: to the verbs of SMTP, to BANNER, and to DOT, the end
// of a message. "" is the usual answer. It may block.
func (s *sink) script(f func(verb, line string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// after makes f be called when an answer is out.
func (s *sink) after(f func(verb, reply string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = f
}

// busy makes the sink refuse to talk: mail is deferred. open ends that.
func (s *sink) busy() {
	s.script(func(verb, _ string) string {
		if verb == "BANNER" {
			return "421 4.3.2 busy"
		}
		return ""
	})
}

// tarpit makes the sink take connections and say nothing.
func (s *sink) tarpit() {
	s.script(func(verb, _ string) string {
		if verb == "BANNER" {
			return "STALL"
		}
		return ""
	})
}

// open makes the sink take everything again.
func (s *sink) open() { s.script(nil) }

// restarted counts connections that are made from now on to the gateway's next life. What
// the last life had begun to say may still be on its way: it counts to that one.
func (s *sink) restarted() {
	// Connections are accepted in their order: behind this one there are none of the last life.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(lastOfALife)}}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	io.Copy(io.Discard, c) // until accept has seen it
}

// lastOfALife is where the connection comes from that ends a life of the gateway.
const lastOfALife = "127.0.0.2"

// hangup closes the open connections.
func (s *sink) hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// mail is what was taken so far.
func (s *sink) mail() []arrived {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrived(nil), s.got...)
}

// wait waits until ok is true of what was taken.
func (s *sink) wait(t testing.TB, what string, ok func([]arrived) bool) []arrived {
	t.Helper()
	expired := false
	timer := time.AfterFunc(patience, func() {
		s.mu.Lock()
		expired = true
		s.mu.Unlock()
		s.cond.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok(s.got) {
		if expired {
			t.Fatalf("the sink took %d messages, but not %s", len(s.got), what)
		}
		s.cond.Wait()
	}
	return append([]arrived(nil), s.got...)
}

func (s *sink) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			c.Close()
		}
		if c.RemoteAddr().(*net.TCPAddr).IP.String() == lastOfALife {
			s.epoch++
			s.mu.Unlock()
			c.Close()
			continue
		}
		s.conns[c] = true
		epoch := s.epoch
		s.mu.Unlock()
		s.wg.Go(func() {
			h := &hop{s: s, c: c, r: bufio.NewReader(c), epoch: epoch}
			for more := h.say("BANNER", "", "220 sink.test ESMTP"); more; {
				more = h.command()
			}
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

// hop is one connection to a sink.
type hop struct {
	s *sink
	c net.Conn
	r *bufio.Reader
	m arrived

	epoch int
}

// say answers and reports whether the connection goes on.
func (h *hop) say(verb, line, usual string) bool {
	reply := h.ask(verb, line, usual)
	return h.write(verb, reply)
}

func (h *hop) ask(verb, line, usual string) string {
	h.s.mu.Lock()
	answer := h.s.answer
	h.s.mu.Unlock()
	if answer != nil {
		if reply := answer(verb, line); reply != "" {
			return reply
		}
	}
	return usual
}

func (h *hop) write(verb, reply string) bool {
	switch reply {
	case drop:
		return false
	case "STALL":
		io.Copy(io.Discard, h.r)
		return false
	}
	if _, err := io.WriteString(h.c, reply+"\r\n"); err != nil {
		return false
	}
	h.s.mu.Lock()
	said := h.s.said
	h.s.mu.Unlock()
	if said != nil {
		said(verb, reply)
	}
	return !strings.HasPrefix(reply, "421") && !strings.HasPrefix(reply, "221")
}

func (h *hop) command() bool {
	line, err := h.r.ReadString('\n')
	if err != nil {
		return false
	}
	line = strings.TrimSuffix(line, "\r\n")
	verb := strings.ToUpper(line[:min(4, len(line))])
	switch verb {
	case "EHLO":
		return h.say(verb, line, "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 104857600")
	case "MAIL":
		h.m = arrived{From: path(line)}
	case "RCPT":
		reply := h.ask(verb, line, "250 2.1.5 Ok")
		if reply[0] == '2' {
			h.m.To = append(h.m.To, path(line))
		}
		return h.write(verb, reply)
	case "DATA":
		return h.data(line)
	case "QUIT":
		return h.say(verb, line, "221 2.0.0 Bye")
	}
	return h.say(verb, line, "250 2.0.0 Ok")
}

// path is what stands between the angle brackets.
func path(line string) string {
	_, rest, _ := strings.Cut(line, "<")
	p, _, _ := strings.Cut(rest, ">")
	return p
}

func (h *hop) data(line string) bool {
	if len(h.m.To) == 0 {
		return h.say("DATA", line, "554 5.5.1 no recipients")
	}
	if reply := h.ask("DATA", line, "354 go"); !strings.HasPrefix(reply, "354") {
		return h.write("DATA", reply)
	} else if !h.write("DATA", reply) {
		return false
	}
	var data bytes.Buffer
	for {
		line, err := h.r.ReadBytes('\n')
		if err != nil {
			return false
		}
		if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.IndexByte(line[:len(line)-2], '\r') >= 0 {
			return h.write("DOT", fmt.Sprintf("554 5.6.0 bare CR or LF in %q", line))
		}
		if string(line) == ".\r\n" {
			break
		}
		data.Write(bytes.TrimPrefix(line, []byte(".")))
	}
	h.m.Data = data.String()
	reply := h.ask("DOT", "", "250 2.0.0 Ok: taken")
	if reply[0] == '2' { // taken, whether or not the reply gets through
		h.s.mu.Lock()
		h.m.Epoch = h.epoch
		h.s.got = append(h.s.got, h.m)
		h.s.mu.Unlock()
		h.s.cond.Broadcast()
	}
	h.m = arrived{}
	return h.write("DOT", reply)
}
