package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// goes runs the go command offline, with what the module cache has.
func goes(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestPluginNew: what it writes builds, passes its own tests and the suite, and works in a gateway
// with the configuration that sdk/README.md shows, without a network and without a change.
func TestPluginNew(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	dir := filepath.Join(t.TempDir(), "src", "subject-guard")
	out, code := postern(t, "", "plugin", "new", "subject-guard", "--dir", dir, "--sdk", "../..")
	if code != 0 || !strings.Contains(out, `name = "subject-guard"`) {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	program, _ := os.ReadFile(filepath.Join(dir, "main.go"))
	if n := strings.Count(string(program), "\n"); n == 0 || n > 40 {
		t.Errorf("main.go has %d lines", n)
	}
	mod, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
	ours, _ := os.ReadFile("../../go.mod")
	if v := goLine(ours); v == "" || goLine(mod) != v {
		t.Errorf("go.mod has %q, the SDK's %q", goLine(mod), v)
	}
	inOrder(t, filepath.Join(dir, "README.md"))
	if out, err := exec.Command("gofmt", "-l", dir).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("gofmt: %v %s", err, out)
	}
	goes(t, dir, "vet", "./...")
	goes(t, dir, "test", "./...")
	goes(t, dir, "build", "-o", "subject-guard", ".")

	bin := filepath.Join(dir, "subject-guard")
	settings := filepath.Join(t.TempDir(), "settings.toml")
	os.WriteFile(settings, []byte("word = \"lottery\"\n"), 0o600)
	if out, code := postern(t, "", "plugin", "test", bin, "--settings", settings); code != 0 {
		t.Errorf("plugin test: exit code %d\n%s", code, out)
	}
	g := startIn(t, dir, strings.Replace(codeBlock(t, "../../sdk/README.md", "toml"), ":2525", ":0", 1)+"[log]\nformat = \"json\"\n")
	g.must("check")
	if out := g.must("send"); !strings.Contains(out, "subject-guard continue") || !strings.Contains(out, "delivered postmaster@example.org via mailbox:maildir") {
		t.Errorf("send says\n%s", out)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "data/mail/example.org/postmaster/new/*"))
	if len(files) != 1 {
		t.Fatalf("%d files in the maildir", len(files))
	}
	if text, _ := os.ReadFile(files[0]); !strings.Contains(string(text), "X-Checked-By: subject-guard") {
		t.Errorf("the message is not marked:\n%s", text)
	}
	out, code = postern(t, "Subject: You won the LOTTERY\n\nHello\n", "send", "--config", g.file, "-")
	if code != 1 || !strings.Contains(out, "550 5.7.1 this subject is not welcome here") {
		t.Errorf("send of spam: exit code %d\n%s", code, out)
	}

	// Nothing is overwritten.
	out, code = postern(t, "", "plugin", "new", "other", "--dir", dir, "--sdk", "../..")
	if after, _ := os.ReadFile(filepath.Join(dir, "main.go")); code != 1 || !strings.Contains(out, "not empty") || string(after) != string(program) {
		t.Errorf("a second time: exit code %d\n%s", code, out)
	}
}

// codeBlock is the first code of that language in a README.
func codeBlock(t *testing.T, file, language string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n```"+language+"\n")
	code, _, closed := strings.Cut(rest, "\n```\n")
	if !ok || !closed {
		t.Fatalf("%s has no code in %s", file, language)
	}
	return code + "\n"
}

func goLine(mod []byte) string {
	for line := range strings.SplitSeq(string(mod), "\n") {
		if strings.HasPrefix(line, "go ") {
			return line
		}
	}
	return ""
}

// inOrder: a plugin's README begins with the sections of all plugins, in their order. It
// returns those that come after them.
func inOrder(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			got = append(got, strings.TrimSpace(heading))
		}
	}
	want := []string{"What it does", "Settings", "What it reads", "What it may change", "How it fails", "What it logs"}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Fatalf("%s: the sections are %q, want %q", file, got, want)
	}
	return got[len(want):]
}

