package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A deed is what the hostile plugin does with one message, and what the client hears.
type deed struct {
	do   string // the X-Do field
	code int
	text string // in the reply; "held" says that the message is accepted and held
	log  string // a line of the log that says so; "" for none
	// innocent messages that are in the plugin meanwhile may fare as this one does.
	shared bool
}

const cannot = "4.3.0 Message cannot be checked now, try again later"

// TestG01HostileFilter, G-02, G-05, G-06, G-07: whatever a plugin does with a message, that
// message gets what on_failure says (or is convicted, when the plugin dies of it alone), all
// others go through, nobody's session ends, and nothing is left of it in the gateway.
func TestG01HostileFilter(t *testing.T) {
	t.Parallel()
	pids := t.TempDir()
	misbehave(t, nil, fmt.Sprintf("timeout = \"1s\"\n[plugin.settings]\ndir = %q\n", pids), []deed{
		{do: "exit", code: 250, text: "held", log: "plugin restarted"},
		{do: "crash", code: 250, text: "held", log: "plugin restarted"},
		{do: "kill", code: 250, text: "held", log: "plugin restarted"},
		{do: "panic", code: 451, text: cannot},
		{do: "hang", code: 451, text: cannot},
		{do: "deaf", code: 451, text: cannot},
		{do: "error", code: 451, text: cannot},
		{do: "nothing", code: 451, text: cannot},
		{do: "undeclared", code: 451, text: cannot},
		{do: "ask", code: 250, log: "plugin failed"},
		{do: "giant", code: 451, text: cannot, shared: true}, // its 100 MB take everybody's time
		{do: "stdout", code: 250, log: "plugin output"},
		{do: "stderr 20", code: 250, log: "plugin log lines dropped"},
		{do: "orphan", code: 250},
		{do: "stop", code: 451, text: cannot, log: "plugin hangs and is killed", shared: true},
	})
	for _, pid := range startedIn(t, pids) {
		eventually(t, fmt.Sprintf("the orphan %d is gone", pid), func() bool { return !alive(pid) })
	}
}

// TestG05HostileProtocol: answers that the SDK never would give.
func TestG05HostileProtocol(t *testing.T) {
	t.Parallel()
	var deeds []deed
	for _, do := range []string{"code 999", "code 250", "crlf", "action", "kind", "recipient", "injection", "address", "draft", "undeclared", "giant"} {
		deeds = append(deeds, deed{do: do, code: 451, text: cannot, shared: do == "giant"})
	}
	misbehave(t, []string{"raw"}, "", deeds)
}

func TestG05HostileAnswersTwice(t *testing.T) {
	t.Parallel()
	misbehave(t, []string{"raw", "twice"}, "", []deed{{do: "twice", code: 451, text: cannot}})
}

// wicked is the configuration of a gateway for example.org with the hostile plugin, started
// with these arguments, as a filter.
func wicked(t testing.TB, next *sink, args []string, keys string) string {
	command, _ := json.Marshal(append([]string{program(t, "hostile")}, args...))
	return basics + exampleTo(next) + fmt.Sprintf("[[plugin]]\nname = \"hostile\"\ncommand = %s\n%s\n", command, keys)
}

