package main_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// A filter that gives no answer is one that fails: nothing of what it brought back is used,
// and what it brings later is refused.
func TestSMTPFilterFails(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "timeout = \"1s\"")
	late := make(chan *handed, 1)
	end := make(chan struct{})
	f.script(func(h *handed) error {
		h.return250(h.To, h.Text)
		late <- h
		<-end
		return nil
	})
	if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail); code != 451 {
		t.Errorf("too slow: %d %s", code, reply)
	}
	h := <-late
	if code, reply := f.bring(h.From, h.To, h.Text); code != 550 { // as late, or as brought twice while the plugin has not let go
		t.Errorf("too late: %d %s", code, reply)
	}
	close(end)
	f.script(func(*handed) error { return refuse(421, "going down") })
	if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail); code != 451 || strings.Contains(reply, "going down") {
		t.Errorf("421: %d %s", code, reply)
	}
	if n := len(sink.Messages()); n != 0 || len(g.queue()) != 0 {
		t.Errorf("%d delivered", n)
	}
}

// What is no SMTP is no answer, whatever it is and when it comes.
func TestSMTPFilterGarbage(t *testing.T) {
	t.Parallel()
	const hello = "220 x\r\n250 x\r\n"
	for name, says := range map[string]string{
		"nothing":          "",
		"not SMTP":         "HTTP/1.1 400 Bad Request\r\n\r\n",
		"refuses to talk":  "554 no\r\n",
		"ends after hello": hello,
		"a log-in":         hello + "530 5.7.0 log in\r\n",
		"does not know us": hello + "250 ok\r\n502 what\r\n",
		"two codes":        "220-x\r\n250 x\r\n",
		"a long line":      "220 " + strings.Repeat("x", 100_000) + "\r\n",
		"many lines":       strings.Repeat("220-x\r\n", 100_000),
		"no 354":           hello + "250 ok\r\n250 ok\r\n250 ok\r\n",
		"ends after 354":   hello + "250 ok\r\n250 ok\r\n354 go\r\n",
		"354 again":        hello + "250 ok\r\n250 ok\r\n354 go\r\n354 go\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := smtptest.Serve(t, func(c net.Conn) {
				io.WriteString(c, says)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			})
			g := start(t, forwarding("example.org", "smtp://127.0.0.1:25")+withReinjection+smtpfilter(addr, "timeout = \"5s\""))
			if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail); code != 451 || !strings.Contains(reply, "4.3.0") {
				t.Errorf("%d %s", code, reply)
			}
		})
	}
}

// A gateway that dies while a message is with the filter has promised nothing: the client
// comes back, and what the filter brings to the next life is refused.
func TestSMTPFilterRestart(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "")
	with, end := make(chan *handed, 2), make(chan struct{})
	f.script(func(h *handed) error {
		h.return250(h.To, h.Text)
		with <- h
		<-end
		return nil
	})
	done := make(chan int)
	go func() {
		code, _ := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail)
		done <- code
	}()
	h := <-with
	g.kill()
	if code := <-done; code != 0 {
		t.Errorf("reply %d", code)
	}
	close(end)
	f.script(func(h *handed) error { return h.return250(h.To, h.Text) })
	g = startIn(t, g.dir, forwarding("example.org", "smtp://"+sink.Addr())+withReinjection+smtpfilter(f.addr, ""))
	f.bringsTo(g.addr[1])
	if code, reply := f.bring(h.From, h.To, h.Text); code != 550 {
		t.Errorf("in the next life: %d %s", code, reply)
	}
	if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail); code != 250 {
		t.Errorf("%d %s", code, reply)
	}
	if n := len(sink.Wait(t, 1, patience)); n != 1 {
		t.Errorf("%d delivered", n)
	}
}

// A client that goes away after its final dot, while its message is with the filter, has no reply: the
// message was taken all the same, arrives once, and nothing waits for it any more.
func TestSMTPFilterClientGone(t *testing.T) {
	t.Parallel()
	for name, linger := range map[string]int{"closed": -1, "cut": 0} {
		for answer, arrives := range map[string]int{"brought back": 1, "refused": 0} {
			t.Run(name+", "+answer, func(t *testing.T) {
				t.Parallel()
				f := newOutside(t, false)
				g, sink := filtering(t, f, "")
				with, end := make(chan *handed, 1), make(chan struct{})
				f.script(func(h *handed) error {
					with <- h
					<-end
					if arrives == 0 {
						return refuse(554, "no")
					}
					return h.return250(h.To, h.Text)
				})
				c := dial(t, g.addr[0])
				c.cmd(250, "EHLO client.example.net")
				c.cmd(250, "MAIL FROM:<a@example.net>")
				c.cmd(250, "RCPT TO:<bob@example.org>")
				c.cmd(354, "DATA")
				c.send(plainMail + ".\r\n")
				h := <-with
				c.conn.(*net.TCPConn).SetLinger(linger)
				c.conn.Close()
				close(end)
				if arrives == 1 {
					g.log.wait(t, "accepted", nil)
				} else {
					g.log.wait(t, "refused", nil)
				}
				if code, reply := f.bring(h.From, h.To, h.Text); code != 550 {
					t.Errorf("with its token again: %d %s", code, reply)
				}
				f.script(func(h *handed) error { return h.return250(h.To, h.Text) })
				if code, reply := g.handIn("a@example.net", []string{"carol@example.org"}, plainMail); code != 250 {
					t.Errorf("%d %s", code, reply)
				}
				sink.Wait(t, arrives+1, patience)
				if code := g.stop(); code != 0 { // which waits for what is with the filter
					t.Errorf("exit code %d", code)
				}
				if n, q := len(sink.Messages()), g.queue(); n != arrives+1 || len(q) != 0 {
					t.Errorf("%d arrived, and queued are %+v", n, q)
				}
			})
		}
	}
}

