package smtpd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpd/wire"
	"github.com/postern-mail/postern/sdk/mail"
)

// TestP01StateAfterRejection: after a refused message nothing of its transaction is left,
// whatever the reason was.
func TestP01P03StateAfterRejection(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"refused":   {mail.Permanent(554, 7, 1, "Spam"), "554 5.7.1 Spam"},
		"disk full": {mail.Temporary(452, 3, 1, "Not enough space"), "452 4.3.1"},
		"unknown":   {errors.New("detail that is nobody's business"), "451 4.3.0 Local error, try again later"},
		"wrapped":   {fmt.Errorf("intake: %w", mail.Temporary(451, 7, 1, "Later")), "451 4.7.1 Later"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{}
			r.receive = func(_ ctx, e *mail.Envelope, rd io.Reader) (Receipt, error) {
				io.Copy(io.Discard, rd)
				return Receipt{}, c.err
			}
			startRig(t, r)
			d := r.hi()
			d.envelope()
			d.do("DATA\r\n", "354")
			d.do("x\r\n.\r\n", c.want)
			d.do("RCPT TO:<b@mx.test>\r\n", "503 5.5.1")
			d.do("DATA\r\n", "503 5.5.1")
			r.receive = nil
			d.envelope()
			d.do("DATA\r\n", "354")
			d.do("y\r\n.\r\n", "250")
			r.only("y\r\n")
		})
	}
}

func TestP04VerifyInTransaction(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("VRFY ü\r\n", "252")
	c.do("EXPN staff\r\n", "502 5.5.1")
	c.do("HELP\r\n", "502 5.5.1")
	c.do("NOOP anything\r\n", "250")
	c.do("DATA\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	r.only("x\r\n")
}

func TestP05ResetsInTransaction(t *testing.T) {
	r := newRig(t, withTLS(TLSStart), func(o *Options) { o.Auth = AuthOptional })
	for _, reset := range []string{"RSET\r\n", "EHLO x\r\n", "HELO x\r\n"} {
		c := r.hi()
		c.envelope()
		c.do(reset, "250")
		c.do("RCPT TO:<b@mx.test>\r\n", "503 5.5.1")
		c.do("DATA\r\n", "503 5.5.1")
		c.do("MAIL FROM:<a@x.test>\r\n", "250")
		c.do("MAIL FROM:<a@x.test>\r\n", "503 5.5.1")
	}
	c := r.hi()
	c.envelope()
	c.startTLS()
	c.do("EHLO x\r\n", "250")
	c.do("DATA\r\n", "503 5.5.1")
	r.none()
}

func TestSequence(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	c.expect("220")
	c.do("MAIL FROM:<a@x.test>\r\n", "503 5.5.1")
	c.do("RCPT TO:<a@x.test>\r\n", "503 5.5.1")
	c.do("DATA\r\n", "503 5.5.1")
	c.do("RSET\r\n", "250")
	c.do("HELO\r\n", "501 5.5.2")
	c.do("LHLO x\r\n", "500 5.5.2")
	c.do("HELO old.test\r\n", "250 mx.test")
	c.do("DATA now\r\n", "501 5.5.4")
	c.do("RSET now\r\n", "501 5.5.4")
	c.do("mail from:<a@x.test>\r\n", "250")
	c.do("DATA\r\n", "503 5.5.1 RCPT first")
	c.do("RCPT TO:<b@mx.test>\r\n", "250")
	c.do("data\r\n", "354")
	c.do("x\r\n.\r\n", "250")
	if m := r.only("x\r\n"); m.env.Client.Protocol != "SMTP" || m.env.Client.Helo != "old.test" {
		t.Errorf("%+v", m.env.Client)
	}
	c.do("QUIT\r\n", "221")
	c.closed()
}

func TestP06EarlyTalker(t *testing.T) {
	r := &rig{}
	talk := make(chan struct{})
	r.connect = func(*mail.Client) mail.Status { <-talk; return mail.Status{} }
	startRig(t, r)
	c := r.dial()
	c.send("EHLO x\r\n")
	// The policy is still being asked; what was sent is in the socket by now, or comes
	// with the loopback's certainty before the next line.
	close(talk)
	c.expect("554 5.5.0")
	c.closed()
	slow := newRig(t, func(o *Options) { o.Timeouts.Greet = 20e9 })
	d := slow.dial()
	d.send("E")
	d.expect("554 5.5.0")
	d.closed()
	patient := newRig(t, func(o *Options) { o.Timeouts.Greet = 20e6 })
	patient.hi()
}

func TestP07NoWaitFor354(t *testing.T) {
	r := newRig(t)
	for _, cmds := range []string{
		"DATA\r\nSubject: x\r\n\r\n.\r\n",
		"DATA\r\nRSET\r\n",
		"RCPT TO:<no@mx.test>\r\nDATA\r\nMAIL FROM:<a@b.test>\r\n",
	} {
		c := r.hi()
		c.envelope()
		c.send(cmds)
		if strings.HasPrefix(cmds, "RCPT") {
			c.expect("550")
		}
		c.expect("554 5.5.0 Improper command pipelining")
		c.closed()
	}
	r.none()
	s := newRig(t, withTLS(TLSStart))
	d := s.hi()
	d.startTLS()
	d.do("EHLO x\r\n", "250")
	d.envelope()
	d.do("DATA\r\nSubject: x\r\n\r\n.\r\n", "554 5.5.0")
	d.closed()
	s.none()
}

func TestP08Pipelining(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	group := "MAIL FROM:<a@x.test>\r\n"
	want := []string{"250 2.1.0"}
	for i := range 50 {
		if i%10 == 9 {
			group += fmt.Sprintf("RCPT TO:<no%d@mx.test>\r\n", i)
			want = append(want, "550 5.1.1")
		} else {
			group += fmt.Sprintf("RCPT TO:<u%d@mx.test>\r\n", i)
			want = append(want, "250 2.1.5")
		}
	}
	c.do(group+"DATA\r\n", append(want, "354")...)
	// The message is followed by the next group in the same segment (RFC 2920 §3.1).
	c.do("x\r\n.\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<no@mx.test>\r\nDATA\r\n", "250 2.0.0", "250 2.1.0", "550 5.1.1", "554 5.5.1 No valid recipients")
	c.do("RSET\r\n", "250")
	if m := r.only("x\r\n"); len(m.env.Recipients) != 45 || m.env.Recipients[44].Path.Local != "u48" {
		t.Errorf("%d recipients", len(m.env.Recipients))
	}
}

// TestP07NextSegment: a message in a segment of its own, which the server has not read when
// it comes to DATA.
func TestP07NextSegment(t *testing.T) {
	sent := make(chan struct{})
	r := startRig(t, &rig{recipient: func(*mail.Envelope, mail.Path) mail.Status { <-sent; return mail.Status{} }})
	c := r.hi()
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	c.send("RCPT TO:<b@mx.test>\r\nDATA\r\n")
	eventually(t, "server waits for the policy", func() bool { return r.asked.Load() })
	c.send("Subject: x\r\n\r\n.\r\n")
	close(sent)
	c.expect("250")
	c.expect("554 5.5.0")
	c.closed()
	r.none()
}

// TestLinger: a client that sends on gets to read why it was refused.
func TestLinger(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Timeouts.Linger = 20 * time.Second; o.Limits.MessageSize = 1 << 20 })
	for _, secure := range []bool{false, true} {
		if secure {
			r = newRig(t, withTLS(TLSStart), func(o *Options) { o.Timeouts.Linger = 20 * time.Second; o.Limits.MessageSize = 1 << 20 })
		}
		c := r.hi()
		if secure {
			c.startTLS()
			c.do("EHLO x\r\n", "250")
		}
		c.envelope()
		c.do("DATA\r\n", "354")
		c.send("a\nb\r\n")
		for range 100 {
			c.send(strings.Repeat("x", 5000) + "\r\n")
		}
		c.do(".\r\n", "554 5.6.0")
		c.closed()
		c.conn.Close()
	}
}

