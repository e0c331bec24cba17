package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// volume is a small file system of its own for a data directory.
type volume struct {
	t     testing.TB
	kind  string
	image string
	dir   string // where it is mounted
	opts  string
}

// newVolume makes and mounts a file system; it goes with the test.
func newVolume(t testing.TB, kind string, mib int64, mkfs ...string) *volume {
	t.Helper()
	if os.Getuid() != 0 {
		require(t, "only root can mount")
	}
	peer(t, "mkfs."+kind)
	base := t.TempDir()
	v := &volume{t: t, kind: kind, image: filepath.Join(base, "image"), dir: filepath.Join(base, "volume"), opts: "loop"}
	if kind == "ext4" {
		v.opts += ",commit=300" // no commit of the journal's timer comes to the rescue
	}
	f, err := os.Create(v.image)
	if err == nil {
		err = f.Truncate(mib << 20)
		f.Close()
	}
	if err == nil {
		err = os.Mkdir(v.dir, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+kind, append(mkfs, "-q", v.image)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", kind, err, out)
	}
	if out, err := exec.Command("mount", "-o", v.opts, v.image, v.dir).CombinedOutput(); err != nil {
		require(t, fmt.Sprintf("cannot mount a loop device: %v: %s", err, out))
	}
	t.Cleanup(func() {
		if unix.Unmount(v.dir, 0) != nil {
			unix.Unmount(v.dir, unix.MNT_DETACH)
		}
	})
	return v
}

// cut cuts the power of the disk: what is not on it now never gets there.
func (v *volume) cut() error {
	f, err := os.Open(v.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const (
		shutdown   = 0x8004587d // _IOR('X', 125, __u32)
		noLogFlush = 2
	)
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush)
}

// remount unmounts the volume and mounts it again, as after a boot.
func (v *volume) remount() {
	v.t.Helper()
	if err := unix.Unmount(v.dir, 0); err != nil {
		v.t.Fatalf("umount: %v", err)
	}
	if out, err := exec.Command("mount", "-o", v.opts, v.image, v.dir).CombinedOutput(); err != nil {
		v.t.Fatalf("mount: %v: %s", err, out)
	}
}

// free is what is left for those who are not root, in bytes and inodes.
func (v *volume) free() (bytes, inodes uint64) {
	v.t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(v.dir, &s); err != nil {
		v.t.Fatal(err)
	}
	return s.Bavail * uint64(s.Frsize), s.Ffree
}

// onDisks runs a test on the file systems that there are tools for.
func onDisks(t *testing.T, f func(t *testing.T, v *volume)) {
	t.Run("ext4", func(t *testing.T) { f(t, newVolume(t, "ext4", 64)) })
	t.Run("xfs", func(t *testing.T) {
		if _, err := exec.LookPath("mkfs.xfs"); err != nil {
			require(t, "mkfs.xfs is not installed")
		}
		f(t, newVolume(t, "xfs", 320))
	})
}

// TestD02PowerCut cuts the power on the 250. The next hop is a tar pit until then, so that
// no record of an attempt syncs what the acceptance forgot.
func TestD02PowerCut(t *testing.T) {
	onDisks(t, func(t *testing.T, v *volume) {
		s, l := newSink(t), newLedger(t)
		rounds := often(6, 50)
		for i := range rounds {
			s.tarpit()
			g := startIn(t, v.dir, relayTo(s))
			var letters []*letter
			switch i % 3 {
			case 0: // nobody else's sync helps
				letters = append(letters, l.write(small, "rcpt@example.com"))
			case 1:
				letters = append(letters, l.write(large, "rcpt@example.com"))
			default:
				for k := range 6 {
					letters = append(letters, l.write([]int{small, large, small}[k%3], "rcpt@example.com"))
				}
			}
			l.cutOnAccept(g, v, letters)
			v.remount()
			s.restarted()
			s.open()
			s.hangup()
			g = startIn(t, v.dir, relayTo(s))
			l.arrive(s)
			g.drained()
			l.check(nil, 1, s)
			if n := g.log.count("queue: damage found and set aside", nil); n > 0 {
				t.Errorf("round %d: what a power cut leaves is no damage", i)
			}
			g.stop()
		}
	})
}

// cutOnAccept sends letters at the same time and cuts the power on the first 250, of the
// disk and then of the gateway. What others hear from then on counts for nothing: nobody
// would have heard it, and a sync that is under way while a file system is shut down may
// well say that it succeeded.
func (l *ledger) cutOnAccept(g *gateway, v *volume, letters []*letter) {
	l.t.Helper()
	var off atomic.Bool
	var failed error
	var work sync.WaitGroup
	for _, m := range letters {
		work.Go(func() {
			heard := false
			l.post(g.addr[0], m, func(code int) {
				heard = !off.Load()
				if code == 250 && off.CompareAndSwap(false, true) {
					failed = v.cut()
					g.kill()
				}
			})
			if !heard {
				m.code = 0
			}
		})
	}
	work.Wait()
	if failed != nil {
		l.t.Fatalf("cannot cut the power: %v", failed)
	}
	if !strings.Contains(fmt.Sprint(codes(letters)), "250") {
		l.t.Fatal("nothing was accepted")
	}
}

func codes(letters []*letter) []int {
	var all []int
	for _, m := range letters {
		all = append(all, m.code)
	}
	return all
}

// TestD16Resurrection cuts the power after a delivery was recorded: it is not repeated.
func TestD16Resurrection(t *testing.T) {
	onDisks(t, func(t *testing.T, v *volume) {
		s, l := newSink(t), newLedger(t)
		g := startIn(t, v.dir, relayTo(s))
		for i := range often(5, 30) {
			m := l.write([]int{small, large}[i%2], "rcpt@example.com")
			l.accepted(g, m)
			l.at(m, "rcpt@example.com", s)
			g.drained()
			if err := v.cut(); err != nil {
				t.Fatal(err)
			}
			g.kill()
			v.remount()
			s.restarted()
			g = startIn(t, v.dir, relayTo(s))
			if q := g.queue(); len(q) > 0 {
				t.Errorf("round %d: back in the queue: %+v", i, q)
			}
			if left := g.contents(); len(left) > 0 {
				t.Errorf("round %d: content of delivered mail is left: %v", i, left)
			}
		}
		l.arrive(s)
		l.check(nil, 1, s)
	})
}
