package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// classed is a gateway whose mail, archive and copies all go to one next hop, which has room for few.
func classed(out *sink) string {
	own := strings.NewReplacer("[queue]", "[queue]\nconcurrency = 8\nconcurrency_per_destination = 2", `"1s"`, `"1h"`, `"5s"`, `"1h"`).Replace(basics)
	for _, domain := range []string{"example.org", "archive.test", "copies.test"} {
		own += fmt.Sprintf("[[domain]]\nname = %q\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", domain, out.addr)
	}
	return own + "[[plugin]]\nname = \"journal\"\n[plugin.settings]\nto = \"keep@archive.test\"\n"
}

// listed are the recipients that `queue list` shows, one word each, for one class or all ("").
func (g *gateway) listed(class string, word func(line map[string]any) string) []string {
	g.t.Helper()
	args := []string{"queue", "list", "--json"}
	if class != "" {
		args = append(args, "--class", class)
	}
	var all []string
	for line := range strings.Lines(g.must(args...)) {
		var q map[string]any
		if err := json.Unmarshal([]byte(line), &q); err != nil {
			g.t.Fatal(err)
		}
		all = append(all, word(q))
	}
	slices.Sort(all)
	return all
}

func key(name string) func(map[string]any) string {
	return func(line map[string]any) string { return fmt.Sprint(line[name]) }
}

// An archive that hangs holds up its own queue and nothing else, though mail goes to the same host
// and there is room for two; that queue is listed, counted, held, released and retried by itself, also
// after a crash.
func TestJournalHasItsOwnQueue(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	config := classed(out)
	g := start(t, config)
	var hung atomic.Int32
	hangs := make(chan bool, 100)
	out.script(func(verb, line string) string {
		if verb == "RCPT" && strings.Contains(line, "keep@archive.test") {
			hung.Add(1)
			hangs <- true
			return "STALL"
		}
		return ""
	})
	const mails = 12
	for n := range mails {
		g.deliver("alice@example.org", []string{"bob@example.org"}, fmt.Sprintf("Subject: %d\r\n\r\nx", n))
		if n == 0 {
			<-hangs
		}
	}
	out.wait(t, "all mail", func(m []arrived) bool { return len(m) == mails })
	if n := hung.Load(); n != 1 {
		t.Errorf("%d reports were attempted at once", n)
	}
	eventually(t, "there is no mail left", func() bool {
		return g.must("queue", "list", "--class", "mail") == "The queue has nothing of class mail.\n"
	})
	if to := g.listed("journal", key("recipient")); !slices.Equal(to, slices.Repeat([]string{"keep@archive.test"}, mails)) {
		t.Errorf("the journal's queue has %v", to)
	}

	out.script(func(verb, line string) string {
		if verb == "RCPT" && (strings.Contains(line, "keep@archive.test") || strings.Contains(line, "later@")) {
			return "451 4.3.0 later"
		}
		return ""
	})
	out.hangup()
	id := g.deliver("alice@example.org", []string{"later@example.org"}, "Subject: later\r\n\r\nx")
	eventually(t, "all are deferred", func() bool {
		words := g.listed("", func(q map[string]any) string { return fmt.Sprint(q["attempts"], " ", q["active"], " ", q["state"]) })
		return slices.Equal(words, slices.Repeat([]string{"1 false pending"}, mails+2))
	})
	count := make(map[string]float64)
	var causes []map[string]any
	if err := json.Unmarshal([]byte(g.must("queue", "summary", "--json")), &causes); err != nil {
		t.Fatal(err)
	}
	for _, c := range causes {
		count[fmt.Sprint(c["class"])] += c["count"].(float64)
	}
	if !maps.Equal(count, map[string]float64{"mail": 1, "journal": mails + 1}) {
		t.Errorf("the summary counts %v", count)
	}
	if text := g.must("queue", "show", id); !strings.Contains(text, "  class: mail\n") || !strings.Contains(text, "  class: journal\n") {
		t.Errorf("queue show says\n%s", text)
	}
	if text, code := g.run("queue", "list", "--class", "letters"); code != 2 || !strings.Contains(text, `"letters" is no class of mail: there are mail, copy, journal, report`) {
		t.Errorf("exit code %d: %s", code, text)
	}

	if text := g.must("queue", "hold", id, "--class", "journal"); text != "hold: 1 recipient\n" {
		t.Error(text)
	}
	if text := g.must("queue", "hold", "--all", "--class", "journal", "--reason", "the archive moves"); text != fmt.Sprintf("hold: %d recipients\n", mails) {
		t.Error(text)
	}
	out.open()
	if text := g.must("queue", "retry", "--all"); text != "retry: 1 recipient\n" {
		t.Error(text)
	}
	out.wait(t, "the mail that was deferred", func(m []arrived) bool { return len(m) == mails+1 })
	eventually(t, "the journal is left", func() bool { return len(g.queue()) == mails+1 })
	g.kill()
	g = startIn(t, g.dir, config)
	if states := g.listed("journal", key("state")); !slices.Equal(states, slices.Repeat([]string{"held"}, mails+1)) {
		t.Errorf("after a crash the journal's queue has %v", states)
	}
	if text := g.must("queue", "delete", "--all", "--class", "copy"); text != "delete: 0 recipients\n" {
		t.Error(text)
	}
	if text := g.must("queue", "release", "--all", "--class", "journal"); text != fmt.Sprintf("release: %d recipients\n", mails+1) {
		t.Error(text)
	}
	g.drained()
	reports := 0
	for _, m := range out.mail() {
		switch strings.Join(m.To, " ") {
		case "keep@archive.test":
			reports++
		case "bob@example.org", "later@example.org":
		default:
			t.Errorf("there is mail for %v", m.To)
		}
	}
	if reports != mails+1 {
		t.Errorf("%d reports arrived", reports)
	}
}

