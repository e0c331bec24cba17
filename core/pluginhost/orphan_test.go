package pluginhost

import (
	"bufio"
	"crypto/rand"
	"errors"
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
	"github.com/postern-mail/postern/sdk/proto"
)

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func itoa(n int) string { return strconv.Itoa(n) }

// runHost runs a host as a process of its own and returns the pids of its plugins and of
// what they started.
func runHost(t *testing.T, runDir, how string) (*exec.Cmd, []int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "plugin", "host", runDir, how)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "end" {
			if len(pids) != 4 {
				t.Fatalf("host has %d processes", len(pids))
			}
			return cmd, pids
		}
		_, pid, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			t.Fatal(lines.Text())
		}
		pids = append(pids, atoi(t, pid))
	}
	t.Fatal("the host ended")
	return nil, nil
}

// However the host ends, its plugins and their children end too, even one that left its
// process group.
func TestG10G11NoOrphans(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]syscall.Signal{"kill": syscall.SIGKILL, "term": syscall.SIGTERM, "abort": syscall.SIGABRT, "panic": 0} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			runDir := filepath.Join(t.TempDir(), "run")
			cmd, pids := runHost(t, runDir, how)
			if end != 0 {
				cmd.Process.Signal(end)
			}
			cmd.Wait()
			for i, pid := range pids {
				eventually(t, 2*time.Second, "process "+itoa(i)+" is gone", func() bool { return gone(pid) })
			}
			// The next host cleans up what is left on disk.
			opt := options(t, &logBuffer{}, fastTiming())
			opt.RunDir = runDir
			h, err := Start(t.Context(), opt, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.Close(t.Context())
			if names, _ := readNames(runDir); len(names) != 1 {
				t.Errorf("left in the run directory: %v", names)
			}
		})
	}
}

// What outlived everything else is ended by the next host, by pid and start time; a
// process that merely has the pid is left alone.
func TestG12StalePlugin(t *testing.T) {
	t.Parallel()
	runDir := filepath.Join(t.TempDir(), "run")
	d, err := openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	stale := sleeper(t)
	other := sleeper(t)
	ours, err := confine.Find(stale.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := confine.Find(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	d.record(ours.PID, ours.Start, "0123456789abcdef.1.")
	d.record(theirs.PID, theirs.Start-1, "0123456789abcdef.2.")
	d.close()
	begun := time.Now()
	d, err = openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if !gone(ours.PID) {
		t.Error("the stale plugin lives")
	}
	if gone(theirs.PID) {
		t.Error("a process that is not ours was killed")
	}
	if d := time.Since(begun); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// The guard is replaced when it dies, and the new one knows the groups.
func TestGuardIsReplaced(t *testing.T) {
	t.Parallel()
	h, _ := start(t, fastTiming(), use("filter"))
	pid := func() int {
		h.guard.mu.Lock()
		defer h.guard.mu.Unlock()
		if h.guard.in == nil {
			return 0
		}
		return h.guard.cmd.Process.Pid
	}
	first := pid()
	syscall.Kill(first, syscall.SIGKILL)
	eventually(t, 5*time.Second, "another guard", func() bool { p := pid(); return p != 0 && p != first })
	h.guard.mu.Lock()
	n := len(h.guard.groups)
	h.guard.mu.Unlock()
	if n != 1 {
		t.Errorf("the guard knows %d groups", n)
	}
	if _, err := os.Stat("/proc/" + itoa(pid())); err != nil {
		t.Error(err)
	}
}

// serveAlone runs a plugin without a host. The pipe stands for the host's life.
func serveAlone(t *testing.T, env ...string) (cmd *exec.Cmd, hostDies func(), hello string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	cmd = exec.Command("/proc/self/exe", "plugin", "serve", "filter")
	cmd.Env = append([]string{"PLUGIN_UNIX_SOCKET_DIR=" + t.TempDir(), "PLUGIN_PROTOCOL_VERSIONS=1"}, env...) // of two, the last counts
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	hello, _ = bufio.NewReader(out).ReadString('\n')
	return cmd, func() { w.Close() }, hello
}

// Each of the ways by which a plugin learns of the host's death works alone: the pipe,
func TestPluginEndsWithThePipe(t *testing.T) {
	t.Parallel()
	cmd, hostDies, hello := serveAlone(t, proto.CookieKey+"="+proto.CookieValue, proto.EnvParentFD+"=3")
	if !strings.HasPrefix(hello, "1|1|unix|") {
		t.Fatalf("handshake is %q", hello)
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		cmd.Process.Signal(s) // ends nothing: messages may be in it
	}
	c, err := net.Dial("unix", strings.Split(hello, "|")[3])
	if err != nil || gone(cmd.Process.Pid) {
		t.Fatalf("a signal to the whole family ended the plugin: %v", err)
	}
	c.Close()
	hostDies()
	eventually(t, 2*time.Second, "end", func() bool { return gone(cmd.Process.Pid) })
}

// the parent's pid,
func TestPluginEndsWithTheParent(t *testing.T) {
	t.Parallel()
	cmd, _, _ := serveAlone(t, proto.CookieKey+"="+proto.CookieValue, proto.EnvParentPID+"=1")
	eventually(t, 5*time.Second, "end", func() bool { return gone(cmd.Process.Pid) })
}

// and the death signal of the thread that forked.
func TestChildEndsWithTheForker(t *testing.T) {
	t.Parallel()
	f := newForker()
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	f.do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if gone(cmd.Process.Pid) {
		t.Fatal("the child is not there")
	}
	f.close()
	eventually(t, 2*time.Second, "end", func() bool { return gone(cmd.Process.Pid) })
}

// A plugin that somebody starts by hand says what to do with it.
func TestServedByHand(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("/proc/self/exe", "plugin", "serve", "filter").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "[[plugin]]") {
		t.Errorf("%v: %s", err, out)
	}
}

// The version of the contract is a number that both know; without one the plugin says so and
// ends, and does not begin to speak another.
func TestG13VersionsOfTheContract(t *testing.T) {
	t.Parallel()
	for versions, want := range map[string]bool{"1": true, "1,2": true, "12,2,1": true, "2": false, "11,12": false, "x": false} {
		_, _, hello := serveAlone(t, proto.CookieKey+"="+proto.CookieValue, proto.EnvParentFD+"=3", "PLUGIN_PROTOCOL_VERSIONS="+versions)
		if got := strings.HasPrefix(hello, "1|1|unix|"); got != want || !want && hello != "" {
			t.Errorf("%s: the handshake is %q", versions, hello)
		}
	}
}

// A child that outlived its plugin and left its group is found by its mark.
func TestG12StaleChild(t *testing.T) {
	t.Parallel()
	runDir := filepath.Join(t.TempDir(), "run")
	d, err := openRunDir(runDir)
	if err != nil {
		t.Fatal(err)
	}
	mark := rand.Text() + ".1."
	cmd := exec.Command("/proc/self/exe", "plugin", "child")
	cmd.Env = []string{markEnv(mark)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	// The environment is to be seen only when the program runs.
	eventually(t, 2*time.Second, "program", func() bool { return confine.Marked(cmd.Process.Pid, markEnv(mark)) })
	d.record(1<<22+1, 1, mark) // a plugin that is no more
	d.close()
	if d, err = openRunDir(runDir); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	eventually(t, 2*time.Second, "end", func() bool { return gone(cmd.Process.Pid) })
}
