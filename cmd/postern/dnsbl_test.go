package main_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/foxcpp/go-mockdns"
)

// A client that is listed is refused before the banner, with the words of the list; one that is
// not gets in, is refused for the domain that it names, and what is known of it reaches
// later plugins. A list without an answer holds nothing up.
func TestDNSBL(t *testing.T) {
	t.Parallel()
	dns := dnsServer(t, map[string]mockdns.Zone{
		"2.0.0.127.bl.test.":    {A: []string{"127.0.0.2"}},
		"7.2.0.192.bl.test.":    {A: []string{"127.0.0.2"}, TXT: []string{"see https://bl.test/192.0.2.7\r\n250 ok"}},
		"8.2.0.192.bl.test.":    {A: []string{"127.0.0.3"}},
		"test.dbl.test.":        {A: []string{"127.0.1.2"}},
		"bad.example.dbl.test.": {A: []string{"127.0.1.2"}},
		"1.0.0.127.liar.test.":  {A: []string{"127.0.0.2"}},
		"2.0.0.127.liar.test.":  {A: []string{"127.0.0.2"}},
		"9.2.0.192.liar.test.":  {A: []string{"127.0.0.2"}},
	})
	sink := newSink(t)
	g := start(t, strings.Replace(strangers, `role = "mx"`, "role = \"mx\"\nproxy_from = [\"127.0.0.0/8\"]", 1)+exampleTo(sink)+fmt.Sprintf(`
[dns]
servers = [%q]
[[plugin]]
name = "dnsbl"
[plugin.settings]
reject = 5
[[plugin.settings.list]]
zone = "bl.test"
answers = {"127.0.0.2" = 5, "&1" = 1.5}
[[plugin.settings.list]]
zone = "dbl.test"
of = ["sender", "helo"]
weight = 5
[[plugin.settings.list]]
zone = "liar.test"
weight = 5
`, dns)+puppet(t, "p", "", "tell = true"))
	from := func(client string) *client {
		c := connect(t, g.addr[0])
		c.send("PROXY TCP4 " + client + " 127.0.0.1 1234 25\r\n")
		return c
	}
	c := from("192.0.2.7")
	if text := c.expect(554); text != "5.7.1 Client 192.0.2.7 is listed by bl.test: see https://bl.test/192.0.2.7 250 ok" {
		t.Errorf("reply %q", text)
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the session goes on")
	}
	c = from("192.0.2.8")
	c.expect(220)
	c.cmd(250, "EHLO client.example")
	if text := c.cmd(550, "MAIL FROM:<eve@bad.example>"); text != "5.7.1 Sender domain bad.example is listed by dbl.test" {
		t.Errorf("reply %q", text)
	}
	c.message("alice@a.test", []string{"bob@example.org"}, "Subject: x\r\n\r\nx")
	got := sink.wait(t, "it", func(m []arrived) bool { return len(m) == 1 })[0]
	if n := notes(got); !strings.Contains(n, "p/RCPT: bob+0 after 6 notes") { // score, lists, unanswered and the puppet's own three
		t.Errorf("notes:\n%s", n)
	}
	from("192.0.2.9").expect(220)
	g.log.wait(t, "plugin log", func(line map[string]any) bool {
		fields := fmt.Sprint(line["fields"])
		return line["text"] == "list is left alone" && strings.Contains(fields, "liar.test") && strings.Contains(fields, "it lists 127.0.0.1")
	})
	if n := g.log.count("refused by plugin", has("plugin", "dnsbl")); n != 2 {
		t.Errorf("%d refusals", n)
	}
}
