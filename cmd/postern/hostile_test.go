package main_test

import (
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestX07AddressesOnATerminal: an address may hold characters that turn the direction of
// writing (RFC 6532); on a terminal they would make a line look like another one.
func TestX07AddressesOnATerminal(t *testing.T) {
	t.Parallel()
	g := start(t, basics+"[smarthost]\naddress = \"127.0.0.1:1\"\n")
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<a\u202efrom@client.example> SMTPUTF8")
	c.cmd(250, "RCPT TO:<b\u202eto@ext.example>")
	c.cmd(354, "DATA")
	c.send("Subject: \u202ex\r\n\r\nbody\r\n.\r\n")
	id := queuedAs(t, c.expect(250))
	g.log.wait(t, "deferred", has("id", id))
	for _, args := range [][]string{{"queue", "list"}, {"queue", "show", id}, {"queue", "show", "--raw", id}, {"queue", "summary"}} {
		out := g.must(args...)
		if strings.ContainsRune(out, '\u202e') || args[1] != "summary" && !strings.Contains(out, "b?to@ext.example") {
			t.Errorf("%s:\n%q", strings.Join(args, " "), out)
		}
	}
}

// TestX02ReloadRefusesNobody: whoever connects while the configuration is read again, many
// times, gets the banner and an answer.
func TestX02ReloadRefusesNobody(t *testing.T) {
	t.Parallel()
	g := start(t, basics)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("tcp", g.addr[0])
				if err != nil {
					t.Error(err)
					return
				}
				conn.SetDeadline(time.Now().Add(patience))
				buf := make([]byte, 512)
				n, err := conn.Read(buf)
				if err == nil && strings.HasPrefix(string(buf[:n]), "220 ") {
					conn.Write([]byte("QUIT\r\n"))
					n, err = conn.Read(buf)
				}
				conn.Close()
				if err != nil || !strings.HasPrefix(string(buf[:n]), "221 ") {
					t.Errorf("%q %v", buf[:n], err)
					return
				}
			}
		})
	}
	for range 50 {
		n := g.log.len()
		g.cmd.Process.Signal(syscall.SIGHUP)
		g.log.waitFrom(t, n, "configuration reloaded", nil)
	}
	close(stop)
	clients.Wait()
}
