package managesieve

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// When the server ends, commands under way end, and clients are told.
func TestStop(t *testing.T) {
	r := serving(t, func(o *Options) { o.Timeouts.Stop = patience })
	r.scripts.hold, r.scripts.held = make(chan struct{}), make(chan struct{})
	idle, half, handshake, busy := r.dial().talk("ALICE"), r.dial().talk("ALICE\nC\"CHECKSCRIPT {10+}\\r\\nkeep\""), r.dial().talk("S: ...\nC: STARTTLS\nS: OK*"), r.dial().talk("ALICE")
	busy.talk("C: PUTSCRIPT \"a\" \"keep;\"\nC: NOOP")
	<-r.scripts.held
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.end()
	}()
	over := "S: BYE (TRYLATER) \"The server has to end this now\"\nEND"
	idle.talk(over)
	half.talk(over)
	handshake.talk("END")
	select {
	case <-ended:
		t.Fatal("the server has ended before the command")
	default:
	}
	close(r.scripts.hold)
	busy.talk("S: OK \"The script is stored\"\n" + over)
	<-ended
	if r.scripts.scripts["a"] != "keep;" {
		t.Error("the script has not been stored")
	}
}

// Who does not come to an end is cut off.
func TestStopForced(t *testing.T) {
	r := serving(t, func(o *Options) { o.Timeouts.Stop, o.Timeouts.Write = 50*time.Millisecond, patience })
	p := r.dial().talk("ALICE")
	r.scripts.hold, r.scripts.held = make(chan struct{}), make(chan struct{})
	p.talk("C: PUTSCRIPT \"a\" \"keep;\"")
	<-r.scripts.held
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.end()
	}()
	if line, err := p.r.ReadString('\n'); err == nil {
		t.Errorf("the connection has not been cut off: %q", line)
	}
	close(r.scripts.hold) // only now: the command has not ended before
	<-ended
}

// broken is a [Scripts] that panics.
type broken struct{ Scripts }

func (broken) List(context.Context, mail.Path) ([]Script, error) { panic("no scripts at all") }

// A panic ends one session, and no other.
func TestPanic(t *testing.T) {
	r := serving(t, func(o *Options) { o.Scripts = broken{o.Scripts} })
	other, p := r.dial().talk("ALICE"), r.dial().talk("ALICE\nC: LISTSCRIPTS")
	if rest, _ := io.ReadAll(p.r); len(rest) > 0 {
		t.Errorf("the server says %q", rest)
	}
	other.talk("C: NOOP\nS: OK*")
	if !strings.Contains(r.log.text(), "no scripts at all") {
		t.Errorf("the log has\n%s", r.log.text())
	}
}

// tired is a listener that fails a few times before it works.
type tired struct {
	net.Listener
	failures int
}

func (l *tired) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

// A listener that fails now works later; one that is closed ends the server.
func TestListenerFails(t *testing.T) {
	s, err := New(Options{Scripts: &memory{}, Logins: users{}, TLS: certificate(t)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(t.Context(), []net.Listener{&tired{l, 2}}) }()
	(&rig{t: t, addr: l.Addr().String()}).dial().talk("S: ...\nC: LOGOUT\nS: OK*\nEND")
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returns %v", err)
	}
	for _, o := range []Options{{Scripts: &memory{}, Logins: users{}}, {Scripts: &memory{}, Logins: users{}, TLS: certificate(t), MaxScript: -1}} {
		if _, err := New(o); err == nil {
			t.Error("there is a server that cannot work")
		}
	}
}