// TestP08LongPipeline: more commands after a message than the small buffer holds.
func TestP08LongPipeline(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	group := "MAIL FROM:<a@x.test>\r\n"
	want := []string{"250 2.0.0", "250 2.1.0"}
	for i := range 800 {
		group += fmt.Sprintf("RCPT TO:<recipient-%d@mx.test>\r\n", i)
		want = append(want, "250 2.1.5")
	}
	c.do("x\r\n.\r\n"+group+"DATA\r\n", append(want, "354")...)
	c.do("y\r\n.\r\n", "250 2.0.0 Ok: queued as q2")
	if m := r.queued(); len(m) != 2 || len(m[1].env.Recipients) != 800 {
		t.Errorf("%d messages", len(m))
	}
}

func TestP13EndlessLine(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	go io.Copy(c.conn, io.LimitReader(zeros('x'), 50<<20)) // ends when the connection does
	c.expect("500 5.5.2 Line too long")
	c.closed()
	for size, want := range map[int]string{wire.MaxCommand - 1: "250", wire.MaxCommand: "250", wire.MaxCommand + 1: "500 5.5.2"} {
		d := r.hi()
		d.do("NOOP "+strings.Repeat("x", size-7)+"\r\n", want)
	}
}

type zeros byte

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(z)
	}
	return len(p), nil
}

