package main_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// greylisting is the configuration of the plugin, with more of its settings.
func greylisting(settings string) string {
	return "[[plugin]]\nname = \"greylist\"\n[plugin.settings]\n" + settings + "\n"
}

// greylisted sends RCPT until it is accepted, as a client does that was asked to wait, and
// returns how often it was put off.
func greylisted(c *client, rcpt string) int {
	c.t.Helper()
	for n := 0; ; n++ {
		c.send("RCPT TO:<" + rcpt + ">\r\n")
		code, text, err := c.reply()
		if err != nil {
			c.t.Fatal(err)
		}
		if code == 250 {
			return n
		}
		rest, ok := strings.CutPrefix(text, "4.7.1 Greylisted, try again in ")
		number, _, _ := strings.Cut(rest, " seconds")
		seconds, err := strconv.Atoi(number)
		if code != 451 || !ok || err != nil || seconds < 1 || n > 5 {
			c.t.Fatalf("try %d: %d %s", n, code, text)
		}
		time.Sleep(time.Duration(seconds) * time.Second) // what the reply asks for
	}
}

// A stranger waits and then passes, as he does with another process of the plugin and after
// a restart of the gateway; the null reverse-path and whoever may relay never wait.
func TestGreylist(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	config := strangers + exampleTo(sink) + greylisting(`delay = "1s"`)
	g := start(t, config)
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example")
	c.cmd(250, "MAIL FROM:<alice@a.test>")
	if n := greylisted(c, "bob@example.org"); n == 0 {
		t.Error("a stranger was not asked to wait")
	}
	c.cmd(451, "RCPT TO:<carol@example.org>")
	c.cmd(354, "DATA")
	c.send("Subject: it waited\r\n\r\nx\r\n.\r\n")
	c.expect(250)
	c.message("", []string{"dave@example.org"}, "Subject: bounce\r\n\r\nx")
	got := sink.wait(t, "both", func(m []arrived) bool { return len(m) == 2 })
	for _, m := range got {
		if strings.Contains(m.Data, "it waited") && strings.Join(m.To, " ") != "bob@example.org" {
			t.Errorf("went to %v", m.To)
		}
	}
	g.must("plugin", "restart", "greylist")
	c.cmd(250, "MAIL FROM:<alice@a.test>")
	c.cmd(250, "RCPT TO:<bob@example.org>")
	g.kill()

	g = startIn(t, g.dir, config)
	c = dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example")
	c.cmd(250, "MAIL FROM:<alice@a.test>")
	c.cmd(250, "RCPT TO:<bob@example.org>")
	c.cmd(451, "RCPT TO:<eve@example.org>")
	c.cmd(221, "QUIT") // a transaction would be waited for
	g.stop()

	g = startIn(t, g.dir, strings.Replace(config, "networks = []", `networks = ["127.0.0.0/8"]`, 1))
	c = dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example")
	c.cmd(250, "MAIL FROM:<new@a.test>")
	c.cmd(250, "RCPT TO:<bob@example.org>")
}
