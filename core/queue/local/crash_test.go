package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk/disktest"
	"github.com/postern-mail/postern/core/queue"
)

// The sweeps run one scenario again and again, each time with something going wrong at
// another operation on the disk, and compare what a restart finds with a ledger of what
// was promised.

// operations is how many operations the scenario takes, about: the janitor works at its
// own pace.
func operations(t *testing.T) int {
	r := newRig(t)
	m := disktest.NewMem()
	if err := r.open(disktest.NewFaults(m, nil)); err != nil {
		t.Fatal(err)
	}
	r.scenario()
	n := r.fs.Ops()
	for _, p := range r.ledger {
		if p.fate != present {
			t.Fatal("the scenario fails by itself")
		}
	}
	if r.s.lastNumber < 5 {
		t.Fatal("the scenario does not rotate segments")
	}
	r.s.Close()
	r.verify(m, "nothing goes wrong")
	return n
}

// sweep calls one for operations: all, or a sample.
func sweep(t *testing.T, sample int, one func(n int, seed uint64)) {
	total := operations(t)
	if os.Getenv("POSTERN_FULL") == "1" {
		for n := 1; n <= total; n++ {
			for seed := range uint64(5) {
				one(n, seed)
			}
		}
		return
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d operations", seed, total)
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range sample {
		one(1+rnd.IntN(total), rnd.Uint64())
	}
}

// TestD04PowerCut cuts the power at every operation.
func TestD04PowerCut(t *testing.T) {
	sweep(t, 100, func(n int, seed uint64) {
		what := fmt.Sprintf("cut at %d, seed %d", n, seed)
		r := newRig(t)
		m := disktest.NewMem()
		if err := r.open(disktest.NewFaults(m, disktest.CutAt(n))); err == nil {
			r.scenario()
			r.s.Close()
		}
		after := m.Crash(seed)
		r.verify(after, what)
	})
}

// TestD01Kill kills the process at every operation: what was written stays.
func TestD01Kill(t *testing.T) {
	sweep(t, 60, func(n int, seed uint64) {
		r := newRig(t)
		m := disktest.NewMem()
		if err := r.open(disktest.NewFaults(m, disktest.CutAt(n))); err == nil {
			r.scenario()
			r.s.Close()
		}
		m = m.Kill()
		what := fmt.Sprintf("kill at %d, seed %d", n, seed)
		if seed%2 == 0 {
			m = r.reopenAndCut(m, seed, what)
		}
		r.verify(m, what)
		if r.s.damaged {
			t.Fatalf("%s: taken for damage", what)
		}
	})
}

// reopenAndCut opens the store and cuts the power when it is ready. What it found by then
// has become a promise, also if the writer died before its sync.
func (r *rig) reopenAndCut(m *disktest.Mem, seed uint64, what string) *disktest.Mem {
	if err := r.open(disktest.NewFaults(m, nil)); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
	for _, id := range r.order {
		if _, _, err := r.s.Get(context.Background(), id); err == nil {
			r.ledger[id].fate = present
		}
	}
	after := m.Crash(seed)
	r.s.Close()
	return after
}

// TestD05InjectedErrors fails one operation, in each way, and goes on. What was refused is
// refused for ever: after going on, after a kill, after a power cut.
func TestD05InjectedErrors(t *testing.T) {
	ways := []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, disktest.Short(), errors.Join(disktest.ErrLate, syscall.EIO)}
	sweep(t, 150, func(n int, seed uint64) {
		err := ways[seed%uint64(len(ways))]
		what := fmt.Sprintf("%q at %d, seed %d", err, n, seed)
		r := newRig(t)
		m := disktest.NewMem()
		if err := r.open(disktest.NewFaults(m, disktest.At(n, err))); err != nil {
			// Opening may fail, but must work the next time.
			r.verify(m.Kill(), what)
			return
		}
		r.scenario()
		switch seed / 7 % 3 {
		case 0:
			r.s.Close()
			r.verify(m.Kill(), what+", closed")
		case 1:
			after := m.Kill()
			r.s.Close()
			r.verify(after, what+", killed")
		case 2:
			after := m.Crash(seed)
			r.s.Close()
			r.verify(after, what+", cut")
		}
	})
}

// TestD06DiskFull fills the disk at every operation: refusals say so, nothing is lost, and
// it goes on when there is space again.
func TestD06DiskFull(t *testing.T) {
	sweep(t, 60, func(n int, seed uint64) {
		what := fmt.Sprintf("full from %d, seed %d", n, seed)
		r := newRig(t)
		m := disktest.NewMem()
		full := func(op disktest.Op) error {
			if op.N < n || op.Kind != "write" && op.Kind != "open" && op.Kind != "mkdir" {
				return nil
			}
			if seed%2 == 0 && op.Kind == "write" {
				return disktest.Short()
			}
			return syscall.ENOSPC
		}
		if err := r.open(disktest.NewFaults(m, full)); err != nil {
			r.verify(m.Kill(), what)
			return
		}
		r.scenario()
		isFull := r.fs.Ops() >= n
		e, recs := testEntry(r.ids.New(r.now), "small", "a@full.example")
		err := r.s.Commit(context.Background(), queue.Batch{Add: []queue.Add{{Entry: e, Records: recs}}, Remember: []queue.Mark{{Key: e.ID.String(), Until: r.now.Add(time.Hour)}}})
		if isFull && !errors.Is(err, queue.ErrNoSpace) {
			t.Fatalf("%s: %v", what, err)
		}
		r.ledger[e.ID] = &promise{fate: r.outcome(err), body: "small", states: []queue.State{queue.Pending}, doubt: []bool{false}}
		r.order = append(r.order, e.ID)
		if seed%3 == 0 {
			after := m.Kill()
			r.s.Close()
			r.verify(after, what)
			return
		}
		r.fs.SetFail(nil)
		r.accept(1000, 2)
		if r.ledger[r.order[len(r.order)-1]].fate != present {
			t.Fatalf("%s: does not recover", what)
		}
		r.s.Close()
		r.verify(m.Kill(), what)
	})
}