func TestG04HostileBody(t *testing.T) {
	t.Parallel()
	next := newSink(t)
	g := start(t, wicked(t, next, []string{"always", "rewrite"}, ""))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	if code, text := converse(c, "a@example.net", "Subject: x\r\n\r\nx"); code != 451 || !strings.Contains(text, cannot) {
		t.Errorf("the reply is %d %s", code, text)
	}
	g.log.wait(t, "plugin failed", func(line map[string]any) bool {
		return strings.Contains(fmt.Sprint(line["error"]), "its new body breaks the contract")
	})
	if n := len(next.mail()); n > 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// misbehave has the plugin do all that to single messages while others are under way.
func misbehave(t *testing.T, args []string, keys string, deeds []deed) {
	t.Helper()
	next := newSink(t)
	g := start(t, wicked(t, next, args, keys))
	innocent := func(c *client, subject string) (int, string) {
		return converse(c, "a@example.net", "Subject: "+subject+"\r\n\r\ntext")
	}
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	if code, text := innocent(c, "first"); code != 250 {
		t.Fatalf("before anything happened: %d %s", code, text)
	}
	next.wait(t, "the first", func(m []arrived) bool { return len(m) == 1 })
	expected := 1
	children, files := tree(g), descriptors(g)
	for _, d := range deeds {
		n := g.log.len()
		stop := make(chan struct{})
		var others sync.WaitGroup
		var mu sync.Mutex
		for range 3 { // a little load
			others.Go(func() {
				c := dial(t, g.addr[0])
				c.cmd(250, "EHLO client.example.net")
				for done := false; !done; {
					select {
					case <-stop:
						done = true // one more, when it is over
					default:
					}
					code, text := innocent(c, "innocent during "+d.do)
					mu.Lock()
					if code == 250 {
						expected++
					}
					mu.Unlock()
					if code != 250 && !(d.shared && code == 451) {
						t.Errorf("%s: an innocent message got %d %s", d.do, code, text)
						return
					}
				}
				c.cmd(221, "QUIT")
			})
		}
		code, text := converse(c, "a@example.net", "X-Do: "+d.do+"\r\nSubject: guilty\r\n\r\ntext")
		if want := d.text; code != d.code || want != "held" && !strings.Contains(text, want) {
			t.Errorf("%s: the reply is %d %s, want %d %s", d.do, code, text, d.code, d.text)
		}
		if d.log != "" {
			g.log.waitFrom(t, n, d.log, has("plugin", "hostile"))
		}
		if code == 250 && d.text == "held" {
			g.log.waitFrom(t, n, "plugin", has("action", "convicted"))
			g.must("queue", "delete", queuedAs(t, text))
		} else if code == 250 {
			expected++
		}
		close(stop)
		others.Wait()
		eventually(t, d.do+": it works again", func() bool {
			code, _ := innocent(c, "after "+d.do)
			if code == 250 {
				expected++
			}
			return code == 250
		})
	}
	c.cmd(221, "QUIT")
	next.wait(t, "all that was accepted", func(m []arrived) bool { return len(m) >= expected })
	if got := next.mail(); len(got) != expected {
		t.Errorf("%d messages arrived, want %d", len(got), expected)
	} else if slices.ContainsFunc(got, func(a arrived) bool { return strings.Contains(a.Data, "X-Undeclared") }) {
		t.Error("an edit that was not declared arrived")
	}
	// I4: nothing has piled up.
	next.hangup()
	eventually(t, "children as before", func() bool { return tree(g) <= children })
	eventually(t, "descriptors as before", func() bool { return descriptors(g) <= files+2 })
	g.drained()
	// G-06: what it answered was never held in memory as a whole.
	if m := peak(t, g.cmd.Process.Pid); m > 96<<20 {
		t.Errorf("the gateway took %d MiB", m>>20)
	}
	if n, usual := routines(t, g), quiet(t, wicked(t, next, args, keys)); n > usual+4 {
		t.Errorf("%d goroutines are left, and usual are %d", n, usual)
	}
}

// quiet is the number of goroutines of a gateway to which nothing bad has happened.
func quiet(t *testing.T, config string) int {
	t.Helper()
	g := start(t, config)
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
	g.drained()
	return routines(t, g)
}

// converse sends one message in an open session and returns the reply to it.
func converse(c *client, from, text string) (int, string) {
	c.t.Helper()
	c.cmd(250, "MAIL FROM:<%s>", from)
	c.cmd(250, "RCPT TO:<b@example.org>")
	c.cmd(354, "DATA")
	c.send(text + "\r\n.\r\n")
	code, reply, err := c.reply()
	if err != nil {
		c.t.Fatal(err)
	}
	return code, reply
}

// tree is the number of living processes that the gateway started, and those that they did.
func tree(g *gateway) int {
	family := map[int]bool{g.cmd.Process.Pid: true}
	for grown := true; grown; {
		grown = false
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, name := range stats {
			b, err := os.ReadFile(name)
			f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
			if err != nil || len(f) < 2 || f[0] == "Z" {
				continue
			}
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if parent, _ := strconv.Atoi(f[1]); family[parent] && !family[pid] {
				family[pid], grown = true, true
			}
		}
	}
	return len(family) - 1
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return f[0] != "Z" && f[0] != "X"
}

func descriptors(g *gateway) int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid))
	return len(fds)
}

// routines ends the gateway and counts the goroutines that it had.
func routines(t *testing.T, g *gateway) int {
	t.Helper()
	g.cmd.Process.Signal(syscall.SIGQUIT)
	<-g.done
	return strings.Count(g.log.tail(1<<20), "\ngoroutine ")
}

// startedIn returns the processes that the plugin says it started.
func startedIn(t *testing.T, dir string) []int {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "pid.*"))
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), "pid."))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) == 0 {
		t.Error("the plugin started nothing")
	}
	return pids
}