// A gateway that is told to stop takes back what is with the filter, and answers.
func TestSMTPFilterStops(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "")
	with, end := make(chan struct{}), make(chan struct{})
	f.script(func(h *handed) error {
		close(with)
		<-end
		return h.return250(h.To, h.Text)
	})
	done := make(chan int)
	go func() {
		code, _ := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail)
		done <- code
	}()
	<-with
	g.cmd.Process.Signal(syscall.SIGTERM)
	g.log.wait(t, "stopping", nil)
	close(end)
	if code := <-done; code != 250 {
		t.Errorf("reply %d", code)
	}
	<-g.done
	if g.cmd.ProcessState.ExitCode() != 0 {
		t.Error("exit code")
	}
	g = startIn(t, g.dir, forwarding("example.org", "smtp://"+sink.Addr()))
	sink.Wait(t, 1, patience)
}

// Mail that no client waits for goes the same way.
func TestSMTPFilterParked(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close() // refuses connections
	sink := smtptest.New(t, smtptest.Options{})
	g := start(t, forwarding("example.org", "smtp://"+sink.Addr())+withReinjection+smtpfilter(nobody, "on_failure = \"park\""))
	if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, plainMail); code != 250 {
		t.Fatal(code, reply)
	}
	if q := g.queue(); len(q) != 1 || q[0].State != "parked" {
		t.Fatalf("%+v", q)
	}
	g.stop()
	f := newOutside(t, false)
	f.script(func(h *handed) error { return h.return250(h.To, strings.Replace(h.Text, "body", "another body", 1)) })
	// The filter has to know where to bring it before the queue is looked at.
	f.back = freeAddress(t)
	g = startIn(t, g.dir, forwarding("example.org", "smtp://"+sink.Addr())+strings.Replace(withReinjection, "127.0.0.1:0", f.back, 1)+smtpfilter(f.addr, "on_failure = \"park\""))
	g.must("queue", "retry", "--all")
	if m := sink.Wait(t, 1, patience)[0]; !strings.Contains(string(m.Data), "\r\n\r\nanother body\r\n") || strings.Contains(string(m.Data), "Reinject") {
		t.Errorf("delivered was\n%s", m.Data)
	}
}

// freeAddress was free a moment ago.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// One without the other is a fault that check finds.
func TestCheckReinjection(t *testing.T) {
	t.Parallel()
	base := forwarding("example.org", "smtp://127.0.0.1:25")
	for config, want := range map[string]string{
		base + smtpfilter("127.0.0.1:10024", ""):                   `role = "reinjection"`,
		base + withReinjection:                                     "no plugin waits",
		base + withReinjection + smtpfilter("127.0.0.1:10024", ""): "",
		base + withReinjection + smtpfilter("10024", ""):           `neither "host:port"`,
		base + withReinjection + smtpfilter("", ""):                "address: it is missing",
		base + withReinjection + smtpfilter("127.0.0.1:10024", "") + "swallowed = \"lose\"\nprotocol = \"http\"\n":  `protocol: "http"`,
		base + withReinjection + smtpfilter("unix:filter.sock", "") + "connections = 0\nreply_timeout = \"soon\"\n": "reply_timeout",
	} {
		out, code := postern(t, "", "check", "--config", write(t, t.TempDir(), config))
		if (code == 0) != (want == "") || !strings.Contains(out, want) {
			t.Errorf("exit code %d, want %q in\n%s", code, want, out)
		}
	}
}

// Of many messages at once each gets back what is its own.
func TestSMTPFilterConcurrent(t *testing.T) {
	t.Parallel()
	f := newOutside(t, false)
	g, sink := filtering(t, f, "")
	f.script(func(h *handed) error {
		_, mark, _ := strings.Cut(h.Text, "Subject: ")
		mark, _, _ = strings.Cut(mark, "\r\n")
		text := strings.Replace(h.Text, "\r\n\r\n", "\r\nX-Mark: "+mark+"\r\n\r\n", 1)
		return h.return250(h.To, strings.Replace(text, "\r\nbody", "\r\nthe body of "+mark, 1))
	})
	const sessions, each = 20, 10
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			for j := range each {
				mark := fmt.Sprintf("m%d-%d.", i, j)
				if code, reply := g.handIn("a@example.net", []string{"bob@example.org"}, strings.Replace(plainMail, "hello", mark, 1)); code != 250 {
					t.Errorf("%s: %d %s", mark, code, reply)
				}
			}
		})
	}
	wg.Wait()
	for _, m := range sink.Wait(t, sessions*each, patience) {
		text := string(m.Data)
		_, mark, _ := strings.Cut(text, "Subject: ")
		mark, _, _ = strings.Cut(mark, "\r\n")
		if strings.Count(text, mark) != 3 || strings.Count(text, "X-Mark: "+mark+"\r\n") != 1 || !strings.Contains(text, "the body of "+mark+"\r\n") {
			t.Errorf("mixed up:\n%s", text)
		}
	}
	if n := len(sink.Messages()); n != sessions*each {
		t.Errorf("%d delivered", n)
	}
}
