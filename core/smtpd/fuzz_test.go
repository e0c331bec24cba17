package smtpd

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzSession sends random octets to a whole session: no panic, every reply well-formed,
// every message clean.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n|Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nBDAT 3\r\na\r\nBDAT 2 LAST\r\nb\n",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nBDAT 3\r\na\r\nRSET\r\nBDAT 1\r\nb",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n|x\r\n.\n.\r\n.\rx",
		"HELO x\r\nAUTH PLAIN\r\nNOOP\rx\r\n\x16\x03", "BDAT 99999999999999999999 LAST\r\n", "STARTTLS\r\nEHLO",
	} {
		f.Add([]byte(s))
	}
	// A pipe of its own for each input, and a clock: no port, no kernel buffer, no waiting.
	f.Fuzz(func(t *testing.T, input []byte) { synctest.Test(t, func(t *testing.T) { converse(t, input) }) })
}

// converse plays a client that says input, on a clock of the test.
func converse(t *testing.T, input []byte) {
	r := &rig{t: t, log: &syncBuffer{}}
	srv, err := New(Options{
		Hostname: "mx.test", Policy: r, Intake: r, DSN: true,
		Limits:   Limits{MessageSize: 500, Chunks: 5, DataLine: 200},
		Timeouts: Timeouts{Linger: time.Millisecond, Command: 5 * time.Second, Data: 5 * time.Second, Greet: time.Nanosecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	go srv.Serve(l)
	ours, theirs := net.Pipe()
	l.conns <- theirs
	var client sync.WaitGroup
	client.Go(func() {
		// "|" waits for the reply to what came before, as a client does at DATA.
		first := true
		for part := range strings.SplitSeq(string(input), "|") {
			if !first || len(input) > 0 && first {
				time.Sleep(time.Millisecond)
			}
			first = false
			if _, err := io.WriteString(ours, part); err != nil {
				break
			}
		}
		ours.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // the end of what we expect
	})
	replies, err := io.ReadAll(ours)
	if err != nil && !isTimeout(err) && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	ours.Close()
	client.Wait()
	stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		t.Fatalf("session does not end: %v", err)
	}
	for line := range strings.SplitAfterSeq(string(replies), "\r\n") {
		if line != "" && (len(line) > 512 || len(line) < 6 || !strings.HasSuffix(line, "\r\n") || line[0] < '2' || line[0] > '5' || strings.ContainsFunc(line[:len(line)-2], func(r rune) bool { return r < ' ' || r > '~' })) {
			t.Errorf("reply %q", line)
		}
	}
	for _, m := range r.queued() {
		rest := strings.ReplaceAll(m.data, "\r\n", "")
		if strings.ContainsAny(rest, "\r\n\x00") || m.data != "" && !strings.HasSuffix(m.data, "\r\n") || len(m.data) > 502 || len(m.env.Recipients) == 0 {
			t.Errorf("message %q", m.data)
		}
	}
	if strings.Contains(r.log.String(), "panic") {
		t.Error(r.log.String())
	}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{} }
