package pluginhost

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/confine"
	"github.com/postern-mail/postern/sdk/mail"
)

func withLandlock(t *testing.T, abi int) {
	t.Helper()
	require(t, confine.Landlock() >= abi, fmt.Sprintf("the kernel has Landlock %d, not %d", confine.Landlock(), abi))
}

// tryTo does one thing that rules may forbid.
func tryTo(what string) error {
	verb, path, _ := strings.Cut(what, " ")
	switch verb {
	case "read":
		_, err := os.ReadFile(path)
		return err
	case "list":
		_, err := os.ReadDir(path)
		return err
	case "write":
		return os.WriteFile(path, []byte("x"), 0o600)
	case "empty":
		return os.Truncate(path, 0)
	case "remove":
		return os.Remove(path)
	case "move": // to the directory beside
		return os.Rename(path, filepath.Join(filepath.Dir(path), "..", "moved", filepath.Base(path)))
	case "mkdir":
		return os.Mkdir(path, 0o700)
	case "device": // the first disk
		return syscall.Mknod(path, syscall.S_IFBLK|0o600, 8<<8)
	case "run":
		out, err := exec.Command(path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	case "signal":
		pid, _ := strconv.Atoi(path)
		return syscall.Kill(pid, 0)
	case "abstract":
		c, err := net.Dial("unix", "@"+path)
		if err == nil {
			c.Close()
		}
		return err
	case "listen":
		var c net.ListenConfig
		c.SetMultipathTCP(false) // of which Landlock knows nothing
		l, err := c.Listen(context.Background(), "tcp", path)
		if err == nil {
			l.Close()
		}
		return err
	}
	return nil
}

// may asks a plugin to try something, and wants it to work or, with a reason, not to.
func may(t *testing.T, f *Filter, what, refusal string) {
	t.Helper()
	_, err := f.Filter(t.Context(), msg("try "+what))
	switch {
	case refusal == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)):
		t.Errorf("%s: %v, want %q", what, err, refusal)
	}
}

const denied = "permission denied"

// place is a directory that everybody can enter, with what a plugin is after.
func place(t *testing.T, owner int) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o711)
	}
	for name, mode := range map[string]os.FileMode{"secret": 0, "read/file": 0, "read/tool": 0o755, "write/file": 0, "write/sub/file": 0, "write/moved/x": 0, "beside/file": 0, "content/name": 0} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("#!/bin/sh\nexit 0\n"), mode|0o644)); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 { // so that not owners and modes, but rules decide
			for p := path; p != dir; p = filepath.Dir(p) {
				os.Chown(p, owner, owner)
			}
		}
	}
	return dir
}

// G-15: with rules about files a plugin opens its own and what is listed, whoever it runs as.
func TestG15Files(t *testing.T) {
	t.Parallel()
	withLandlock(t, 3)
	for name, user := range map[string]*confine.User{"host's user": nil, "own user": {UID: 64321, GID: 64321}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			owner := os.Geteuid()
			if user != nil {
				asRoot(t)
				owner = user.UID
			}
			dir := place(t, owner)
			at := func(name string) string { return filepath.Join(dir, name) }
			spec := use("filter")
			spec.User, spec.Files = user, &confine.Files{Read: []string{at("read"), "/bin/sh"}, Write: []string{at("write")}}
			log := &logBuffer{}
			opt := options(t, log, calm())
			opt.ContentDir = at("content")
			h, err := Start(t.Context(), opt, []Spec{spec, use("box")})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close(t.Context())
			if !strings.Contains(log.String(), `"files_by":"landlock v`) {
				t.Error("the log does not say that files are restricted")
			}
			f := filterOf(t, h, "filter")
			for _, good := range []string{"read " + at("read/file"), "list " + at("read"), "run " + at("read/tool"), "read " + at("write/file"), "list " + at("write"),
				"write " + at("write/file"), "write " + at("write/new"), "empty " + at("write/file"), "remove " + at("write/new"), "mkdir " + at("write/dir"), "move " + at("write/sub/file"),
				"read " + at("content/name"), "read /etc/resolv.conf", "read /dev/null", "write /dev/null"} {
				may(t, f, good, "")
			}
			for _, bad := range []string{"read " + at("secret"), "list " + dir, "read /etc/shadow", "read /etc/passwd", "list /", "list /etc", "list " + opt.RunDir, "read /proc/self/environ",
				"read /proc/" + itoa(os.Getpid()) + "/environ", "list /proc", "write " + at("beside/file"), "write " + at("beside/new"), "empty " + at("beside/file"), "remove " + at("beside/file"), "mkdir " + at("beside/dir"),
				"write " + at("read/file"), "remove " + at("read/file"), "run " + at("write/moved/x"), "write " + at("content/name"), "list " + at("content"), "run /usr/bin/id", "read /usr/bin/id"} {
				may(t, f, bad, denied)
			}
			if owner == 0 {
				may(t, f, "device "+at("write/disk"), denied)
			}
			p := pidOf(t, h, "filter")
			status, _ := os.ReadFile("/proc/" + itoa(p) + "/status")
			if !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
				t.Errorf("it can get new privileges:\n%s", status)
			}
			if confine.Landlock() >= 6 {
				may(t, f, "signal "+itoa(os.Getpid()), "operation not permitted")
				may(t, f, "signal "+itoa(pidOf(t, h, "box")), "operation not permitted")
			}
			may(t, f, "signal "+itoa(p), "")
		})
	}
}

