package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// enterable lets everybody go through a directory of tests and those above it.
func enterable(t testing.TB, dir string) {
	t.Helper()
	for ; dir != filepath.Dir(dir) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
}

// G-15: a plugin with a user of its own reads the content of messages and nothing else of
// the gateway's; it does its work, within its limits.
func TestG15PluginWithItsOwnUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		require(t, "not root")
	}
	out := newSink(t)
	out.busy()
	dir := t.TempDir()
	enterable(t, dir)
	enterable(t, filepath.Dir(binary))
	g := startIn(t, dir, hostile(t, out, "user = \"64321:64322\"\nmemory = \"128MiB\"\nprocesses = 64\n"))
	line := g.log.wait(t, "plugin confined", has("plugin", "hostile"))
	if line["uid"] != 64321.0 || line["memory_by"] == "" || line["processes_by"] == "" {
		t.Errorf("the log says %v", line)
	}
	g.deliver("a@example.net", []string{"b@example.org"}, "Subject: large\r\n\r\n"+strings.Repeat("0123456789abcdef\r\n", 10000))
	files, _ := filepath.Glob(filepath.Join(dir, "data/content/*"))
	if len(files) != 1 {
		t.Fatalf("content is %v", files)
	}
	as := func(name string) (string, error) {
		cmd := exec.Command("cat", name)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64321, Gid: 64322, Groups: []uint32{groupOf(t, files[0])}}}
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	if text, err := as(files[0]); err != nil || len(text) != 180_002 {
		t.Errorf("content: %d bytes, %v", len(text), err)
	}
	for _, name := range []string{"postern.toml", "data/directory.db", "data/tls/self-signed.pem", "data/run/control.sock"} {
		if text, err := as(filepath.Join(dir, name)); err == nil || !strings.Contains(text, "ermission denied") {
			t.Errorf("%s: %.100q, %v", name, text, err)
		}
	}
	for _, name := range []string{"data", "data/content", "data/queue"} { // no names either
		list := exec.Command("ls", filepath.Join(dir, name))
		list.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64321, Gid: 64322, Groups: []uint32{groupOf(t, files[0])}}}
		if text, err := list.CombinedOutput(); err == nil {
			t.Errorf("%s can be listed: %s", name, text)
		}
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func groupOf(t testing.TB, name string) uint32 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Gid
}

// A user without a way to the content is found out at the start, and so is a checksum.
func TestConfinementThatCannotWork(t *testing.T) {
	t.Parallel()
	out := newSink(t)
	sum := strings.Repeat("00", 32)
	dir := t.TempDir()
	file := write(t, dir, hostile(t, out, fmt.Sprintf("sha256 = %q", sum)))
	if text, code := postern(t, "", "check", "--config", file); code != 1 || !strings.Contains(text, "change sha256") {
		t.Errorf("code %d: %s", code, text)
	}
	if os.Geteuid() != 0 {
		require(t, "not root")
	}
	file = write(t, dir, hostile(t, out, `user = "64321"`))
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if text, code := postern(t, "", "serve", "--config", file); code != 1 || !strings.Contains(text, "cannot enter") {
		t.Errorf("code %d: %s", code, text)
	}
}
