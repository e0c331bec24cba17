package main_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// recipients makes a sink have some recipients, and no others. It counts the questions: RCPT
// after the null reverse-path.
type recipients struct {
	mu     sync.Mutex
	known  map[string]bool // by local part; "*": all
	asked  int
	probe  bool
	before func() // if not nil: called before an answer to a question
}

func behindSink(t testing.TB, known ...string) (*sink, *recipients) {
	s := newSink(t)
	r := &recipients{known: make(map[string]bool)}
	r.has(known...)
	s.script(r.answer)
	return s, r
}

func (r *recipients) has(known ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.known)
	for _, k := range known {
		r.known[k] = true
	}
}

func (r *recipients) questions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *recipients) answer(verb, line string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch verb {
	case "MAIL":
		r.probe = strings.Contains(line, "<>")
	case "RCPT":
		if r.probe && !strings.Contains(line, "no-such-user-") {
			r.asked++
			if before := r.before; before != nil {
				r.mu.Unlock()
				before()
				r.mu.Lock()
			}
		}
		local, _, _ := strings.Cut(path(line), "@")
		if !r.known[local] && !r.known["*"] {
			return "550 5.1.1 no such user"
		}
	}
	return ""
}

const corp = basics + `
[[domain]]
name = "corp.example"
aliases = ["corp.test"]
deliver = "smtp://%s"
recipients = "callahead"
`

