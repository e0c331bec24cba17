package pluginhost

import (
	"bufio"
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
				eventually(t, time.Minute, "process "+itoa(i)+" is gone", func() bool { return gone(pid) })
			}
			// The next host cleans up what is left on disk.
			opt := options(t, &logBuffer{}, fastTiming())
			opt.RunDir = runDir
			h, err := Start(t.Context(), opt, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.Close(t.Context())
			if names, _ := os.ReadDir(runDir); len(names) != 1 {
				t.Errorf("left in the run directory: %v", names)
			}
		})
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
	eventually(t, time.Minute, "end", func() bool { return gone(cmd.Process.Pid) })
}

// and the parent's pid. The third one, the death signal, is tested where it is set.
func TestPluginEndsWithTheParent(t *testing.T) {
	t.Parallel()
	cmd, _, _ := serveAlone(t, proto.CookieKey+"="+proto.CookieValue, proto.EnvParentPID+"=1")
	eventually(t, time.Minute, "end", func() bool { return gone(cmd.Process.Pid) })
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
