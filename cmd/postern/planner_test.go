package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// planning is a gateway whose domain has the test planner, with two accounts, and a sink for
// all other mail. Mail for it comes in on the first listener.
func planning(t *testing.T, base, settings string) (*gateway, *sink) {
	t.Helper()
	s := newSink(t)
	g := start(t, base+fmt.Sprintf(`
[smarthost]
address = "%s"
[[domain]]
name = "example.org"
deliver = "maildir"
planner = "rules"
[[plugin]]
name = "rules"
command = %q
[plugin.settings]
`, s.addr, sdktest.Build(t, "../../testdata/plugins/planner"))+settings)
	g.account("alice@example.org")
	g.account("bob@example.org")
	return g, s
}

// to sends alice a message with that Subject.
func (g *gateway) toAlice(subject string) string {
	g.t.Helper()
	return g.deliver("from@example.net", []string{"alice@example.org"}, "Subject: "+subject+"\r\n\r\nbody")
}

func (s *sink) n(t *testing.T, n int) []arrived {
	t.Helper()
	return s.wait(t, fmt.Sprintf("%d messages", n), func(got []arrived) bool { return len(got) >= n })
}

// finished waits until nothing of a message is in the queue any more.
func (g *gateway) finished(id string) {
	g.t.Helper()
	g.log.wait(g.t, "planned", has("id", id))
}

// A plan that only keeps is carried out by the delivery itself: no other entry is made.
func TestPlannerKeeps(t *testing.T) {
	t.Parallel()
	g, _ := planning(t, basics, "")
	for i, subject := range []string{"hello", "keep INBOX"} {
		id := g.toAlice(subject)
		g.log.wait(t, "delivered", has("id", id))
		maildirFiles(t, g.maildir("alice@example.org"), i+1)
	}
	id := g.toAlice("keep Lists/golang")
	g.log.wait(t, "delivered", has("id", id))
	m := maildirFiles(t, filepath.Join(g.maildir("alice@example.org"), ".Lists.golang"), 1)[0]
	if !strings.HasPrefix(string(m), "Return-Path: <from@example.net>\r\nDelivered-To: alice@example.org\r\n") {
		t.Errorf("got\n%s", m)
	}
	// Flags reach the mailbox.
	id = g.toAlice(`keep Read \Seen`)
	g.log.wait(t, "delivered", has("id", id))
	if seen, _ := filepath.Glob(filepath.Join(g.maildir("alice@example.org"), ".Read", "cur", "*:2,S")); len(seen) != 1 {
		t.Errorf("seen are %q", seen)
	}
	// What cannot be filed is in the inbox, not returned.
	id = g.toAlice("keep " + strings.Repeat("x", 300))
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("alice@example.org"), 3)
	if n := g.log.count("planned", nil); n != 0 {
		t.Errorf("%d plans that only keep were expanded", n)
	}
}

// A message that kills the planner is held for the recipient for whom it was to plan, and the
// others are planned for.
func TestG01PlannerDies(t *testing.T) {
	t.Parallel()
	g, _ := planning(t, basics, "")
	g.log.wait(t, "delivered", has("id", g.toAlice("hello")))
	g.condemned(g.toAlice("exit"), "alice@example.org", "rules", "exit status 3")
	g.log.wait(t, "delivered", has("id", g.toAlice("hello again")))
	g.drained()
	maildirFiles(t, g.maildir("alice@example.org"), 2)
}

