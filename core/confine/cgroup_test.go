package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestFindHierarchy(t *testing.T) {
	v2 := t.TempDir()
	if err := os.WriteFile(filepath.Join(v2, "cgroup.controllers"), []byte("cpu memory pids\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, mounts, own, want string }{
		{"version 1", "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/a/b\n0::/\n", "{1 [/sys/fs/cgroup/memory/a/b /sys/fs/cgroup/memory]}"},
		{"version 1 in a container", "32 31 0:29 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/docker/x\n", "{1 [/sys/fs/cgroup/memory /sys/fs/cgroup/memory]}"},
		{"version 2 below a service", "30 20 0:26 / " + v2 + " rw shared:4 - cgroup2 cgroup2 rw\n", "0::/system.slice/postern.service/main\n", "{2 [" + v2 + "/system.slice/postern.service/main " + v2 + "/system.slice/postern.service]}"},
		{"version 2 without controllers", "30 20 0:26 / /nonexistent rw - cgroup2 cgroup2 rw\n", "0::/\n", "{0 []}"},
		{"nothing", "", "", "{0 []}"},
	} {
		h, ok := findHierarchy("memory", tt.mounts, tt.own)
		if got := fmt.Sprint(h); got != tt.want || ok != (h.version != 0) {
			t.Errorf("%s: %s, %v", tt.name, got, ok)
		}
	}
	// In version 2 the controller has to be handed down first.
	h := hierarchy{2, []string{v2}}
	os.WriteFile(filepath.Join(v2, "cgroup.subtree_control"), nil, 0o600)
	if dir, err := h.make("postern-x", "memory"); err != nil || dir != v2+"/postern-x" || !hasWord(filepath.Join(v2, "cgroup.subtree_control"), "+memory") {
		t.Errorf("made %s, %v", dir, err)
	}
}

// Nothing is removed but what was made here.
func TestRemoveGroupLeavesOthersAlone(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "postern-relative", "/", ""} {
		RemoveGroup(dir)
		if _, err := os.Stat(dir); filepath.IsAbs(dir) && err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
