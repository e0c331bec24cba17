package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The test binary becomes other programs, as the gateway's does.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin" && os.Args[2] == "confine" {
		fmt.Fprintln(os.Stderr, Exec(os.Args[3:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// under runs a shell script under rules and returns what it printed.
func under(t *testing.T, r *Rules, script string) string {
	t.Helper()
	argv := Wrap("/proc/self/exe", 3, "/bin/sh", []string{"sh", "-c", script})
	cmd := &exec.Cmd{Path: argv[0], Args: argv, ExtraFiles: []*os.File{r.File()}}
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// Rules for older kernels work on newer ones: each version is a part of the next.
func TestEveryVersion(t *testing.T) {
	t.Parallel()
	have := Landlock()
	require(t, have > 0, "the kernel has no Landlock")
	dir := t.TempDir()
	for _, name := range []string{"read/x", "write/x", "other/x"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("text\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for abi := 1; abi <= have; abi++ {
		r, err := newRules(abi, true, true)
		if err != nil {
			t.Fatalf("version %d: %v", abi, err)
		}
		err = errors.Join(r.AllowSystem(), r.AllowProgram([]string{"/bin/sh"}, nil), r.Allow(Files{Read: []string{dir + "/read"}, Write: []string{dir + "/write"}}))
		if err != nil {
			t.Fatalf("version %d: %v", abi, err)
		}
		got := under(t, r, `cd `+dir+`; for d in read write other; do
			read -r line < $d/x && echo $d read
			echo text >> $d/x && echo $d written
			echo text > $d/new && echo $d made
		done 2>/dev/null`)
		if want := "read read\nwrite read\nwrite written\nwrite made\n"; got != want {
			t.Errorf("version %d: %q", abi, got)
		}
		if r.Offline != (abi >= 4) || (r.Gaps() == "") != (abi >= 3) || r.ABI != abi {
			t.Errorf("version %d: offline %v, gaps %q", abi, r.Offline, r.Gaps())
		}
		r.Close()
	}
}

func TestNoRules(t *testing.T) {
	t.Parallel()
	if r, err := newRules(0, true, false); r != nil || !errors.Is(err, ErrNoLandlock) {
		t.Errorf("files without Landlock: %v, %v", r, err)
	}
	for abi := range 4 {
		if r, err := newRules(abi, false, true); r != nil || err != nil {
			t.Errorf("TCP with version %d: %v, %v", abi, r, err)
		}
	}
	if r, err := newRules(7, false, false); r != nil || err != nil {
		t.Errorf("nothing is asked for: %v, %v", r, err)
	}
	var none *Rules
	none.Close()
}

// Exec does nothing by halves: whatever is wrong, the program does not run.
func TestExecRefuses(t *testing.T) {
	t.Parallel()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "usage"},
		{[]string{"3", "--", "/bin/echo"}, "usage"},
		{[]string{"3", "-", "/bin/echo", "echo", "ran"}, "usage"},
		{[]string{"x", "--", "/bin/echo", "echo", "ran"}, "not a file descriptor"},
		{[]string{"2", "--", "/bin/echo", "echo", "ran"}, "not a file descriptor"},
		{[]string{"3", "--", "/bin/echo", "echo", "ran"}, "Landlock rules cannot be applied"}, // no rules
		{[]string{"9", "--", "/bin/echo", "echo", "ran"}, "Landlock rules cannot be applied"}, // not open
	} {
		cmd := exec.Command("/proc/self/exe", append([]string{"plugin", "confine"}, tt.args...)...)
		cmd.ExtraFiles = []*os.File{null}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "ran\n") {
			t.Errorf("%q: %v, %s", tt.args, err, out)
		}
	}
}

func TestInterpreters(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]string{
		"#!/bin/sh\n": "[/bin/sh]", "#! /bin/sh -e\nexit": "[/bin/sh]", "#!/bin/sh": "[/bin/sh]",
		"#!/usr/bin/env sh\n": "[/usr/bin/env /usr/bin/sh]", "#!/usr/bin/env -S A=b sh -e\n": "[/usr/bin/env /usr/bin/sh]",
		"#!/usr/bin/env no-such-program\n": "[/usr/bin/env]", "#!/usr/bin/env\n": "[/usr/bin/env]",
		"": "[]", "#!": "[]", "#!\n": "[]", "#!sh\n": "[]", "\x7fELF": "[]", " #!/bin/sh\n": "[]",
	} {
		if got := fmt.Sprint(interpreters([]byte(head))); got != want {
			t.Errorf("%q: %s", head, got)
		}
	}
}

func TestFilesEqual(t *testing.T) {
	t.Parallel()
	a := &Files{Read: []string{"/a"}}
	for _, tt := range []struct {
		f, g *Files
		want bool
	}{{nil, nil, true}, {a, nil, false}, {nil, &Files{}, false}, {a, a, true}, {a, &Files{Read: []string{"/a"}}, true}, {a, &Files{Write: []string{"/a"}}, false}} {
		if tt.f.Equal(tt.g) != tt.want {
			t.Errorf("%v, %v", tt.f, tt.g)
		}
	}
}
