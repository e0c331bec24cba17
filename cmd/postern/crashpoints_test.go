package main_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// crashCalls are the system calls at which TestD04 kills: all that change a disk.
const crashCalls = "fsync,fdatasync,pwrite64,openat,unlinkat,renameat,ftruncate"

// TestD04CrashPoints kills the gateway at its Nth call that touches the disk, for all N
// until two messages get through: what was promised is there, unaltered, what was not is
// whole or not there, and no start needs help. As root the power is cut too.
func TestD04CrashPoints(t *testing.T) {
	peer(t, "strace")
	for _, calls := range strings.Split(crashCalls, ",") {
		t.Run(calls, func(t *testing.T) {
			power := calls == "fsync" || calls == "fdatasync" || calls == "pwrite64" || calls == "unlinkat"
			d := newCrashDisk(t, power && os.Getuid() == 0)
			s, l := newSink(t), newLedger(t)
			lives := 1
			for n := 1; n <= often(3, 60); n++ {
				g := startIn(t, d.dir, relayTo(s))
				strace := g.sabotage("-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, n))
				through := true
				for _, size := range []int{small, large} {
					if code, err := l.post(g.addr[0], l.write(size, "rcpt@example.com"), nil); err != nil || code != 250 {
						through = false
					}
				}
				g.kill() // if it is alive still
				strace.abandon()
				d.crash()
				s.restarted()
				lives++
				if through && n >= 3 {
					break
				}
			}
			g := startIn(t, d.dir, relayTo(s))
			l.arrive(s)
			g.drained()
			l.check(nil, lives, s)
			if n := g.log.count("queue: damage found and set aside", nil); n > 0 {
				t.Error("a crash was taken for damage")
			}
			if left := g.contents(); len(left) > 0 {
				t.Errorf("contents are left: %v", left)
			}
		})
	}
}

// TestD04CrashPointsAtStart kills the gateway at its Nth such call while it starts, with
// mail in the queue.
func TestD04CrashPointsAtStart(t *testing.T) {
	peer(t, "strace")
	d := newCrashDisk(t, os.Getuid() == 0)
	s, l := newSink(t), newLedger(t)
	s.busy()
	g := startIn(t, d.dir, relayTo(s))
	for i := range 6 {
		l.accepted(g, l.write([]int{small, large}[i%2], "rcpt@example.com"))
	}
	g.kill()
	for _, calls := range strings.Split(crashCalls, ",") {
		for n := 1; n <= often(1, 40); n++ {
			g := launch(t, d.dir, relayTo(s), "strace", "-D", "-f", "-o", "/dev/null", "-e",
				"inject="+calls+":signal=SIGKILL:when="+strconv.Itoa(n))
			if !g.started() {
				continue // killed, as it should be
			}
			g.kill()
			d.crash()
			break
		}
	}
	s.open()
	s.restarted()
	g = startIn(t, d.dir, relayTo(s))
	l.arrive(s)
	g.drained()
	l.check(nil, 1, s)
	if n := g.log.count("queue: damage found and set aside", nil); n > 0 {
		t.Error("a crash was taken for damage")
	}
}

// started waits until the gateway is ready, or dead, and reports which.
func (g *gateway) started() bool {
	g.t.Helper()
	up := false
	eventually(g.t, "the gateway is up or dead", func() bool {
		if up = g.log.count("ready", nil) > 0; up {
			return true
		}
		select {
		case <-g.done:
			up = g.log.count("ready", nil) > 0
			return true
		default:
			return false
		}
	})
	return up
}

// crashDisk is a directory that loses what was not synced, where the test may make one.
type crashDisk struct {
	dir string
	v   *volume
}

func newCrashDisk(t *testing.T, power bool) *crashDisk {
	if !power {
		return &crashDisk{dir: t.TempDir()}
	}
	v := newVolume(t, "ext4", 64)
	return &crashDisk{v.dir, v}
}

// crash cuts the power of the disk, if it has one, when the process is dead.
func (d *crashDisk) crash() {
	if d.v == nil {
		return
	}
	if err := d.v.cut(); err != nil {
		d.v.t.Fatal(err)
	}
	d.v.remount()
}
