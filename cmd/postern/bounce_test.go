package main_test

import (
	"strings"
	"testing"
)

// refuseTo makes a sink refuse these recipients.
func refuseTo(s *sink, refused ...string) {
	s.script(func(verb, line string) string {
		for _, to := range refused {
			if verb == "RCPT" && strings.Contains(line, to) {
				return "550 5.1.1 no such user"
			}
		}
		return ""
	})
}

// L-05: a report whose recipient is refused too is given up, with a line in the log: nobody is told of
// what was told in vain.
func TestL05ReportRefused(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	refuseTo(s, "bob@example.org", "alice@sender.test")
	g := start(t, relayTo(s))
	g.deliver("alice@sender.test", []string{"bob@example.org"}, plainMail)
	g.log.wait(t, "failed", has("to", "bob@example.org"))
	g.log.wait(t, "dsn", has("to", "alice@sender.test"))
	g.log.wait(t, "failed", has("to", "alice@sender.test"))
	g.log.wait(t, "no report for a null reverse-path", nil)
	g.drained()
	if n := g.log.count("dsn", nil); n != 1 || len(s.mail()) != 0 {
		t.Errorf("%d reports, and %d messages arrived", n, len(s.mail()))
	}
}

// L-10: who sends with a source route is told of a failure at his address, without the route.
func TestL10SourceRoute(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	refuseTo(s, "bob@example.org")
	g := start(t, relayTo(s))
	g.deliver("@a.test,@b.test:u@d.test", []string{"bob@example.org"}, plainMail)
	m := s.wait(t, "the report", func(m []arrived) bool { return len(m) > 0 })[0]
	if m.From != "" || strings.Join(m.To, " ") != "u@d.test" || !strings.Contains(m.Data, "\r\nTo: <u@d.test>\r\n") || strings.Contains(m.Data, "b.test") {
		t.Errorf("from <%s> to %v:\n%s", m.From, m.To, m.Data)
	}
	g.drained()
}
