package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hold makes the sink greet nobody until the function it returns is called.
func (s *sink) hold() (release func()) {
	wait := make(chan struct{})
	s.script(func(verb, _ string) string {
		if verb == "BANNER" {
			<-wait
		}
		return ""
	})
	return func() { close(wait); s.script(nil) }
}

// TestD11DiskFull fills the disk while nothing can be delivered: 452 before it is full,
// what is queued stays whole, deliveries go on and make room, and mail is taken again by
// the same process.
func TestD11DiskFull(t *testing.T) {
	v := newVolume(t, "ext4", 16)
	fillUp(t, v, 512<<10, 10)
}

// TestD12InodesFull does the same with a file system that has few inodes.
func TestD12InodesFull(t *testing.T) {
	v := newVolume(t, "ext4", 16, "-N", "96")
	fillUp(t, v, 40<<10, 20)
}

func fillUp(t *testing.T, v *volume, size, atLeast int) {
	s, l := newSink(t), newLedger(t)
	release := s.hold()
	defer func() { release() }()
	g := startIn(t, v.dir, relayTo(s))
	for n := 0; ; n++ {
		m := l.write(size, "rcpt@example.com")
		code, err := l.post(g.addr[0], m, nil)
		if err != nil || code != 250 && code != 452 || n > 1000 {
			t.Fatalf("message %d: %d %v", n, code, err)
		}
		if code == 452 {
			bytes, inodes := v.free()
			t.Logf("452 after %d messages; %d KiB and %d inodes are free", n, bytes>>10, inodes)
			if n < atLeast {
				t.Errorf("only %d messages were taken", n)
			}
			if bytes == 0 || inodes == 0 {
				t.Errorf("the disk is full to the last: %d bytes, %d inodes", bytes, inodes)
			}
			break
		}
	}
	if n := len(g.queue()); n != len(l.promised()) {
		t.Errorf("%d queued for %d accepted", n, len(l.promised()))
	}
	release()
	release = func() {}
	l.arrive(s)
	g.drained()
	eventually(t, "mail is taken again", func() bool {
		code, err := l.post(g.addr[0], l.write(size, "rcpt@example.com"), nil)
		return err == nil && code == 250
	})
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestD13ReadOnlyMount makes the data directory read-only for those who open files there,
// by a mount over it: what needs a new file is refused with 451, nothing is lost, and mail
// is taken again when it is gone.
func TestD13ReadOnlyMount(t *testing.T) {
	v := newVolume(t, "ext4", 64)
	s, l := newSink(t), newLedger(t)
	g := startIn(t, v.dir, relayTo(s))
	data := filepath.Join(v.dir, "data")
	if err := unix.Mount(data, data, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	over := true
	lift := func() {
		if over {
			over = false
			if err := unix.Unmount(data, 0); err != nil {
				t.Errorf("umount: %v", err)
			}
		}
	}
	defer lift()
	if err := unix.Mount("", data, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if code, err := l.post(g.addr[0], l.write(large, "rcpt@example.com"), nil); err != nil || code != 451 {
			t.Errorf("got %d %v, want 451", code, err)
		}
		// The log is open: it may well be written.
		if code, err := l.post(g.addr[0], l.write(small, "rcpt@example.com"), nil); err != nil || code != 451 && code != 250 {
			t.Errorf("got %d %v", code, err)
		}
	}
	lift()
	l.accepted(g, l.write(large, "rcpt@example.com"))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestD13DiskGoesReadOnly has the kernel find a fault and make the file system read-only,
// as on a dying disk: 451, the process stays up and says what is wrong, and after a repair
// everything promised is there.
func TestD13DiskGoesReadOnly(t *testing.T) {
	v := newVolume(t, "ext4", 64)
	device, err := exec.Command("findmnt", "-no", "SOURCE", v.dir).Output()
	if err != nil {
		require(t, "findmnt is not installed")
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(device))), "trigger_fs_error")
	if err := exec.Command("mount", "-o", "remount,errors=remount-ro", v.dir).Run(); err != nil {
		t.Fatal(err)
	}
	s, l := newSink(t), newLedger(t)
	s.tarpit()
	g := startIn(t, v.dir, relayTo(s))
	for _, size := range []int{small, large, small} {
		l.accepted(g, l.write(size, "rcpt@example.com"))
	}
	if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
		require(t, "the kernel makes no faults to order: "+err.Error())
	}
	for _, size := range []int{large, small, large, small} {
		if code, err := l.post(g.addr[0], l.write(size, "rcpt@example.com"), nil); err != nil || code != 451 {
			t.Errorf("got %d %v, want 451", code, err)
		}
	}
	if n := len(g.queue()); n != 3 {
		t.Errorf("%d queued, want 3", n)
	}
	g.kill()
	if err := unix.Unmount(v.dir, 0); err != nil {
		t.Fatal(err)
	}
	exec.Command("e2fsck", "-fy", v.image).Run() // its exit code says that it repaired
	if out, err := exec.Command("mount", "-o", v.opts, v.image, v.dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	s.restarted()
	s.open()
	s.hangup()
	g = startIn(t, v.dir, relayTo(s))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
}
