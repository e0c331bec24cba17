package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/smtpclient/smtptest"
)

// patient is forwarding with retries so far away that only commands cause them.
func patient(domain string, hops ...string) string {
	return strings.NewReplacer(`retry_first = "1s"`, `retry_first = "1h"`, `retry_max = "5s"`, `retry_max = "1h"`).Replace(forwarding(domain, hops...))
}

// deferred sends messages and waits until their attempts have failed.
func (g *gateway) deferred(mails map[string][]string) map[string]string {
	g.t.Helper()
	ids := make(map[string]string)
	for subject, to := range mails {
		ids[subject] = g.deliver("alice@example.net", to, "Subject: "+subject+"\r\n\r\nbody")
		for _, rcpt := range to {
			g.log.wait(g.t, "deferred", has("id", ids[subject], "to", rcpt))
		}
	}
	g.settled()
	return ids
}

// settled waits until nothing is being attempted: the log tells of an outcome before it is
// committed.
func (g *gateway) settled() {
	g.t.Helper()
	eventually(g.t, "attempts end", func() bool {
		return !slices.ContainsFunc(g.queue(), func(q queued) bool { return q.Active })
	})
}

// The commands that look at the queue, on mail that a closed next hop left there: the keys
// of `list --json` are a contract with scripts.
func TestQueueLooks(t *testing.T) {
	t.Parallel()
	g := start(t, patient("example.org", "smtp://"+deadEnd(t)))
	ids := g.deferred(map[string][]string{"one": {"bob@example.org"}, "two": {"carol@example.org", "dave@example.org"}})
	began := time.Now()
	lines := strings.Split(strings.TrimSpace(g.must("queue", "list", "--json")), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		var q map[string]any
		if err := json.Unmarshal([]byte(line), &q); err != nil {
			t.Fatal(err)
		}
		if q["from"] != "alice@example.net" || q["state"] != "pending" || q["attempts"] != 1.0 || !strings.Contains(fmt.Sprint(q["reason"]), "connection refused") {
			t.Errorf("%s", line)
		}
		want := ids["one"]
		if q["recipient"] != "bob@example.org" {
			want = ids["two"]
		}
		next, err := time.Parse(time.RFC3339, fmt.Sprint(q["next_attempt"]))
		if q["id"] != want || err != nil || next.Before(began.Add(30*time.Minute)) || next.After(began.Add(90*time.Minute)) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if out := g.must("queue", "list"); strings.Count(out, "\n") != 4 || !strings.Contains(out, ids["one"]+"  pending") {
		t.Errorf("list:\n%s", out)
	}
	out := g.must("queue", "show", ids["two"])
	for _, want := range []string{ids["two"], "<alice@example.net> -> carol@example.org", "dave@example.org", "connection refused", "| Subject: two", "| Received: from client.example.net", "|     by mx.example.org (Postern)"} {
		if !strings.Contains(out, want) {
			t.Errorf("show has no %q:\n%s", want, out)
		}
	}
	if out := g.must("queue", "summary"); !regexp.MustCompile(`(?m)^3 +pending .*connection refused`).MatchString(out) {
		t.Errorf("summary:\n%s", out)
	}
	var causes []struct {
		Count          int
		State, Example string
	}
	if err := json.Unmarshal([]byte(g.must("queue", "summary", "--json")), &causes); err != nil || len(causes) != 1 || causes[0].Count != 3 {
		t.Errorf("summary: %v %v", causes, err)
	}
	if out, code := g.run("queue", "show", "0000000000000"); code != 1 || !strings.Contains(out, "not in the queue") {
		t.Errorf("show of an unknown id: exit code %d\n%s", code, out)
	}
	if out := g.must("queue", "show", "--raw", ids["one"]); !strings.Contains(out, "bob@example.org") {
		t.Errorf("show --raw:\n%s", out)
	}
}

// The commands that change the queue, in a running gateway and on the disk of a stopped one.
func TestQueueSteering(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	sink.Always("RCPT", "450 4.2.1 closed for lunch")
	config := patient("example.org", "smtp://"+sink.Addr())
	g := start(t, config)
	ids := g.deferred(map[string][]string{"go": {"go@example.org"}, "hold": {"hold@example.org", "too@example.org"}, "delete": {"delete@example.org"}})
	if out := g.must("queue", "hold", ids["hold"], "--reason", "let me look"); out != "hold: 2 recipients\n" {
		t.Errorf("%q", out)
	}
	if out := g.must("queue", "delete", ids["delete"]); out != "delete: 1 recipient\n" {
		t.Errorf("%q", out)
	}
	states := map[string]string{}
	for _, q := range g.queue() {
		states[q.Recipient] = q.State + " " + q.Reason
	}
	if len(states) != 3 || states["hold@example.org"] != "held let me look" || states["too@example.org"] != "held let me look" || !strings.HasPrefix(states["go@example.org"], "pending ") {
		t.Errorf("states: %v", states)
	}
	sink.Always("RCPT", "250 2.1.5 Ok")
	if out := g.must("queue", "retry", "--all"); out != "retry: 1 recipient\n" {
		t.Errorf("%q", out)
	}
	if m := sink.Wait(t, 1, patience)[0]; m.To[0] != "go@example.org" {
		t.Errorf("retried %v", m.To)
	}
	for _, args := range [][]string{{"retry", "0000000000000"}, {"release", ids["delete"]}, {"delete", ids["go"]}} {
		eventually(t, "it is delivered", func() bool { return len(g.queue()) == 2 })
		if out, code := g.run(append([]string{"queue"}, args...)...); code != 1 || !strings.Contains(out, "not in the queue") {
			t.Errorf("%v: exit code %d\n%s", args, code, out)
		}
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if q := g.queue(); len(q) != 2 || q[0].State != "held" || q[0].Reason != "let me look" {
		t.Errorf("the stopped gateway's queue: %v", q)
	}
	if out := g.must("queue", "release", ids["hold"]); out != "release: 2 recipients\n" {
		t.Errorf("%q", out)
	}
	g = startIn(t, g.dir, config)
	if m := sink.Wait(t, 2, patience)[1]; strings.Join(m.To, " ") != "hold@example.org too@example.org" {
		t.Errorf("released %v", m.To)
	}
	g.log.wait(t, "delivered", has("to", "too@example.org"))
	if n := len(sink.Messages()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

// slowTo forwards connections to a server, each once open is closed; it says when one came.
func slowTo(t testing.TB, server string) (addr string, arrived chan bool, open chan bool) {
	t.Helper()
	arrived, open = make(chan bool, 10), make(chan bool)
	addr = smtptest.Serve(t, func(c net.Conn) {
		arrived <- true
		<-open
		onward, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer onward.Close()
		go io.Copy(onward, c)
		io.Copy(c, onward)
	})
	return addr, arrived, open
}

// While a message is being attempted no command makes a second attempt begin: retry has
// nothing to do, and hold says so.
func TestQueueSteeringWhileActive(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	slow, arrived, open := slowTo(t, sink.Addr())
	g := start(t, patient("example.org", "smtp://"+slow))
	id := g.deliver("alice@example.net", []string{"bob@example.org"}, "Subject: once\r\n\r\nbody")
	<-arrived
	if q := g.queue(); len(q) != 1 || !q[0].Active {
		t.Fatalf("queue: %v", q)
	}
	for range 3 {
		if out := g.must("queue", "retry", "--all"); out != "retry: 0 recipients\n" {
			t.Errorf("%q", out)
		}
	}
	if out, code := g.run("queue", "hold", id); code != 1 || !strings.Contains(out, "being attempted now") {
		t.Errorf("hold: exit code %d\n%s", code, out)
	}
	select {
	case <-arrived:
		t.Error("a second attempt began")
	default:
	}
	close(open)
	sink.Wait(t, 1, patience)
	g.log.wait(t, "delivered", has("id", id))
	g.deliver("alice@example.net", []string{"bob@example.org"}, "Subject: marker\r\n\r\nbody")
	if all := sink.Wait(t, 2, patience); len(all) != 2 || !strings.Contains(string(all[1].Data), "marker") {
		t.Errorf("%d messages", len(all))
	}
}

// What is deleted while it is being attempted is gone: the attempt may still succeed, but
// when it fails nothing comes back, neither the message nor a report.
func TestQueueDeleteWhileActive(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	sink.On("RCPT", "450 4.2.1 not now", "550 5.1.1 no such user")
	slow, arrived, open := slowTo(t, sink.Addr())
	g := start(t, patient("example.org", "smtp://"+slow)+fmt.Sprintf("[[domain]]\nname = \"example.net\"\nrecipients = \"any\"\ndeliver = \"smtp://%s\"\n", sink.Addr()))
	for range 2 {
		g.deliver("alice@example.net", []string{"bob@example.org"}, "Subject: x\r\n\r\nbody")
		<-arrived
	}
	if out := g.must("queue", "delete", "--all"); out != "delete: 2 recipients\n" {
		t.Errorf("%q", out)
	}
	n := g.log.len()
	close(open)
	for range 2 {
		g.log.waitFrom(t, n, "removed from the queue during its attempt", nil)
	}
	g.drained()
	if n := len(sink.Messages()); n != 0 {
		t.Errorf("%d messages, want none and no report", n)
	}
}

// SIGHUP: another next hop is used for mail that is queued already; a file with a fault
// changes nothing, and the log names the line.
func TestX03ReloadRoutesQueuedMail(t *testing.T) {
	t.Parallel()
	sink := smtptest.New(t, smtptest.Options{})
	dead := patient("example.org", "smtp://"+deadEnd(t))
	g := start(t, dead)
	ids := g.deferred(map[string][]string{"one": {"bob@example.org"}})
	good := patient("example.org", "smtp://"+sink.Addr())
	bad := good + "deliverr = \"x\"\n"
	write(t, g.dir, bad)
	g.cmd.Process.Signal(syscall.SIGHUP)
	line := g.log.wait(t, "configuration not reloaded, the old one stays in force", nil)
	if want := fmt.Sprintf("postern.toml:%d", strings.Count(bad, "\n")); !strings.Contains(fmt.Sprint(line["error"]), want) {
		t.Errorf("error %q does not name %s", line["error"], want)
	}
	// The commands find the gateway by its file, which must be a good one for that.
	write(t, g.dir, dead)
	g.must("queue", "retry", "--all")
	g.log.wait(t, "deferred", func(l map[string]any) bool { return l["attempt"] == 2.0 })
	g.settled()
	for q := g.queue(); len(q) == 1 && q[0].Active; q = g.queue() { // the log is a commit ahead of the queue
		time.Sleep(10 * time.Millisecond)
	}
	write(t, g.dir, good)
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.log.wait(t, "configuration reloaded", nil)
	g.must("queue", "retry", ids["one"])
	if m := sink.Wait(t, 1, patience)[0]; m.To[0] != "bob@example.org" {
		t.Errorf("to %v", m.To)
	}
}
