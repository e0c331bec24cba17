package pluginhost

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// require skips loudly, or fails where everything has to run.
func require(t *testing.T, ok bool, lack string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("POSTERN_REQUIRE_PEERS") == "1":
		t.Fatal(lack)
	default:
		t.Skip("SKIP: " + lack)
	}
}

func asRoot(t *testing.T) { require(t, os.Geteuid() == 0, "not root") }

// withGroups wants control groups with a controller.
func withGroups(t *testing.T, l confine.Limits) {
	t.Helper()
	asRoot(t)
	c, err := confine.NewCage(l, "test"+rand.Text())
	if err != nil {
		require(t, false, err.Error())
	}
	defer c.Remove()
	for _, by := range []string{c.MemoryBy, c.ProcessesBy} {
		require(t, by == "" || strings.HasPrefix(by, "cgroup"), by)
	}
}

// G-08: a plugin that eats memory is killed, and nobody else; its message is to blame.
func TestG08Memory(t *testing.T) {
	t.Parallel()
	withGroups(t, confine.Limits{Memory: 64 << 20})
	spec := use("filter")
	spec.Memory = 64 << 20
	h, log := start(t, calm(), spec, use("box"))
	f := filterOf(t, h, "filter")
	box, mark := pidOf(t, h, "box"), markOf(t, h, "filter")
	if _, err := f.Filter(t.Context(), msg("eat 16")); err != nil {
		t.Fatal(err)
	}
	_, err := f.Filter(t.Context(), msg("eat 400"))
	if fl := wantReason(t, err, Convicted); !strings.Contains(fl.Stack, "more than its memory of 67108864 bytes") {
		t.Errorf("it died of %q", fl.Stack)
	}
	if _, err := f.Filter(t.Context(), msg("look")); err != nil || pidOf(t, h, "box") != box {
		t.Errorf("afterwards: %v", err)
	}
	if !strings.Contains(log.String(), `"memory_by":"cgroup v`) {
		t.Error("the log does not say how memory is limited")
	}
	noGroupsLeft(t, h, mark)
}

// markOf is what the environments of all processes of a host have in common, as a plugin has it.
func markOf(t *testing.T, h *Host, name string) string {
	t.Helper()
	env, err := os.ReadFile("/proc/" + itoa(pidOf(t, h, name)) + "/environ")
	_, rest, ok := strings.Cut("\x00"+string(env), "\x00"+proto.EnvRun+"=")
	mark, _, _ := strings.Cut(rest, ".")
	if err != nil || !ok || len(mark) < 16 {
		t.Fatalf("no mark: %v", err)
	}
	return mark
}

// noGroupsLeft closes the host and looks for its control groups.
func noGroupsLeft(t *testing.T, h *Host, mark string) {
	t.Helper()
	h.Close(t.Context())
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + "postern-" + mark + "*")
	more, _ := filepath.Glob("/sys/fs/cgroup/" + "postern-" + mark + "*")
	if left = append(left, more...); len(left) > 0 {
		t.Errorf("control groups are left: %v", left)
	}
}

