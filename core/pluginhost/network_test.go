package pluginhost

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/core/confine"
)

// G-23: who does not ask for the network has none.
func TestG23Network(t *testing.T) {
	t.Parallel()
	asRoot(t)
	h, log := start(t, calm(), use("filter"), use("online"), Spec{Name: "known", Use: "online", Network: true})
	require(t, !strings.Contains(log.String(), "makes no network namespaces"), "the kernel makes no network namespaces")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = filterOf(t, h, "filter").Filter(t.Context(), msg("dial "+l.Addr().String()))
	if fl := wantReason(t, err, Error); !strings.Contains(fl.Error(), "unreachable") {
		t.Error(fl)
	}
	for _, name := range []string{"online", "known"} {
		if _, err := filterOf(t, h, name).Filter(t.Context(), msg("dial "+l.Addr().String())); err != nil {
			t.Error(err)
		}
	}
}

// humbleHost is a host without root's rights. It has its plugins try things, and says what came
// of them.
func humbleHost(runDir string, tries []string) {
	restricted := use("restricted")
	restricted.Use, restricted.Files = "filter", &confine.Files{}
	h, err := Start(context.Background(), Options{RunDir: runDir}, []Spec{use("filter"), restricted, use("online"), {Name: "known", Use: "online", Network: true}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close(context.Background())
	for _, name := range []string{"filter", "restricted", "online", "known"} {
		f, _ := h.Filter(name)
		for _, what := range tries {
			_, err := f.Filter(context.Background(), msg(what))
			fmt.Println(name, what, err)
		}
	}
}

// G-23 where there can be no network namespace, because the host is not root: TCP and abstract
// unix sockets are refused to those who do not ask for the network, be their files restricted or
// not. The host's capabilities, which its plugins inherit, do not get in the way.
func TestG23WithoutNamespaces(t *testing.T) {
	t.Parallel()
	asRoot(t)
	withLandlock(t, 6)
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o711)
	}
	if err := os.Chown(dir, 64321, 64321); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	abstract, err := net.Listen("unix", "@postern-test-"+itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	tries := []string{"dial " + l.Addr().String(), "try listen 127.0.0.1:0", "try abstract postern-test-" + itoa(os.Getpid()), "try list /"}
	for what, caps := range map[string][]uintptr{"no capabilities": nil, "low ports": {unix.CAP_NET_BIND_SERVICE}} {
		cmd := exec.Command("/proc/self/exe", append([]string{"plugin", "humble", filepath.Join(dir, "run")}, tries...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64321, Gid: 64321}, AmbientCaps: caps}
		out, err := cmd.CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil || len(lines) != 16 {
			t.Fatalf("%s: %v: %s", what, err, out)
		}
		for i, line := range lines {
			refused := i < 8 && i != 3 // all but what a plugin with free files may list
			if strings.Contains(line, denied) != refused && !strings.Contains(line, "operation not permitted") || !refused && !strings.HasSuffix(line, "<nil>") {
				t.Errorf("%s: %s", what, line)
			}
		}
	}
}
