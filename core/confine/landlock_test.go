package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// under runs a shell script under rules and returns what it printed.
func under(t *testing.T, r *Rules, script string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	var out []byte
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: it ends with the goroutine
		if err = r.Restrict(); err == nil {
			out, _ = cmd.CombinedOutput()
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
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

// Only the thread is restricted, and what it starts.
func TestRestrictIsForAThread(t *testing.T) {
	t.Parallel()
	require(t, Landlock() > 0, "the kernel has no Landlock")
	r, err := NewRules(true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(r.AllowSystem(), r.AllowProgram([]string{"/bin/sh"}, nil)); err != nil {
		t.Fatal(err)
	}
	if got := under(t, r, "read -r line < /etc/passwd || echo refused"); !strings.Contains(got, "refused") {
		t.Errorf("%q", got)
	}
	for range 20 { // on whatever thread
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := os.ReadFile("/etc/passwd"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
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