// G-09: a fork bomb goes no further than its limit, and goes altogether, hidden as it may be.
func TestG09ForkBomb(t *testing.T) {
	t.Parallel()
	withGroups(t, confine.Limits{Processes: 60})
	spec := use("filter")
	spec.Processes = 60
	h, _ := start(t, calm(), spec)
	v, err := filterOf(t, h, "filter").Filter(t.Context(), msg("forks 100"))
	if err != nil {
		t.Fatal(err)
	}
	if n := atoi(t, v.Notes["started"]); n < 2 || n > 60 {
		t.Errorf("%d children were started", n)
	}
	mark, pid := markOf(t, h, "filter"), pidOf(t, h, "filter")
	groups, err := os.ReadFile(filepath.Join(h.opt.RunDir, "c"+itoa(pid)))
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Split(string(groups), "\n")
	inside := func() int {
		b, _ := os.ReadFile(filepath.Join(dirs[0], "cgroup.procs"))
		return len(strings.Fields(string(b)))
	}
	if n := inside(); n < 2 || n > 60 {
		t.Errorf("%d processes", n)
	}
	if err := h.Reload(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the group is gone", func() bool { _, err := os.Stat(dirs[0]); return err != nil })
	if inside() != 0 {
		t.Error("some live on")
	}
	noGroupsLeft(t, h, mark)
}

// G-15: with a user of its own a plugin reads the content of messages, and nothing else of
// the gateway's.
func TestG15User(t *testing.T) {
	t.Parallel()
	asRoot(t)
	const group = 64123
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) { // TempDir's are private
		os.Chmod(d, 0o711)
	}
	file := func(name string, mode os.FileMode, gid int) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte("text\r\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(name, 0, gid); err != nil {
			t.Fatal(err)
		}
		return name
	}
	spec := use("filter")
	spec.User = &confine.User{UID: 64321, GID: 64321}
	opt := options(t, &logBuffer{}, calm())
	opt.ContentGroup = func(confine.User) (int, error) { return group, nil }
	h, err := Start(t.Context(), opt, []Spec{spec})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	f := filterOf(t, h, "filter")
	v, err := f.Filter(t.Context(), msg("who"))
	if err != nil || v.Notes["who"] != fmt.Sprintf("64321 64321 [%d]", group) {
		t.Fatalf("it is %v, %v", v, err)
	}
	m := msg("body")
	m.Body = mail.Body{Path: file("content", 0o640, group), Size: 6}
	if v, err := f.Filter(t.Context(), m); err != nil || strings.TrimSpace(v.Notes["body"]) != "text" {
		t.Errorf("a body in a file: %v, %v", v, err)
	}
	for _, secret := range []string{file("key", 0o600, 0), file("directory", 0o640, 0), "/etc/shadow", opt.RunDir, "/proc/" + itoa(os.Getpid()) + "/environ"} {
		_, err := f.Filter(t.Context(), msg("read "+secret))
		if fl := wantReason(t, err, Error); !strings.Contains(fl.Error(), "permission denied") {
			t.Errorf("%s: %v", secret, fl)
		}
	}
	// G-17: nobody else gets at its socket.
	p := h.supervisor("filter").cur.Load()
	fi, err := os.Stat(p.child.SocketDir())
	if err != nil || fi.Mode().Perm() != 0o700 || fi.Sys().(*syscall.Stat_t).Uid != 64321 {
		t.Errorf("socket directory: %v, %v", fi, err)
	}
	shared := filepath.Dir(p.child.SocketDir())
	h.Close(t.Context())
	if _, err := os.Stat(shared); err == nil {
		t.Errorf("%s is left", shared)
	}
}

// It can write new bodies too.
func TestG15UserWritesBodies(t *testing.T) {
	t.Parallel()
	asRoot(t)
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o711)
	}
	spec := use("writer")
	spec.User = &confine.User{UID: 64321, GID: 64321}
	opt := options(t, &logBuffer{}, calm())
	opt.DraftDir = filepath.Join(dir, "drafts")
	h, err := Start(t.Context(), opt, []Spec{spec})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	var got []byte
	_, _, err = filterOf(t, h, "writer").Rewrite(t.Context(), msg(`write new\r\n`), 1000, func(r io.Reader) (b mail.Body, err error) {
		got, err = io.ReadAll(r)
		return b, err
	})
	if err != nil || string(got) != "new\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// G-16: a program that is not the one whose checksum was written down does not run.
func TestG16Checksum(t *testing.T) {
	t.Parallel()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "filter")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(self)
	spec := Spec{Name: "f", Command: []string{program, "plugin", "serve", "filter"}, SHA256: hex.EncodeToString(sum[:]), Timeout: 5 * time.Second}
	h, log := start(t, calm(), spec)
	f := filterOf(t, h, "f")
	if _, err := f.Filter(t.Context(), msg("look")); err != nil {
		t.Fatal(err)
	}
	// Another program in its place: neither a reload nor a restart runs it.
	if err := os.WriteFile(program+".new", append(self, 'x'), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	if err := h.Reload(t.Context(), []Spec{spec}); err == nil || !strings.Contains(err.Error(), "change sha256") {
		t.Errorf("reload: %v", err)
	}
	if _, err := f.Filter(t.Context(), msg("look")); err != nil {
		t.Errorf("the old one does not go on: %v", err)
	}
	syscall.Kill(pidOf(t, h, "f"), syscall.SIGKILL)
	eventually(t, time.Minute, "refused", func() bool {
		return strings.Contains(log.String(), "plugin cannot be restarted") && strings.Contains(log.String(), "change sha256")
	})
	// The right one again, but others could change it.
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(program, 0o775)
	if err := h.Reload(t.Context(), []Spec{spec}); err == nil || !strings.Contains(err.Error(), "others may write to it") {
		t.Errorf("reload: %v", err)
	}
	os.Chmod(program, 0o755)
	eventually(t, time.Minute, "it runs again", func() bool {
		_, err := f.Filter(t.Context(), msg("look"))
		return err == nil
	})
	// A script works too.
	script := filepath.Join(t.TempDir(), "script")
	text := []byte("#!/bin/sh\nexec " + program + " plugin serve filter\n")
	if err := os.WriteFile(script, text, 0o755); err != nil {
		t.Fatal(err)
	}
	sum = sha256.Sum256(text)
	spec.Command, spec.SHA256 = []string{script}, strings.ToUpper(hex.EncodeToString(sum[:]))
	if err := h.Reload(t.Context(), []Spec{spec}); err != nil {
		t.Error(err)
	}
}