// Messages reach a plugin with rules: bodies in files, and drafts.
func TestG15FilesOfMessages(t *testing.T) {
	t.Parallel()
	withLandlock(t, 1)
	dir := place(t, os.Geteuid())
	spec := use("writer")
	spec.Files = &confine.Files{}
	reader := use("filter")
	reader.Files = &confine.Files{}
	opt := options(t, &logBuffer{}, calm())
	opt.DraftDir, opt.ContentDir = filepath.Join(dir, "drafts"), filepath.Join(dir, "content")
	h, err := Start(t.Context(), opt, []Spec{spec, reader})
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
	m := msg("body")
	m.Body = mail.Body{Path: filepath.Join(dir, "content/name"), Size: 9}
	if v, err := filterOf(t, h, "filter").Filter(t.Context(), m); err != nil || v.Notes["body"] != "#!/bin/sh" {
		t.Errorf("a body in a file: %v, %v", v, err)
	}
}

// Programs of all kinds run under rules: one whose checksum is known, a script, one that env
// finds, one with a script as an argument.
func TestG15FilesOfPrograms(t *testing.T) {
	t.Parallel()
	withLandlock(t, 1)
	dir := place(t, os.Geteuid())
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := write("program", string(self))
	script := write("script", "#!/bin/sh\nexec "+program+" plugin serve filter\n")
	found := write("found", "#!/usr/bin/env -S sh\nexec "+program+" plugin serve filter\n")
	also := &confine.Files{Read: []string{program}}
	specs := []Spec{
		{Name: "plain", Command: []string{program, "plugin", "serve", "filter"}, Files: &confine.Files{}},
		{Name: "pinned", Command: []string{program, "plugin", "serve", "filter"}, Files: &confine.Files{}, SHA256: sumOf(self)},
		{Name: "script", Command: []string{script}, Files: also},
		{Name: "pinned-script", Command: []string{script}, Files: also, SHA256: sumOf([]byte("#!/bin/sh\nexec " + program + " plugin serve filter\n"))},
		{Name: "found", Command: []string{found}, Files: also},
		{Name: "argument", Command: []string{"/bin/sh", script, "-v"}, Files: also},
	}
	for i := range specs {
		specs[i].Timeout = 5 * time.Second
	}
	h, _ := start(t, calm(), specs...)
	for _, s := range specs {
		f := filterOf(t, h, s.Name)
		may(t, f, "read "+program, "")
		may(t, f, "read "+filepath.Join(dir, "secret"), denied)
	}
	for _, tt := range []struct {
		spec Spec
		want string
	}{
		{Spec{Name: "missing", Command: []string{"/nonexistent/plugin"}, Files: &confine.Files{}}, "no such file"},
		{Spec{Name: "no program", Command: []string{filepath.Join(dir, "secret")}, Files: &confine.Files{}}, "permission denied; check the command"},
		{Spec{Name: "no interpreter", Command: []string{script}, Files: &confine.Files{}}, "ended before the handshake"},
		{Spec{Name: "f", Use: "filter", Files: &confine.Files{Read: []string{"/nonexistent/list"}}}, "files.read: open /nonexistent/list: no such file"},
		{Spec{Name: "f", Use: "filter", Files: &confine.Files{Write: []string{"/nonexistent/list"}}}, "files.write: open /nonexistent/list: no such file"},
	} {
		if err := h.Reload(t.Context(), append(specs, tt.spec)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.spec.Name, err, tt.want)
		}
	}
	// Other rules are another plugin.
	pid := pidOf(t, h, "plain")
	if err := h.Reload(t.Context(), specs); err != nil || pidOf(t, h, "plain") != pid {
		t.Errorf("nothing changed: %v", err)
	}
	specs[0].Files = &confine.Files{Read: []string{dir}}
	if err := h.Reload(t.Context(), specs); err != nil || pidOf(t, h, "plain") == pid {
		t.Errorf("its files changed: %v", err)
	}
	may(t, filterOf(t, h, "plain"), "read "+filepath.Join(dir, "secret"), "")
}

// Root that is restricted keeps no power over the kernel.
func TestG15FilesOfRoot(t *testing.T) {
	t.Parallel()
	withLandlock(t, 1)
	asRoot(t)
	spec := use("filter")
	spec.Files = &confine.Files{}
	h, _ := start(t, calm(), spec)
	status, _ := os.ReadFile("/proc/" + itoa(pidOf(t, h, "filter")) + "/status")
	const kept = "00000000000004ff" // from chown to setuid, and low ports
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		_, rest, _ := strings.Cut(string(status), set+":\t")
		if got, _, _ := strings.Cut(rest, "\n"); got != kept {
			t.Errorf("%s is %s", set, got)
		}
	}
}

// Children of a plugin with rules have them too, and end with it.
func TestG10FilesAndChildren(t *testing.T) {
	t.Parallel()
	withLandlock(t, 1)
	spec := use("filter")
	spec.Files = &confine.Files{}
	if os.Geteuid() == 0 {
		spec.Processes, spec.Memory = 64, 64<<20 // held before its first instruction
	}
	h, _ := start(t, calm(), spec)
	f := filterOf(t, h, "filter")
	var pids []int
	for _, how := range []string{"child", "child escape"} {
		v, err := f.Filter(t.Context(), msg(how))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, atoi(t, v.Notes["child"]))
	}
	first := pidOf(t, h, "filter")
	syscall.Kill(first, syscall.SIGKILL)
	for _, pid := range pids {
		eventually(t, time.Minute, "a child is gone", func() bool { return gone(pid) })
	}
	eventually(t, time.Minute, "another process", func() bool {
		_, err := f.Filter(t.Context(), msg("look"))
		return err == nil && pidOf(t, h, "filter") != first
	})
	may(t, f, "read /etc/shadow", denied) // the next one is restricted as well
}

func sumOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
