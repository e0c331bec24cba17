package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSieveRun is about what outside scripts see of "sieve run": its exit code, and its JSON to the letter.
func TestSieveRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	msg := file("m.eml", "From: alice@example.org\nTo: bob@example.net\nSubject: s\n\nx\n")
	if err := os.MkdirAll(filepath.Join(dir, "personal"), 0o700); err != nil {
		t.Fatal(err)
	}
	file("personal/faulty.sieve", "keep;\nnonsense;\n")
	none := `{"error":null,"runtime_error":null,"actions":`
	for i, tt := range []struct {
		script, args string
		code         int
		want         string
	}{
		{"", "", 0, none + `[{"flags":[],"implicit":true,"type":"keep"}]}`},
		{`require "imap4flags"; keep :flags "\\Seen";`, "", 0, none + `[{"flags":["\\Seen"],"type":"keep"}]}`},
		{"discard;", "", 0, none + `[]}`},
		{`require ["fileinto", "copy", "mailbox"]; fileinto :copy :create "a";`, "", 0,
			none + `[{"copy":true,"create":true,"flags":[],"mailbox":"a","type":"fileinto"},{"flags":[],"implicit":true,"type":"keep"}]}`},
		{`require "copy"; redirect :copy "x@example.com"; discard;`, "", 0, none + `[{"address":"x@example.com","type":"redirect"}]}`},
		{`require "reject"; reject "no";`, "", 0, none + `[{"reason":"no","type":"reject"}]}`},
		{`require "ereject"; ereject "no";`, "", 0, none + `[{"reason":"no","type":"ereject"}]}`},
		{`require "vacation"; vacation "away"; discard;`, "", 0,
			none + `[{"address":"alice@example.org","reason":"away","subject":"Auto: s","type":"vacation"}]}`},
		{`require "vacation"; vacation "away";`, "--from <>", 0, none + `[{"flags":[],"implicit":true,"type":"keep"}]}`},
		{`require "enotify"; notify :message "m" "mailto:x@example.com"; discard;`, "", 0,
			none + `[{"message":"m","method":"mailto","to":["x@example.com"],"type":"notify"}]}`},
		{`require "editheader"; deleteheader "Subject"; addheader :last "X" "y"; discard;`, "", 0,
			none + `[],"headers":[["From","alice@example.org"],["To","bob@example.net"],["X","y"]]}`},
		{"keep;\nnonsense;", "", 1, `{"error":{"line":2,"message":"unknown command 'nonsense'"},"runtime_error":null,"actions":[]}`},
		{"require \"variables\";\nredirect \"${none}\";", "", 0,
			`{"error":null,"runtime_error":{"line":2,"message":"'' is no address to redirect to"},"actions":[{"flags":[],"implicit":true,"type":"keep"}]}`},
		{`require "include"; include "faulty";`, "--include-dir " + dir, 0,
			`{"error":null,"runtime_error":{"line":2,"message":"in the script personal/faulty: unknown command 'nonsense'"},"actions":[{"flags":[],"implicit":true,"type":"keep"}]}`},
		{`require ["fileinto", "special-use"]; fileinto :specialuse "\\Junk" "x";`, `--mailbox Spam=\Junk`, 0,
			none + `[{"flags":[],"mailbox":"Spam","type":"fileinto"}]}`},
		{"stop;", "--explain", 0, none + `[{"flags":[],"implicit":true,"type":"keep"}],"steps":[{"line":1,"text":"stop"}]}`},
		{"", "--now yesterday", 2, ""},
		{"", "--virus-level 6", 2, ""},
		{"", "--to nobody", 2, ""},
		{"", "--no-such-flag", 2, ""},
		{"", "one-argument-more", 2, ""},
	} {
		args := []string{"sieve", "run", file("s.sieve", tt.script), msg, "--json", "--from", "alice@example.org", "--to", "bob@example.net"}
		got, code := runSieve(t, append(args, strings.Fields(tt.args)...)...)
		if code != tt.code || got != tt.want {
			t.Errorf("%d: exit code %d\n%s\nwant %d\n%s", i, code, got, tt.code, tt.want)
		}
	}
	for _, args := range []string{"", msg + " " + msg, msg + " " + msg + " --to b@example.net", msg + " " + msg + " --from a@example.org",
		msg + " " + msg + ".none --from a@example.org --to b@example.net"} {
		if out, code := runSieve(t, append([]string{"sieve", "run"}, strings.Fields(args)...)...); code != 2 || out != "" {
			t.Errorf("%q: exit code %d: %s", args, code, out)
		}
	}
}

// runSieve is what the command prints, without the end of the line, and its exit code.
func runSieve(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Run() // its exit code is what counts
	return strings.TrimSuffix(out.String(), "\n"), cmd.ProcessState.ExitCode()
}
