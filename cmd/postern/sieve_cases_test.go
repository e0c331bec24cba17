package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sieveCase is one case of testdata/sieve; README.md there says how they are written.
type sieveCase struct {
	name, script, message, oracle string
	args                          []string
	includes                      map[string]string // text by "personal/NAME" or "global/NAME"
	want                          []string
}

// sieveAnswer is what "sieve run --json" prints: a contract that outside scripts use.
type sieveAnswer struct {
	Error        *sievePlace      `json:"error"`
	RuntimeError *sievePlace      `json:"runtime_error"`
	Actions      []map[string]any `json:"actions"`
	Headers      [][2]string      `json:"headers"`
	BodyChanged  bool             `json:"body_changed"`
}

type sievePlace struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// TestSieveCases runs every case through the command, and through Dovecot's sieve-test where that knows what the
// case is about: every fifth of these, for each takes three processes, and all with POSTERN_FULL=1.
func TestSieveCases(t *testing.T) {
	full := os.Getenv("POSTERN_FULL") == "1"
	files, err := filepath.Glob("../../testdata/sieve/*.cases")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases: ", err)
	}
	for _, file := range files {
		for i, c := range readSieveCases(t, file) {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".cases")+"/"+c.name, func(t *testing.T) { c.check(t, full || i%5 == 0) })
		}
	}
}

func readSieveCases(t *testing.T, file string) []sieveCase {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []sieveCase
	message, section := "", ""
	var body []string
	flush := func() {
		content := strings.Join(body, "\n")
		if len(body) > 0 {
			content += "\n"
		}
		body = nil
		if len(cases) == 0 {
			if section == "message" {
				message = content
			}
			return
		}
		c := &cases[len(cases)-1]
		switch name, arg, _ := strings.Cut(section, " "); name {
		case "script":
			c.script = content
		case "message":
			c.message = content
		case "args":
			c.args = strings.Split(strings.TrimSuffix(content, "\n"), "\n")
		case "include":
			c.includes[arg] = content
		case "want":
			c.want = strings.Split(strings.TrimSpace(content), "\n")
		case "oracle":
			c.oracle = arg
		}
	}
	for _, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "=== "):
			flush()
			section = ""
			cases = append(cases, sieveCase{name: line[4:], message: message, includes: make(map[string]string)})
		case strings.HasPrefix(line, "--- "):
			flush()
			section = line[4:]
		case section != "":
			body = append(body, line)
		}
	}
	flush()
	return cases
}

// files writes what the case is made of to a folder and returns the arguments of "sieve run".
func (c *sieveCase) files(t *testing.T, dir string) []string {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "\n", "\r\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := []string{"sieve", "run", write("script.sieve", c.script), write("message.eml", c.message), "--json",
		"--include-dir", filepath.Join(dir, "include")}
	for _, location := range []string{"personal", "global"} {
		if err := os.MkdirAll(filepath.Join(dir, "include", location), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range c.includes {
		write(filepath.Join("include", name+".sieve"), text)
	}
	for flag, value := range map[string]string{"--from": "alice@example.org", "--to": "bob@example.net", "--now": "2026-11-22T12:00:00Z"} {
		if !slices.Contains(c.args, flag) {
			args = append(args, flag, value)
		}
	}
	return append(args, c.args...)
}

func (c *sieveCase) arg(flag, otherwise string) string {
	if i := slices.Index(c.args, flag); i >= 0 {
		return c.args[i+1]
	}
	return otherwise
}

func (c *sieveCase) check(t *testing.T, compare bool) {
	t.Parallel()
	dir := sieveFolder(t)
	cmd := exec.Command(binary, c.files(t, dir)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run() // its exit code is looked at below
	var a sieveAnswer
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if code := cmd.ProcessState.ExitCode(); (code == 1) != (a.Error != nil) || code > 1 {
		t.Errorf("exit code %d with error %v", code, a.Error)
	}
	got := a.lines()
	for _, w := range c.want {
		if name, ok := strings.CutPrefix(w, "header "); ok {
			if !slices.Contains(got, "header "+name) {
				t.Errorf("no %q", w)
			}
		}
	}
	if acts := withoutHeaders(got); !slices.Equal(acts, withoutHeaders(c.want)) {
		t.Errorf("got\n  %s\nwant\n  %s\n%s", strings.Join(acts, "\n  "), strings.Join(withoutHeaders(c.want), "\n  "), out.String())
		if a.Error != nil {
			t.Log(a.Error.Message)
		} else if a.RuntimeError != nil {
			t.Log(a.RuntimeError.Message)
		}
	}
	if compare && !strings.HasPrefix(c.oracle, "no: ") {
		c.askOracle(t, dir, &a)
	}
}

func withoutHeaders(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return s == "" || strings.HasPrefix(s, "header ") })
}

// lines renders an answer as cases write it.
func (a *sieveAnswer) lines() []string {
	if a.Error != nil {
		return []string{"error " + strconv.Itoa(a.Error.Line)}
	}
	var list []string
	if a.RuntimeError != nil {
		list = append(list, "runtime error "+strconv.Itoa(a.RuntimeError.Line))
	}
	if len(a.Actions) == 0 {
		list = append(list, "discard")
	}
	for _, act := range a.Actions {
		list = append(list, actionText(act))
	}
	for _, h := range a.Headers {
		list = append(list, "header "+h[0]+": "+h[1])
	}
	if a.BodyChanged {
		list = append(list, "new body")
	}
	return list
}