// Every other plan becomes entries of its own, once.
func TestPlannerExpands(t *testing.T) {
	t.Parallel()
	g, s := planning(t, basics, "")
	id := g.toAlice("keep A, keep B, redirect x@example.com, redirect y@example.com, redirect x@example.com")
	g.finished(id)
	maildirFiles(t, filepath.Join(g.maildir("alice@example.org"), ".A"), 1)
	maildirFiles(t, filepath.Join(g.maildir("alice@example.org"), ".B"), 1)
	got := s.n(t, 2)
	if len(got) != 2 {
		t.Errorf("%d messages were redirected", len(got))
	}
	for _, m := range got {
		if !strings.HasSuffix(m.From, "=example.net=from@mx.example.org") || !strings.HasPrefix(m.To[0][1:], "@example.com") ||
			!strings.HasPrefix(m.Data, "Received: from mx.example.org\r\n") || !strings.Contains(m.Data, "\r\nX-Sieve-Redirected-From: alice@example.org\r\nReceived: from client.example.net ") ||
			!strings.HasSuffix(m.Data, "\r\n\r\nbody\r\n") {
			t.Errorf("redirected: %+v", m)
		}
	}
	// A reply is sent once, because the plan remembers; the message itself is kept.
	for i := range 2 {
		id = g.toAlice("vacation holidays")
		if i == 0 {
			g.finished(id)
		} else {
			g.log.wait(t, "delivered", has("id", id))
		}
		maildirFiles(t, g.maildir("alice@example.org"), i+1)
	}
	m := s.n(t, 3)[2]
	if m.From != "" || m.To[0] != "from@example.net" || !strings.Contains(m.Data, "Auto-Submitted: auto-replied\r\n") || !strings.Contains(m.Data, "Message-ID: <") ||
		!strings.HasSuffix(m.Data, "From: alice@example.org\r\nSubject: I am away\r\n\r\nI am away\r\n") {
		t.Errorf("reply: %+v", m)
	}
	// To a null reverse-path there is none.
	g.finished(g.deliver("", []string{"alice@example.org"}, "Subject: vacation other\r\n\r\nbody"))
	maildirFiles(t, g.maildir("alice@example.org"), 3)
	g.finished(g.toAlice("discard, notify pager@example.com"))
	if m := s.n(t, 4)[3]; m.From != "" || m.To[0] != "pager@example.com" || !strings.Contains(m.Data, "Auto-Submitted: auto-generated\r\n") {
		t.Errorf("notification: %+v", m)
	}
	g.finished(g.toAlice("discard"))
	maildirFiles(t, g.maildir("alice@example.org"), 3)
	if left := g.queue(); len(left) != 0 || len(s.mail()) != 4 {
		t.Errorf("left are %+v, sent were %d", left, len(s.mail()))
	}
}

// A reject is told to a sender who is known, and to nobody else.
func TestPlannerRejects(t *testing.T) {
	t.Parallel()
	g, s := planning(t, basics, "")
	id := g.toAlice("reject")
	g.log.wait(t, "failed", has("id", id))
	m := s.n(t, 1)[0]
	if m.From != "" || m.To[0] != "from@example.net" || !strings.Contains(m.Data, "I do not read this") {
		t.Errorf("report: %+v", m)
	}
	stranger, s2 := planning(t, strings.Replace(basics, `networks = ["127.0.0.0/8"]`, "", 1), "")
	id = stranger.toAlice("reject")
	line := stranger.log.wait(t, "planned", has("id", id))
	if !strings.HasPrefix(fmt.Sprint(line["reason"]), "discarded: rejected by the recipient") {
		t.Errorf("the log says %v", line)
	}
	if left := stranger.queue(); len(left) != 0 || len(s2.mail()) != 0 {
		t.Errorf("left are %+v, sent were %d", left, len(s2.mail()))
	}
}

// Without a plan, or with one that breaks the contract, the message waits: neither lost nor
// delivered in another way.
func TestPlannerFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "fail")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g, _ := planning(t, basics, fmt.Sprintf("fail_if = %q\n", file))
	id := g.toAlice("hello")
	g.log.wait(t, "deferred", has("id", id))
	bad := g.toAlice("undeclared")
	if q := g.queue(); len(q) == 0 || q[0].State != "pending" {
		t.Errorf("the queue has %+v", q)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	g.log.wait(t, "delivered", has("id", id))
	maildirFiles(t, g.maildir("alice@example.org"), 1)
	n := g.log.len()
	g.log.waitFrom(t, n, "deferred", has("id", bad))
	maildirFiles(t, g.maildir("alice@example.org"), 1)
}

// L-12: two recipients that redirect to each other.
func TestL12PlannerLoop(t *testing.T) {
	t.Parallel()
	g, _ := planning(t, basics, "redirect = {\"alice@example.org\" = \"bob@example.org\", \"bob@example.org\" = \"alice@example.org\"}\n")
	g.finished(g.toAlice("hello"))
	m := maildirFiles(t, g.maildir("alice@example.org"), 1)[0]
	for _, want := range []string{"X-Sieve-Redirected-From: alice@example.org\r\n", "X-Sieve-Redirected-From: bob@example.org\r\n"} {
		if strings.Count(string(m), want) != 1 {
			t.Errorf("not once %q in\n%s", want, m)
		}
	}
	if left := g.queue(); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}