// Each kind of mail is of its class, in a gateway that crashed as well; who sent the message hears
// nothing of what becomes of its report.
func TestClasses(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	config := classed(out) + "[[plugin]]\nname = \"bcc\"\n[plugin.settings]\ncopies = {\"example.org\" = \"copy@copies.test\"}\n"
	g := start(t, config)
	out.script(func(verb, line string) string {
		switch {
		case verb == "RCPT" && strings.Contains(line, "keep@archive.test"):
			return "550 5.2.1 archive closed"
		case verb == "RCPT":
			return "451 4.3.0 later"
		}
		return ""
	})
	g.deliver("alice@example.org", []string{"bob@example.org"}, "Subject: first\r\n\r\nx")
	g.log.wait(t, "failed", has("to", "keep@archive.test"))
	g.log.wait(t, "deferred", has("to", "postmaster@example.org")) // the DSN
	out.script(func(verb, _ string) string {
		if verb == "RCPT" {
			return "451 4.3.0 later"
		}
		return ""
	})
	g.deliver("alice@example.org", []string{"bob@example.org"}, "Subject: second\r\n\r\nx")
	want := []string{"copy copy@copies.test", "copy copy@copies.test", "journal keep@archive.test", "mail bob@example.org", "mail bob@example.org", "report postmaster@example.org"}
	word := func(q map[string]any) string { return fmt.Sprint(q["class"], " ", q["recipient"]) }
	check := func() {
		t.Helper()
		if got := g.listed("", word); !slices.Equal(got, want) {
			t.Errorf("the queue has %v", got)
		}
		for _, class := range []string{"mail", "copy", "journal", "report"} {
			only := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return !strings.HasPrefix(w, class+" ") })
			if got := g.listed(class, word); !slices.Equal(got, only) {
				t.Errorf("%s: the queue has %v", class, got)
			}
		}
	}
	check()
	g.kill()
	check() // on the disk of a gateway that is down
	g = startIn(t, g.dir, config)
	check()
	if text := g.must("queue", "list", "--class", "report"); !strings.Contains(text, "  report ") || strings.Count(text, "\n") != 2 {
		t.Errorf("queue list says\n%s", text)
	}
	out.open()
	g.must("queue", "retry", "--all")
	g.drained()
	for _, m := range out.mail() {
		if slices.Contains(m.To, "alice@example.org") {
			t.Errorf("the sender was told:\n%s", m.Data)
		}
	}
	if n := len(out.mail()); n != len(want) {
		t.Errorf("%d messages arrived", n)
	}
}