// TestG13HostileStarts: a plugin that does not come up is named, with what it said, before the
// gateway takes any mail; one that only prints too early works.
func TestG13HostileStarts(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"exit0":         "ended before the handshake (exit status 0)",
		"exit7":         `the licence has expired`,
		"version":       "did not shake hands",
		"elsewhere":     "/run/docker.sock",
		"raw describe":  "does not say what it is",
		"raw configure": "cannot be configured",
		"raw health":    "does not answer a health check",
		"flood":         "hostile",
		"noise":         "",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			next := newSink(t)
			config := wicked(t, next, strings.Fields(args), "")
			g := launch(t, t.TempDir(), config)
			if want == "" {
				g.ready()
				g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
				g.log.wait(t, "plugin output", has("plugin", "hostile", "text", "starting up, please wait"))
				return
			}
			<-g.done
			if out := g.log.tail(100); g.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, want) || !strings.Contains(out, "hostile") || strings.Contains(out, `"ready"`) {
				t.Errorf("exit code %d, no %q in\n%.5000s", g.cmd.ProcessState.ExitCode(), want, out)
			}
		})
	}
}

// TestG01HostileMailbox: a mailbox plugin that fails at the delivery of a message leaves that
// message in the queue, held with what it said where it died of it, and others arrive.
func TestG01HostileMailbox(t *testing.T) {
	t.Parallel()
	g := start(t, basics+fmt.Sprintf(`
[[domain]]
name = "example.org"
recipients = "any"
deliver = "box"
[[plugin]]
name = "box"
command = %q
timeout = "1s"
origins = ["fetched"] # it is a filter too
`, program(t, "hostile")))
	for _, do := range []string{"panic", "error", "hang", "exit", "kill"} {
		guilty := g.deliver("a@example.net", []string{"b@example.org"}, "X-Do: "+do+"\r\n\r\nx")
		if do == "exit" || do == "kill" {
			g.condemned(guilty, "b@example.org", "box", map[string]string{"exit": "exit status", "kill": "signal: killed"}[do])
		} else {
			g.log.wait(t, "deferred", has("id", guilty))
			g.must("queue", "delete", guilty)
		}
		innocent := g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
		g.log.wait(t, "delivered", has("id", innocent))
	}
	g.drained()
	if n := g.log.count("plugin restarted", has("plugin", "box")); n < 2 {
		t.Errorf("the plugin was restarted %d times", n)
	}
}

// condemned waits until a message is held for its only recipient because a plugin died of it,
// and looks at what the plugin said. Released it is tried again, and held again.
func (g *gateway) condemned(guilty, recipient, plugin, says string) {
	g.t.Helper()
	n := 0
	for _, then := range []string{"release", "delete"} {
		held := g.log.waitFrom(g.t, n, "held", has("family", guilty, "reason", "convicted: plugin "+plugin+" died twice on this message"))["id"].(string)
		n = g.log.len()
		q := g.queue()
		if len(q) != 1 || q[0].ID != held || q[0].State != "held" || q[0].Recipient != recipient {
			g.t.Fatalf("the queue has %+v, want %s held", q, held)
		}
		if show := g.must("queue", "show", held); !strings.Contains(show, "  ! "+says) {
			g.t.Errorf("queue show does not say %q:\n%s", says, show)
		}
		g.must("queue", then, held)
	}
}

// TestG01HostileDrain: a plugin that dies when it is told that it is no longer needed costs
// nobody anything.
func TestG01HostileDrain(t *testing.T) {
	t.Parallel()
	next := newSink(t)
	config := wicked(t, next, []string{"raw", "drain"}, "")
	g := start(t, config)
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
	write(t, g.dir, config+"timeout = \"9s\"\n")
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.log.wait(t, "configuration reloaded", nil)
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
	next.wait(t, "both", func(m []arrived) bool { return len(m) == 2 })
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestG14HostileForEver: a plugin that dies again and again is left alone for a while, and that
// is said; mail that needs it waits outside, all other mail goes on.
func TestG14HostileForEver(t *testing.T) {
	t.Parallel()
	next := newSink(t)
	g := start(t, strangers+exampleTo(next)+fmt.Sprintf("[[plugin]]\nname = \"hostile\"\ncommand = %q\norigins = [\"incoming\"]\n", program(t, "hostile")))
	line := g.log.wait(t, "plugin started", has("plugin", "hostile"))
	for deaths := 1; ; deaths++ {
		g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
		n := g.log.len()
		syscall.Kill(int(line["pid"].(float64)), syscall.SIGKILL)
		g.log.waitFrom(t, n, "plugin died", has("plugin", "hostile"))
		if deaths == 5 {
			break
		}
		line = g.log.waitFrom(t, n, "plugin restarted", has("plugin", "hostile"))
	}
	g.log.wait(t, "plugin breaker opened: it dies again and again", has("plugin", "hostile"))
	c := dial(t, g.addr[0])
	c.cmd(250, "EHLO client.example.net")
	if code, text := converse(c, "a@example.net", "Subject: x\r\n\r\nx"); code != 451 || !strings.Contains(text, cannot) {
		t.Errorf("the reply is %d %s", code, text)
	}
	g.must("send", "--to", "b@example.org") // which is submitted, and not this plugin's
	next.wait(t, "all", func(m []arrived) bool { return len(m) == 6 })
}
