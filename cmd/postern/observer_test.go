package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk/sdktest"
)

// lines waits until a file has lines for which ok is true.
func waitLines(t *testing.T, file string, ok func([]string) bool) []string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		b, _ := os.ReadFile(file)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if ok(lines) {
			return lines
		}
		if time.Now().After(deadline) {
			t.Fatalf("the observer wrote only\n%s", b)
		}
		time.Sleep(10 * time.Millisecond) // a file tells nobody that it has grown
	}
}

// observed is the configuration of a gateway with the observer, which writes into file.
func observed(t *testing.T, file, fail string) string {
	t.Helper()
	return basics + fmt.Sprintf(`
[[domain]]
name = "example.org"
deliver = "maildir"
recipients = "any"
[[domain]]
name = "dead.example"
deliver = "smtp://%s"
recipients = "any"
[[plugin]]
name = "watch"
command = %q
[plugin.settings]
file = %q
fail_if = %q
`, deadEnd(t), sdktest.Build(t, "../../testdata/plugins/observer"), file, fail)
}

// An observer that dies of what it is told holds up no mail, and is told again when it lives.
func TestG01ObserverDies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, fail := filepath.Join(dir, "events"), filepath.Join(dir, "fail")
	if err := os.WriteFile(fail, []byte("die"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, observed(t, file, fail))
	var ids []string
	for range 3 {
		id := g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
		g.log.wait(t, "delivered", has("id", id))
		ids = append(ids, id)
	}
	g.log.wait(t, "plugin died", has("plugin", "watch"))
	g.log.wait(t, "observer was not told, trying again", nil)
	os.Remove(fail)
	g.must("plugin", "restart", "watch") // or it waits for its restart, which is throttled
	waitLines(t, file, func(got []string) bool {
		for _, id := range ids {
			if !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "delivered "+id) }) {
				return false
			}
		}
		return true
	})
}

// TestObserver: what became of mail is told, in order, also what happened while the observer
// or the gateway was down, and mail never waits for it.
func TestObserver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, fail := filepath.Join(dir, "events"), filepath.Join(dir, "fail")
	config := observed(t, file, fail)
	g := start(t, config)
	first := g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
	told := func(lines ...string) func([]string) bool {
		return func(got []string) bool {
			return !slices.ContainsFunc(lines, func(l string) bool { return !slices.Contains(got, l) })
		}
	}
	event := func(typ, id, to string, code int) string {
		return fmt.Sprintf("%s %s <a@example.net> <%s> copy=false %d", typ, id, to, code)
	}
	got := waitLines(t, file, told(event("delivered", first, "b@example.org", 250)))
	if !slices.Equal(got, []string{event("accepted", first, "b@example.org", 0), event("delivered", first, "b@example.org", 250)}) {
		t.Errorf("%q", got)
	}
	// It fails, then the gateway dies: mail goes on, and all is told later.
	if err := os.WriteFile(fail, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second := g.deliver("a@example.net", []string{"b@example.org"}, "Subject: x\r\n\r\nx")
	third := g.deliver("a@example.net", []string{"c@dead.example"}, "Subject: x\r\n\r\nx")
	g.log.wait(t, "delivered", has("id", second))
	g.log.wait(t, "deferred", has("id", third))
	g.log.wait(t, "observer was not told, trying again", nil)
	g.kill()
	os.Remove(fail)
	g = startIn(t, g.dir, config)
	waitLines(t, file, told(event("accepted", second, "b@example.org", 0), event("delivered", second, "b@example.org", 250),
		event("accepted", third, "c@dead.example", 0), event("deferred", third, "c@dead.example", 451)))
	g.must("queue", "hold", third)
	waitLines(t, file, told(event("quarantined", third, "c@dead.example", 451)))
	g.must("queue", "delete", third)
	waitLines(t, file, told(event("deleted", third, "c@dead.example", 451)))
}
