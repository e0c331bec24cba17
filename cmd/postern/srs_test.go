package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// Mail that is sent on to another domain has a reverse-path of ours, and a report to that goes
// to the sender. Nobody else is reached through it.
func TestSRS(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	g := start(t, strings.Replace(basics, `networks = ["127.0.0.0/8"]`, "", 1)+fmt.Sprintf(`
[smarthost]
address = "%s"
[[domain]]
name = "example.org"
deliver = "maildir"
[[plugin]]
name = "sieve"
`, s.addr))
	g.account("alice@example.org")
	g.must("alias", "add", "away@example.org", "alice@example.org", "elsewhere@example.com")
	g.script("alice@example.org", `if header "Subject" "on" { redirect "x@example.com"; }`)

	g.finished(g.toAlice("on"))
	redirected := s.n(t, 1)[0]
	if !strings.HasPrefix(redirected.From, "SRS0=") || !strings.HasSuffix(redirected.From, "=example.net=from@mx.example.org") || redirected.To[0] != "x@example.com" {
		t.Fatalf("redirected: %+v", redirected)
	}
	g.deliver("from@example.net", []string{"away@example.org"}, "Subject: alias\r\n\r\nbody")
	aliased := s.n(t, 2)[1]
	if aliased.From != redirected.From || aliased.To[0] != "elsewhere@example.com" {
		t.Errorf("aliased: %+v", aliased)
	}
	kept := string(maildirFiles(t, g.maildir("alice@example.org"), 1)[0])
	if !strings.HasPrefix(kept, "Return-Path: <from@example.net>\r\n") {
		t.Errorf("kept is\n%s", kept)
	}

	// A report from there.
	g.deliver("", []string{redirected.From}, "Subject: undeliverable\r\n\r\nbody")
	if m := s.n(t, 3)[2]; m.From != "" || m.To[0] != "from@example.net" {
		t.Errorf("returned: %+v", m)
	}
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	c.cmd(250, "MAIL FROM:<>")
	forged := strings.Replace(redirected.From, "=from@", "=other@", 1)
	c.cmd(550, "RCPT TO:<%s>", forged)
	c.cmd(550, "RCPT TO:<SRS0=x@mx.example.org>")
	c.cmd(250, "RSET")
	c.cmd(250, "MAIL FROM:<spammer@example.net>")
	c.cmd(550, "RCPT TO:<%s>", redirected.From)

	// A report of ours.
	s.script(func(verb, _ string) string {
		if verb == "RCPT" {
			s.open()
			return "550 5.1.1 nobody"
		}
		return ""
	})
	g.finished(g.toAlice("on"))
	if m := s.n(t, 4)[3]; m.From != "" || m.To[0] != "from@example.net" || !strings.Contains(m.Data, "To: <from@example.net>\r\n") && !strings.Contains(m.Data, "To: from@example.net\r\n") {
		t.Errorf("report: %+v", m)
	}
	g.drained()
	if n := len(s.mail()); n != 4 {
		t.Errorf("sent were %d", n)
	}
}
