package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSuiteFinds: each thing that can be wrong with a plugin is found by the check for it, and
// a plugin with nothing wrong passes.
func TestSuiteFinds(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "hostile")
	if out, err := exec.Command("go", "build", "-o", bin, "../../../testdata/plugins/hostile").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct{ args, check, want string }{
		{"", "", ""},
		{"noise", "shakes hands", `"starting up, please wait`},
		{"flood", "shakes hands", "no handshake"},
		{"exit0", "shakes hands", "ended before its handshake"},
		{"exit7", "shakes hands", "the licence has expired"},
		{"version", "shakes hands", `"99"`},
		{"elsewhere", "shakes hands", "not directly in the directory"},
		{"owns X-Fine Received*", "says what it is", `cannot own the header field "Received*": received is not`},
		{"raw describe", "says what it is", "exit status 5"},
		{"raw configure", "unknown setting", "exit status 5"},
		{"raw health", "is healthy", "exit status 5"},
		{"raw drain", "drains", "exit status 5"},
		{"raw", "unknown setting", "would go unnoticed"},
		{"raw immortal", "gateway is dead", "still runs"},
		{"raw twice always x", "plain message", "breaks the contract|an error"},
		{"raw always code 999", "plain message", "reply code 999"},
		{"raw always crlf", "1000 recipients", "not a line"},
		{"raw always action", "plain message", "action 77"},
		{"raw always recipient", "plain message", "no recipient 7"},
		{"raw always injection", "no body", "not folding"},
		{"raw always giant", "plain message", "larger than max"},
		{"raw stream gate double", "one answer to each call", "was answered before"},
		{"raw stream end", "plain message", "ended the stream"},
		{"raw stream end", "one answer to each call", "before the process"},
		{"raw stream always giant", "plain message", "larger than max"},
		{"raw stream always code 999", "plain message", "reply code 999"},
		{"raw gate always injection", "gate: MAIL", "not folding"},
		{"raw gate always undeclared", "gate: RCPT", "the right to discard"},
		{"always undeclared", "plain message", "does not declare the right"},
		{"always crash", "plain message", "in the background"},
		{"always panic", "plain message", "the lock broke"},
		{"always error", "no body", "no idea"},
		{"always nothing", "no body", "neither a verdict nor an error"},
		{"always deaf", "plain message", "no answer before the deadline"},
		{"always crowd", "32 calls at once", "no answer before the deadline"},
		{"always stop", "plain message", "no answer before the deadline"},
		{"always orphan", "gateway is dead", "processes behind"},
		{"always ask", "asks the gateway only", "Host/Count, to which its manifest does not declare the right"},
		{"always rewrite", "plain message", "bare LF"},
		{"always stdout", "prints nothing", "1|1|unix|/tmp/other"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			var failed []string
			found := false
			p := Program{Path: bin, Args: strings.Fields(tt.args), Timeout: 10 * time.Second}
			if strings.Contains(tt.want, "deadline") || strings.Contains(tt.check, "dead") {
				p.Timeout = 500 * time.Millisecond
			}
			ctx, enough := context.WithCancel(t.Context())
			defer enough()
			ok := Run(ctx, p, func(r Result) {
				if r.Err == nil {
					return
				}
				failed = append(failed, r.Name+": "+r.Err.Error())
				for want := range strings.SplitSeq(tt.want, "|") {
					found = found || strings.Contains(r.Name, tt.check) && strings.Contains(r.Err.Error(), want)
				}
				if found {
					enough()
				}
			})
			if ok != (tt.want == "") || !ok && !found {
				t.Errorf("ok %v, want %q from %q; failed:\n%s", ok, tt.want, tt.check, strings.Join(failed, "\n"))
			}
		})
	}
}

// TestSuitePasses: plugins of every kind, written with the SDK, pass; and what is wrong with one
// is found.
func TestSuitePasses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	builds := make(map[string]func() (string, error))
	for _, name := range []string{"puppet", "planner", "services", "directory", "observer", "service"} {
		builds[name] = sync.OnceValues(func() (string, error) {
			bin := filepath.Join(dir, name)
			out, err := exec.Command("go", "build", "-o", bin, "../../../testdata/plugins/"+name).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			return bin, err
		})
	}
	events := fmt.Sprintf("file = %q\n", filepath.Join(dir, "events"))
	for i, tt := range []struct{ name, args, settings, checks, want string }{
		{"puppet", "", "", "gate: RCPT,filter: no body,stream: one answer to each call", ""},
		{"planner", "", "", "planner: null reverse-path", ""},
		{"planner", "", "redirect = {\"bob@example.org\" = \"nonsense\"}\n", "planner: plain message", "panic"},
		{"services", "0 services", "", "filter: plain message", ""},
		{"directory", "", "[users]\nbob = \"secret\"\n[aliases]\npostmaster = [\"bob@example.org\"]\n", "directory: addresses of all kinds,directory: wrong passwords,directory: 32 calls at once", ""},
		{"directory", "", "[users]\nbob = \"\"\n", "directory: wrong passwords", "bob@example.org with the password \"\": it let somebody in"},
		{"directory", "", fmt.Sprintf("fail_if = %q\n", there), "directory: wrong passwords", "the server does not answer"},
		{"observer", "", events, "observer: events of each type,observer: the same events again,observer: 500 events,observer: an event of a type that is newer than it", ""},
		{"observer", "", events + fmt.Sprintf("fail_if = %q\n", there), "observer: events of each type", "not now"},
		{"service", "", "addresses = [\":25\", \"unix:/run/echo\"]\nfile = \"" + filepath.Join(dir, "active") + "\"\n",
			"service: names its listeners,service: starts with its listeners and waits,service: works once it is activated,service: stops when it is drained", ""},
		{"service", "", "addresses = []\nfile = \"" + filepath.Join(dir, "idle") + "\"\n", "service: works once it is activated", "ended"},
		{"service", "", "addresses = [\"smtp\"]\nfile = \"" + filepath.Join(dir, "active2") + "\"\n", "service: names its listeners", "neither \"host:port\" nor"},
		{"service", "", "addresses = [\":25\"]\nfile = \"/nonexistent/active\"\n", "service: works once it is activated", "no such file"},
	} {
		t.Run(fmt.Sprint(i, tt.name), func(t *testing.T) {
			t.Parallel()
			bin, err := builds[tt.name]()
			if err != nil {
				t.Fatal(err)
			}
			made := make(map[string]bool)
			wrong := ""
			ok := Run(t.Context(), Program{Path: bin, Args: strings.Fields(tt.args), Settings: []byte(tt.settings)}, func(r Result) {
				made[r.Name] = true
				if r.Err != nil {
					wrong += r.Name + ": " + r.Err.Error() + "\n"
				}
				if strings.Contains(r.Note, "not checked") {
					t.Error(r.Note)
				}
			})
			for check := range strings.SplitSeq(tt.checks, ",") {
				if !made[check] {
					t.Errorf("the check %q was not made", check)
				}
			}
			if ok != (tt.want == "") || !strings.Contains(wrong, tt.want) {
				t.Errorf("ok %v, want %q in\n%s", ok, tt.want, wrong)
			}
		})
	}
}
