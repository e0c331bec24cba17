package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// programs are the plugins of testdata, built once.
var programs sync.Map // name -> func() (string, error)

// program builds a plugin of testdata and returns its path. Everybody may execute it.
func program(t testing.TB, name string) string {
	t.Helper()
	build, _ := programs.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		path := filepath.Join(filepath.Dir(binary), "plugin-"+name)
		out, err := exec.Command("go", "build", "-o", path, "../../testdata/plugins/"+name).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return path, nil
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// hostile is the configuration of a gateway for example.org with the hostile plugin as a
// filter, delivering to a sink.
func hostile(t testing.TB, out *sink, more string) string {
	return basics + fmt.Sprintf(`
[[domain]]
name = "example.org"
recipients = "any"
deliver = "smtp://%s"
[[plugin]]
name = "hostile"
command = %q
%s
`, out.addr, program(t, "hostile"), more)
}

// One of a thousand messages kills the plugin. The others are delivered, that one is held
// with what the plugin said, no session notices, and no innocent message is held.
func TestG01OneOfAThousandIsHeld(t *testing.T) {
	t.Parallel()
	for how, says := range map[string]string{"exit": "exit status 0", "crash": "panic: in the background"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			out := newSink(t)
			g := start(t, hostile(t, out, `on_failure = "reject"`))
			const messages, sessions = 1000, 10
			var next atomic.Int64
			var wg sync.WaitGroup
			var guilty string
			for range sessions {
				wg.Go(func() {
					c := dial(t, g.addr[0])
					c.cmd(250, "EHLO client.example.net")
					for n := next.Add(1); n <= messages; n = next.Add(1) {
						text := fmt.Sprintf("Subject: %d\r\n\r\ntext", n)
						if n == messages/2 {
							text = "X-Do: " + how + "\r\n" + text
						}
						id := c.message("a@example.net", []string{"b@example.org"}, text)
						if n == messages/2 {
							guilty = id
						}
					}
					c.cmd(221, "QUIT")
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			got := out.wait(t, "all but one", func(got []arrived) bool { return len(got) == messages-1 })
			seen := make(map[string]bool)
			for _, a := range got {
				_, subject, _ := strings.Cut(a.Data, "Subject: ")
				subject, _, _ = strings.Cut(subject, "\r\n")
				seen[subject] = true
			}
			if len(seen) != messages-1 || seen[fmt.Sprint(messages/2)] {
				t.Errorf("%d different messages arrived, among them the guilty one: %v", len(seen), seen[fmt.Sprint(messages/2)])
			}
			done := 0
			g.log.wait(t, "delivered", func(map[string]any) bool { done++; return done == messages-1 })
			q := g.queue()
			if len(q) != 1 || q[0].ID != guilty || q[0].State != "held" || q[0].Reason != "convicted: plugin hostile died twice on this message" {
				t.Fatalf("the queue has %+v, want %s held", q, guilty)
			}
			if show := g.must("queue", "show", guilty); !strings.Contains(show, "  ! "+says) {
				t.Errorf("queue show does not say %q:\n%s", says, show)
			}
			if n := g.log.count("plugin", has("action", "convicted")); n != 1 {
				t.Errorf("%d convictions in the trace", n)
			}
			if g.log.count("plugin breaker opened: it dies again and again", nil) > 0 {
				t.Error("the breaker opened")
			}
			// Released, it is tried again, and convicted again.
			g.must("queue", "release", guilty)
			g.log.wait(t, "held", func(line map[string]any) bool { return line["family"] == guilty })
			if q := g.queue(); len(q) != 1 || q[0].State != "held" {
				t.Errorf("after its release: %+v", q)
			}
		})
	}
}

// A client cannot fill the queue with mail that kills.
func TestConvictionsAreCapped(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	g := start(t, hostile(t, out, ""))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	send := func(do string) (int, string) {
		c.cmd(250, "MAIL FROM:<a@example.net>")
		c.cmd(250, "RCPT TO:<b@example.org>")
		c.cmd(354, "DATA")
		c.send("X-Do: " + do + "\r\nSubject: x\r\n\r\ntext\r\n.\r\n")
		code, text, err := c.reply()
		if err != nil {
			t.Fatal(err)
		}
		return code, text
	}
	for i := range 20 {
		if code, text := send("look"); code != 250 {
			t.Fatalf("message %d: %d %s", i+1, code, text)
		}
		if code, text := send("exit"); code != 250 {
			t.Fatalf("poison %d: %d %s", i+1, code, text)
		}
	}
	for _, do := range []string{"exit", "look"} {
		if code, _ := send(do); code != 451 {
			t.Errorf("beyond the cap: %d", code)
		}
	}
	refused := 0 // until the log has come that far
	g.log.wait(t, "refused", func(map[string]any) bool { refused++; return refused == 2 })
	if n := g.log.count("plugin died", nil); n != 20 {
		t.Errorf("the plugin died %d times", n)
	}
	if n := len(held(g)); n != 20 {
		t.Errorf("%d messages are held", n)
	}
}

// Nor can it keep a mailbox plugin dying, at whose deliveries nobody waits: its mail beyond the
// cap is put off without being shown, and that of others is delivered.
func TestConvictionsAtDeliveryAreCapped(t *testing.T) {
	t.Parallel()
	g := start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
recipients = "any"
deliver = "box"
[[plugin]]
name = "box"
command = %q
origins = ["fetched"] # it is a filter too
`, program(t, "hostile")))
	send := func(address byte, do string) string {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 4, address)}}
		conn, err := d.Dial("tcp", g.addr[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		c := &client{t, conn, bufio.NewReader(conn)}
		c.expect(220)
		c.cmd(250, "EHLO client.example.net")
		return c.message("a@example.net", []string{"b@example.org"}, "X-Do: "+do+"\r\nSubject: x\r\n\r\ntext")
	}
	innocent := func(address byte) {
		t.Helper()
		g.log.wait(t, "delivered", has("id", send(address, "look")))
	}
	innocent(1)
	for range 20 {
		g.log.wait(t, "held", has("family", send(1, "exit")))
	}
	for _, do := range []string{"exit", "look"} {
		id := send(1, do)
		g.log.wait(t, "plugin", has("id", id, "action", "not asked", "plugin", "box"))
		g.log.wait(t, "deferred", has("id", id))
	}
	innocent(2)
	if n := g.log.count("plugin died", nil); n != 20 {
		t.Errorf("the plugin died %d times", n)
	}
	if n := len(held(g)); n != 20 {
		t.Errorf("%d messages are held", n)
	}
	if g.log.count("plugin breaker opened: it dies again and again", nil) > 0 {
		t.Error("the breaker opened")
	}
}

func held(g *gateway) []queued {
	var hs []queued
	for _, q := range g.queue() {
		if q.State == "held" {
			hs = append(hs, q)
		}
	}
	return hs
}