func TestP14LongDataLine(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MessageSize = 1 << 20 })
	c := r.hi()
	good := 0
	for _, size := range []int{998, 1000, 2048, 64<<10 - 1, 64 << 10, 64<<10 + 1, 900_000} {
		line := strings.Repeat("x", size-2) + "\r\n"
		c.envelope()
		c.do("DATA\r\n", "354")
		want := "250"
		if size > 64<<10 {
			want = "554 5.6.0"
		} else {
			good++
		}
		c.do(line+".\r\n", want)
		if m := r.queued(); len(m) != good || m[good-1].data != line && want == "250" {
			t.Fatalf("%d octets: %d messages", size, len(m))
		}
	}
}

func TestP15BadCommands(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	for range 10 {
		c.do("FOO\r\n", "500 5.5.2 Command not recognized")
	}
	c.expect("421 4.7.0")
	c.closed()
	for _, junk := range []string{"NOOP\r\n", "RSET\r\n", "VRFY x\r\n", "EHLO x\r\n"} {
		c = r.hi()
		for range 100 {
			c.do(junk, "25")
		}
		c.expect("421 4.7.0")
		c.closed()
	}
	// An accepted message starts the count again.
	c = r.hi()
	for range 4 {
		for range 9 {
			c.do("FOO\r\n", "500")
		}
		c.envelope()
		c.do("DATA\r\n", "354")
		c.do("x\r\n.\r\n", "250")
	}
}

func TestP16InvalidUTF8(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	all := ""
	for b := 0x80; b <= 0xff; b++ {
		all += string([]byte{byte(b)})
	}
	c.do(all+"\r\n", "501 5.5.2")
	c.do("MAIL FROM:<\xff@x.test> SMTPUTF8\r\n", "501 5.5.2")
	c.do("MAIL FROM:<\xc0\xaf@x.test> SMTPUTF8\r\n", "501 5.5.2")
	c.do("NOOP\r\n", "250")
}

func TestP18SizeOnRealOctets(t *testing.T) {
	for _, begin := range []string{"DATA", "BDAT"} {
		for extra, want := range map[int]string{-1: "250", 0: "250", 1: "552 5.3.4"} {
			r := newRig(t)
			c := r.hi()
			c.do("MAIL FROM:<a@x.test> SIZE=10\r\n", "250")
			c.do("RCPT TO:<b@mx.test>\r\n", "250")
			msg := strings.Repeat("x\r\n", 10_000/3-1)
			msg += strings.Repeat("y", 10_000+extra-len(msg)-2) + "\r\n"
			if begin == "DATA" {
				c.do("DATA\r\n", "354")
				c.do(msg+".\r\n", want)
			} else {
				c.do(fmt.Sprintf("BDAT %d LAST\r\n%s", len(msg), msg), want)
			}
			if want == "250" {
				r.only(msg)
			} else {
				r.none()
			}
			c.do("NOOP\r\n", "250 2.0.0 Ok")
		}
	}
}

func TestP19SizeAtMAIL(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<a@x.test> SIZE=10001\r\n", "552 5.3.4")
	for _, size := range []string{"9999", "10000", "0"} {
		c.do("MAIL FROM:<a@x.test> SIZE="+size+"\r\n", "250")
		c.do("RSET\r\n", "250")
	}
}

// TestEndlessRefusedMessage: what is swallowed of a refused message has an end.
func TestEndlessRefusedMessage(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("DATA\r\n", "354")
	go io.Copy(c.conn, io.LimitReader(zeros('x'), 50<<20))
	c.expect("552 5.3.4")
	c.closed()
	r.none()
}

// TestP22DisconnectAtEachStep: nothing is queued, Intake learns of it, nothing leaks.
func TestP22DisconnectAtEachStep(t *testing.T) {
	steps := []string{"", "EHLO x\r\n", "MAIL FROM:<a@x.test>\r\n", "RCPT TO:<b@mx.test>\r\n", "DATA\r\n", "Subject: x\r\n\r\nbody", "\r\n.", "\r"}
	chunks := []string{"", "EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@mx.test>\r\n", "BDAT 5\r\n", "abc", "de", "BDAT 10 LAST\r\n", "123456789"}
	for _, script := range [][]string{steps, chunks} {
		for n := range len(script) + 1 {
			for _, reset := range []bool{false, true} {
				r := newRig(t)
				c := r.dial()
				c.expect("220")
				for _, s := range script[:n] {
					c.send(s)
					if replies := strings.Count(s, "\r\n"); strings.HasPrefix(s, "EHLO") || strings.Contains(s, ":<") {
						for range replies {
							c.reply()
						}
					} else if s == "DATA\r\n" || s == "de" {
						c.reply()
					}
				}
				if reset {
					c.conn.(*net.TCPConn).SetLinger(0)
				}
				c.conn.Close()
				eventually(t, "session ends", func() bool { return r.srv.Sessions() == 0 })
				r.none()
			}
		}
	}
}
