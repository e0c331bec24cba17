package smtpd

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// TestD27Shutdown: idle sessions go at once, a transaction is finished, new connections
// are not accepted.
func TestD27Shutdown(t *testing.T) {
	r := newRig(t, withTLS(TLSStart))
	fresh, greeted, secure, busy, inData := r.dial(), r.hi(), r.hi(), r.hi(), r.hi()
	fresh.expect("220")
	secure.startTLS()
	secure.do("EHLO x\r\n", "250")
	busy.envelope()
	inData.envelope()
	inData.do("DATA\r\n", "354")
	inData.send("Subject: x\r\n")

	ended := make(chan error, 1)
	go func() { ended <- r.srv.Shutdown(context.Background()) }()
	for _, c := range []*client{fresh, greeted, secure} {
		c.expect("421 4.3.2")
		c.closed()
	}
	inData.do("\r\n.\r\n", "250 2.0.0 Ok: queued as q1")
	inData.expect("421 4.3.2")
	inData.closed()
	busy.do("RCPT TO:<c@mx.test>\r\n", "250")
	busy.do("BDAT 3 LAST\r\nx\r\n", "250 2.0.0 Ok: queued as q2")
	busy.expect("421 4.3.2")
	busy.closed()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(r.queued()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// TestD27Cut: what is left when the time is over is cut, and nothing half is queued; a
// message that was read completely is finished.
func TestD27Cut(t *testing.T) {
	r := &rig{}
	read, finish := make(chan struct{}), make(chan struct{})
	r.receive = func(c ctx, e *mail.Envelope, rd io.Reader) (Receipt, error) {
		rec, err := r.record(e, rd)
		if err == nil {
			close(read)
			<-finish
			if c.Err() != nil {
				t.Error("cancelled though it was read completely")
			}
		}
		return rec, err
	}
	startRig(t, r)
	half, whole := r.hi(), r.hi()
	half.envelope()
	half.do("DATA\r\n", "354")
	half.send("Subject: x\r\n")
	whole.envelope()
	whole.do("DATA\r\n", "354")
	whole.send("x\r\n.\r\n")
	<-read
	stop, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.srv.Shutdown(stop) }()
	half.closed()
	close(finish)
	if err := <-ended; err != context.DeadlineExceeded {
		t.Errorf("shutdown: %v", err)
	}
	eventually(t, "sessions end", func() bool { return r.srv.Sessions() == 0 })
	r.only("x\r\n")
}

// TestContextEndsWithConnection: what waits for the context of a session learns that the
// session is cut.
func TestContextEndsWithConnection(t *testing.T) {
	r := &rig{}
	r.receive = func(c ctx, _ *mail.Envelope, rd io.Reader) (Receipt, error) {
		<-c.Done()
		_, err := io.Copy(io.Discard, rd)
		return Receipt{}, err
	}
	startRig(t, r)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	stop, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.srv.Shutdown(stop); err != context.Canceled {
		t.Error(err)
	}
	c.closed()
}