// TestReadmes: those of the first-party plugins have the same order, and nothing else.
func TestReadmes(t *testing.T) {
	plugins, err := os.ReadDir("../../plugins")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if !p.IsDir() || p.Name() == "internal" {
			continue
		}
		file := filepath.Join("../../plugins", p.Name(), "README.md")
		if more := inOrder(t, file); len(more) > 0 {
			t.Errorf("%s: more sections: %q", file, more)
		}
	}
}

func TestPluginNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"Upper"}, "no name for a plugin"},
		{[]string{"../escape"}, "no name for a plugin"},
		{[]string{"-x"}, ""},
		{[]string{"a--b"}, "no name for a plugin"},
		{[]string{"a-"}, "no name for a plugin"},
		{[]string{"9lives"}, "no name for a plugin"},
		{[]string{strings.Repeat("a", 65)}, "no name for a plugin"},
		{[]string{"dkim"}, "built-in"},
		{[]string{}, "usage"},
		{[]string{"fine", "--sdk", "."}, "--sdk"},
		{[]string{"fine", "--sdk", "/nowhere"}, "--sdk"},
	} {
		dir := filepath.Join(t.TempDir(), "x")
		out, code := postern(t, "", append([]string{"plugin", "new", "--dir", dir}, tt.args...)...)
		if _, err := os.Stat(dir); code != 2 || !strings.Contains(out, tt.want) || err == nil {
			t.Errorf("%v: exit code %d, written: %v\n%s", tt.args, code, err == nil, out)
		}
	}
}

// TestPluginTest: the exit codes, and that the built-in plugins pass.
func TestPluginTest(t *testing.T) {
	settings := func(text string) string {
		file := filepath.Join(t.TempDir(), "settings.toml")
		os.WriteFile(file, []byte(text), 0o600)
		return file
	}
	dkim := func() string {
		cfg := write(t, t.TempDir(), basics)
		out, code := postern(t, "", "dkim", "keygen", "example.org", "--json", "--config", cfg)
		var r struct{ Key_file string }
		if code != 0 || json.Unmarshal([]byte(out), &r) != nil {
			t.Fatal(out)
		}
		return settings("domains = [\"example.org\"]\nkey_dir = \"" + filepath.Dir(r.Key_file) + "\"\n")
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{binary, "plugin", "serve", "maildir"}, 0, "ok    delivers, and once only (stored)\n"},
		{[]string{binary, "plugin", "serve", "bcc", "--settings", settings("copies = {\"example.org\" = \"archive@example.org\"}\n")}, 0, "ok    filter: 1000 recipients"},
		{[]string{binary, "plugin", "serve", "dkim", "--settings", dkim()}, 0, "ok    filter: body of 5 MiB in a file"},
		{[]string{binary, "plugin", "serve", "bcc"}, 1, "FAIL  takes its settings\n"},
		{[]string{"/bin/true"}, 1, "FAIL  starts and shakes hands\n      it ended before its handshake: exit status 0"},
		{[]string{"cat", "/dev/zero"}, 1, "FAIL  starts and shakes hands"},
		{[]string{}, 2, "usage"},
		{[]string{"/nowhere/plugin"}, 2, "/nowhere/plugin"},
		{[]string{binary, "--settings", "/nowhere.toml"}, 2, "/nowhere.toml"},
	} {
		if out, code := postern(t, "", append([]string{"plugin", "test"}, tt.args...)...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%v: exit code %d\n%s", tt.args, code, out)
		}
	}
	out, code := postern(t, "", "plugin", "test", "--json", binary, "plugin", "serve", "maildir")
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		var r struct {
			Check string
			OK    bool
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Check == "" || !r.OK || code != 0 {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestLinks: what the READMEs point to is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	files := []string{"../../README.md", "../../sdk/README.md", "../../sdk/proto/README.md", "../../testdata/plugins/node-filter/README.md"}
	first, _ := filepath.Glob("../../plugins/*/README.md")
	for _, file := range append(files, first...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}
