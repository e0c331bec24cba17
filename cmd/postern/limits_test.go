package main_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestD08FileSizeLimit runs the gateway with a limit on the size of files: what does not
// fit is refused for now, and neither the signal nor the error ends the process.
func TestD08FileSizeLimit(t *testing.T) {
	peer(t, "prlimit")
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	g := launch(t, dir, relayTo(s), "prlimit", "--fsize="+strconv.Itoa(1<<20))
	g.ready()
	l.accepted(g, l.write(large, "rcpt@example.com"))
	for range 3 {
		if code, err := l.post(g.addr[0], l.write(2<<20, "rcpt@example.com"), nil); err != nil || code != 452 && code != 552 {
			t.Fatalf("got %d %v, want 452 or 552", code, err)
		}
	}
	// The log meets the limit too.
	for range 100 {
		code, err := l.post(g.addr[0], l.write(20<<10, "rcpt@example.com"), nil)
		if err != nil || code != 250 && code != 452 {
			t.Fatalf("got %d %v", code, err)
		}
	}
	l.accepted(g, l.write(large, "rcpt@example.com"))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestD09TooManyFiles opens more connections than the gateway may have files: it does not
// die or spin, and serves again when they are gone.
func TestD09TooManyFiles(t *testing.T) {
	peer(t, "prlimit")
	s, l, dir := newSink(t), newLedger(t), t.TempDir()
	config := strings.Replace(relayTo(s), "[queue]", "[limits]\nconnections_per_client = 400\n[queue]", 1)
	g := launch(t, dir, config, "prlimit", "--nofile=64:64")
	g.ready()
	var conns []net.Conn
	for range 200 {
		c, err := net.DialTimeout("tcp", g.addr[0], patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	g.log.wait(t, "cannot accept connections", nil)
	from := g.log.len()
	begin := time.Now()
	g.log.waitFrom(t, from, "cannot accept connections", nil)
	t.Logf("next complaint after %s", time.Since(begin))
	if n := g.log.count("cannot accept connections", nil); n > 100 {
		t.Errorf("%d complaints: it spins", n)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "mail is taken again", func() bool {
		code, err := l.post(g.addr[0], l.write(large, "rcpt@example.com"), nil)
		return err == nil && code == 250
	})
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