func actionText(a map[string]any) string {
	s := fmt.Sprint(a["type"])
	if a["implicit"] == true {
		s = "implicit " + s
	}
	for _, k := range []string{"mailbox", "address", "subject", "reason", "message"} {
		if v, ok := a[k]; ok {
			s += " " + strconv.Quote(fmt.Sprint(v))
		}
	}
	for _, k := range []string{"to", "flags"} {
		if list, ok := a[k].([]any); ok && len(list) > 0 {
			s += " " + fmt.Sprint(list)
		}
	}
	for _, k := range []string{"copy", "create"} {
		if a[k] == true {
			s += " :" + k
		}
	}
	return s
}

// sieveFolder is one that sieve-test, which does not run as root, may use.
func sieveFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-sieve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // of this test alone, in the temporary folder
		t.Fatal(err)
	}
	return dir
}

// The lines of sieve-test's output that say what it would do.
var (
	oracleStore  = regexp.MustCompile(`^ \* store message in folder: (.*)$`)
	oracleOther  = regexp.MustCompile(`^ \* (redirect message to|reject message|send vacation message|send notification|discard|add header|delete header)(?:[^<]*<([^>]*)>)?`)
	oracleFlags  = regexp.MustCompile(`^ +\+ add IMAP flags: (.*)$`)
	oracleNotify = regexp.MustCompile(`^ +\+ To: (.*)$`)
)

// askOracle compares what is done with what sieve-test says that it would do.
func (c *sieveCase) askOracle(t *testing.T, dir string, ours *sieveAnswer) {
	t.Helper()
	if _, err := exec.LookPath("sieve-test"); err != nil {
		require(t, "sieve-test (dovecot-sieve) is not installed")
	}
	home := filepath.Join(dir, "home")
	os.Mkdir(home, 0o777)
	os.Chmod(home, 0o777)
	config := filepath.Join(dir, "dovecot.conf")
	text := fmt.Sprintf(`mail_uid = 65534
first_valid_uid = 65534
mail_gid = 65534
first_valid_gid = 65534
mail_home = %[1]s
mail_location = maildir:%[1]s/Maildir
recipient_delimiter = %[2]s
plugin {
  sieve = %[1]s/none.sieve
  sieve_dir = %[3]s/include/personal
  sieve_global = %[3]s/include/global
  sieve_extensions = +vacation-seconds +editheader +spamtest +spamtestplus +virustest +mboxmetadata +servermetadata
  sieve_vacation_min_period = 0
}
`, home, c.arg("--delimiter", "+"), dir)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	to := c.arg("--to", "bob@example.net")
	cmd := exec.CommandContext(ctx, "sieve-test", "-c", config, "-f", c.arg("--from", "alice@example.org"), "-r", to, "-a", to,
		filepath.Join(dir, "script.sieve"), filepath.Join(dir, "message.eml"))
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatalf("sieve-test: %v", err)
	}
	theirs, got := oracleLines(string(out)), oracleForm(ours)
	if !slices.Equal(got, theirs) {
		t.Errorf("we:\n  %s\nsieve-test:\n  %s\n%s", strings.Join(got, "\n  "), strings.Join(theirs, "\n  "), out)
	}
}

// oracleLines renders sieve-test's output, sorted: "store MAILBOX FLAGS", "redirect ADDRESS" and so on.
func oracleLines(out string) []string {
	if strings.Contains(out, "failed to compile") || strings.Contains(out, "Failed to compile") || strings.Contains(out, "error: validation failed") || strings.Contains(out, "error: parse failed") {
		return []string{"error"}
	}
	if strings.Contains(out, "final result: failed") {
		return []string{"runtime error"}
	}
	var list []string
	for _, line := range strings.Split(out, "\n") {
		if m := oracleStore.FindStringSubmatch(line); m != nil {
			list = append(list, "store "+m[1])
		} else if m := oracleOther.FindStringSubmatch(line); m != nil {
			switch {
			case strings.HasPrefix(m[1], "redirect"):
				list = append(list, "redirect "+m[2])
			case strings.HasPrefix(m[1], "reject"):
				list = append(list, "reject")
			case strings.HasPrefix(m[1], "send vacation"):
				list = append(list, "vacation")
			case strings.HasPrefix(m[1], "send notification"):
				list = append(list, "notify")
			}
		} else if m := oracleFlags.FindStringSubmatch(line); m != nil && len(list) > 0 {
			flags := strings.Fields(strings.ToLower(m[1]))
			slices.Sort(flags)
			list[len(list)-1] += " [" + strings.Join(flags, " ") + "]"
		} else if m := oracleNotify.FindStringSubmatch(line); m != nil && len(list) > 0 {
			list[len(list)-1] += " " + m[1]
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// oracleForm renders our answer as oracleLines does.
func oracleForm(a *sieveAnswer) []string {
	if a.Error != nil {
		return []string{"error"}
	}
	if a.RuntimeError != nil {
		return []string{"runtime error"}
	}
	var list []string
	for _, act := range a.Actions {
		switch kind := act["type"]; kind {
		case "keep", "fileinto":
			box := "INBOX"
			if kind == "fileinto" {
				box = fmt.Sprint(act["mailbox"])
			}
			line := "store " + box
			if flags, ok := act["flags"].([]any); ok && len(flags) > 0 {
				var names []string
				for _, f := range flags {
					names = append(names, strings.ToLower(fmt.Sprint(f)))
				}
				slices.Sort(names)
				line += " [" + strings.Join(names, " ") + "]"
			}
			list = append(list, line)
		case "redirect":
			list = append(list, "redirect "+fmt.Sprint(act["address"]))
		case "reject", "ereject":
			list = append(list, "reject")
		case "notify":
			line := "notify"
			for _, to := range act["to"].([]any) {
				line += " " + fmt.Sprint(to)
			}
			list = append(list, line)
		default:
			list = append(list, fmt.Sprint(kind))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