// mailTo is a session that has begun a message.
func (g *gateway) mailTo() *client {
	g.t.Helper()
	c := dial(g.t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<from@example.net>")
	return c
}

// TestCallahead: what the server says is the answer, and is remembered: with the server down and over a
// restart. With nothing known and nobody to ask nobody gets a 550.
func TestCallahead(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t, "carol", "dave")
	config := fmt.Sprintf(corp, next.addr)
	g := start(t, config)
	c := g.mailTo()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	if text := c.cmd(550, "RCPT TO:<nobody@corp.example>"); !strings.Contains(text, "5.1.1") {
		t.Error(text)
	}
	c.cmd(250, "RCPT TO:<Carol@corp.test>")
	c.cmd(550, "RCPT TO:<nobody@corp.test>")
	c.cmd(250, "RCPT TO:<postmaster@corp.example>")
	c.cmd(550, "RCPT TO:<a%%b@corp.example>")
	if n := r.questions(); n != 3 {
		t.Errorf("the server was asked %d times", n)
	}
	c.cmd(221, "QUIT")
	id := g.deliver("from@example.net", []string{"carol@corp.test"}, "Subject: x\r\n\r\nbody")
	g.log.wait(t, "delivered", has("id", id, "to", "carol@corp.example"))
	next.wait(t, "one message", func(m []arrived) bool { return len(m) == 1 && m[0].To[0] == "carol@corp.example" })

	next.busy()
	next.hangup() // connections kept for the next message
	known := func(g *gateway) {
		t.Helper()
		c := g.mailTo()
		c.cmd(250, "RCPT TO:<carol@corp.example>")
		c.cmd(550, "RCPT TO:<nobody@corp.example>") // it said so, lately
		if text := c.cmd(450, "RCPT TO:<dave@corp.example>"); !strings.Contains(text, "4.2.0") {
			t.Error(text)
		}
		c.cmd(450, "RCPT TO:<nobody2@corp.example>")
		c.cmd(221, "QUIT") // a transaction would be waited for when the gateway stops
	}
	known(g)
	id = g.deliver("from@example.net", []string{"carol@corp.example"}, "Subject: x\r\n\r\nbody")
	g.log.wait(t, "deferred", has("id", id))
	if code := g.stop(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	g = startIn(t, g.dir, config)
	known(g)
	next.script(r.answer)
	g.log.wait(t, "delivered", has("id", id))
	g.mailTo().cmd(250, "RCPT TO:<dave@corp.example>") // a delivery has shown that the server is there again
}

// TestCallaheadLearns: an address that the server refuses when mail comes is unknown from then on.
func TestCallaheadLearns(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t, "carol")
	g := start(t, fmt.Sprintf(corp, next.addr))
	g.mailTo().cmd(250, "RCPT TO:<carol@corp.example>")
	r.has()
	id := g.deliver("from@example.net", []string{"carol@corp.example"}, "Subject: x\r\n\r\nbody")
	g.log.wait(t, "failed", has("id", id))
	g.mailTo().cmd(550, "RCPT TO:<carol@corp.example>")
	if n := r.questions(); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestCallaheadOwnAliases: what the gateway's own directory has needs no server.
func TestCallaheadOwnAliases(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t)
	g := start(t, fmt.Sprintf(corp, next.addr))
	g.account("alice@corp.example") // to log in with; the mailbox is behind
	g.mailTo().cmd(250, "RCPT TO:<alice@corp.example>")
	if n := r.questions(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestCallaheadTakesAll: a server that takes addresses that nobody has is noticed.
func TestCallaheadTakesAll(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t, "*")
	g := start(t, fmt.Sprintf(corp, next.addr))
	c := g.mailTo()
	for i := range 5 {
		c.cmd(250, "RCPT TO:<user%d@corp.example>", i)
	}
	if n := r.questions(); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
	g.log.wait(t, "next hop takes every address: recipients of the domain are not verified", has("level", "WARN", "domain", "corp.example"))
	next.busy()
	c.cmd(250, "RCPT TO:<whoever@corp.example>")
}

// TestCallaheadOneQuestion: many sessions that ask the same at once are one question.
func TestCallaheadOneQuestion(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t, "carol")
	began, hold := make(chan bool, 100), make(chan bool)
	r.before = func() { began <- true; <-hold }
	g := start(t, fmt.Sprintf(corp, next.addr))
	var sessions []*client
	for range 30 {
		c := g.mailTo()
		c.send("RCPT TO:<carol@corp.example>\r\n")
		sessions = append(sessions, c)
	}
	<-began
	close(hold)
	for _, c := range sessions {
		c.expect(250)
	}
	if n := r.questions(); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestCallaheadSlow: a server that does not answer holds nobody for longer than the timeout, and gets no
// more connections at a time than it may.
func TestCallaheadSlow(t *testing.T) {
	t.Parallel()
	next := newSink(t)
	next.tarpit()
	g := start(t, fmt.Sprintf(corp, next.addr)+"[callahead]\ntimeout = \"1s\"\nconcurrency = 3\n")
	var sessions []*client
	for i := range 20 {
		c := g.mailTo()
		c.send(fmt.Sprintf("RCPT TO:<user%d@corp.example>\r\n", i))
		sessions = append(sessions, c)
	}
	for _, c := range sessions {
		c.expect(450)
	}
	next.mu.Lock()
	defer next.mu.Unlock()
	if len(next.conns) > 3 {
		t.Errorf("%d connections", len(next.conns))
	}
}

// TestCallaheadHarvesting: who guesses addresses is stopped, and harms nobody's mail.
func TestCallaheadHarvesting(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t, "carol")
	g := start(t, strings.Replace(fmt.Sprintf(corp, next.addr), `networks = ["127.0.0.0/8"]`, `networks = []`, 1)+"[callahead]\nunknown_per_hour = 5\n")
	g.mailTo().cmd(250, "RCPT TO:<carol@corp.example>")
	c := g.mailTo()
	for i := range 5 {
		c.cmd(550, "RCPT TO:<guess%d@corp.example>", i)
	}
	c.cmd(450, "RCPT TO:<guess5@corp.example>")
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	if n := r.questions(); n != 6 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestCallaheadTry: a trial knows what the gateway knows, and asks nobody.
func TestCallaheadTry(t *testing.T) {
	t.Parallel()
	next, r := behindSink(t, "carol")
	g := start(t, fmt.Sprintf(corp, next.addr))
	c := g.mailTo()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	c.cmd(550, "RCPT TO:<nobody@corp.example>")
	c.cmd(221, "QUIT") // a transaction would be waited for
	g.stop()           // so that it is written
	file := g.dir + "/message"
	if err := os.WriteFile(file, []byte("Subject: x\r\n\r\nbody\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{"carol": "250", "nobody": "550 5.1.1", "dave": "250"} {
		if out := g.must("try", file, "--from", "x@example.net", "--to", to+"@corp.example"); !strings.Contains(out, want) {
			t.Errorf("%s:\n%s", to, out)
		}
	}
	if n := r.questions(); n != 2 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestCallaheadPostfix: with a real server, over TLS if it can, and while it is away.
func TestCallaheadPostfix(t *testing.T) {
	t.Parallel()
	peer(t, "postfix")
	p := virtualPostfix(t, "corp.example", []string{"carol"}, "")
	p.start(t, "")
	config := fmt.Sprintf(corp, p.addr)
	g := start(t, config)
	c := g.mailTo()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	c.cmd(550, "RCPT TO:<nobody@corp.example>")
	p.stop()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	c.cmd(450, "RCPT TO:<dave@corp.example>")
	c.cmd(221, "QUIT")
	g.stop()
	g = startIn(t, g.dir, config)
	c = g.mailTo()
	c.cmd(250, "RCPT TO:<carol@corp.example>")
	c.cmd(450, "RCPT TO:<dave@corp.example>")
}

// TestCallaheadCheck: a domain without a server to ask is a fault.
func TestCallaheadCheck(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), strings.Replace(corp, "smtp://%s", "maildir", 1))
	out, code := postern(t, "", "check", "--config", file)
	if code != 1 || !strings.Contains(out, "callahead needs a server that can be asked") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// TestCallaheadStoredDomain: a domain in the directory may be one, from the moment that it is there.
func TestCallaheadStoredDomain(t *testing.T) {
	t.Parallel()
	next, _ := behindSink(t, "carol")
	g := start(t, basics)
	if out, code := g.run("domain", "add", "corp.example", "--deliver", "maildir", "--recipients", "callahead"); code != 1 || !strings.Contains(out, "callahead needs a server") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	g.must("domain", "add", "corp.example", "--deliver", "smtp://"+next.addr, "--recipients", "callahead")
	g.log.wait(t, "domains of the directory are in force", nil)
	g.mailTo().cmd(550, "RCPT TO:<nobody@corp.example>")
	g.mailTo().cmd(250, "RCPT TO:<carol@corp.example>")
}
