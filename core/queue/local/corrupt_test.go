package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
)

// bytesFile is a file to read only.
type bytesFile struct {
	disk.File
	b []byte
}

func (f *bytesFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}

// fast is the real file system without syncs, for tests that are about something else.
type fast struct{ disk.OS }

type fastFile struct{ disk.File }

func (fastFile) Sync() error      { return nil }
func (fast) SyncDir(string) error { return nil }
func (f fast) OpenFile(name string, flag int, perm os.FileMode) (disk.File, error) {
	in, err := f.OS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fastFile{in}, nil
}

// house is a queue with its content in a directory on the real disk.
type house struct {
	t    testing.TB
	dir  string
	sp   *spool.Spool
	s    *Store
	now  time.Time    // changed by advance only
	wall atomic.Int64 // now, for the store's goroutines
	ids  queue.IDs
}

func newHouse(t testing.TB) *house {
	h := &house{t: t, dir: t.TempDir(), now: time.Unix(1.7e9, 0)}
	h.advance(0)
	h.open(Options{})
	return h
}

func (h *house) advance(d time.Duration) {
	h.now = h.now.Add(d)
	h.wall.Store(h.now.UnixNano())
}

func (h *house) open(o Options) {
	h.t.Helper()
	var err error
	if h.sp, err = spool.Open(spool.Options{Dir: h.dir + "/spool", Threshold: 200, FS: fast{}}); err != nil {
		h.t.Fatal(err)
	}
	o.Dir, o.Content, o.FS = h.dir+"/queue", h.sp, fast{}
	if o.Clock == nil {
		o.Clock = func() time.Time { return time.Unix(0, h.wall.Load()) }
	}
	if h.s, err = Open(o); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) close() {
	h.t.Helper()
	if err := h.s.Close(); err != nil {
		h.t.Fatal(err)
	}
}

// accept commits an entry whose body is repeated so often, to one recipient.
func (h *house) accept(body string, times int) queue.ID {
	h.t.Helper()
	w := h.sp.NewWriter()
	io.WriteString(w, strings.Repeat(body, times))
	b, err := w.Finish()
	if err = errors.Join(err, w.Sync()); err != nil {
		h.t.Fatal(err)
	}
	id := h.ids.New(h.now)
	e, recs := testEntry(id, "", "a@example.com")
	e.Body = b
	if err := h.s.Commit(context.Background(), queue.Batch{Add: []queue.Add{{Entry: e, Records: recs}}}); err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *house) finish(l queue.Lease, state queue.State) {
	h.t.Helper()
	var b queue.Batch
	for i, n := range l.Recipients {
		rec := l.Records[i]
		rec.State = state
		b.Results = append(b.Results, queue.Result{ID: l.Entry.ID, Recipient: n, Record: rec})
	}
	if err := h.s.Commit(context.Background(), b); err != nil {
		h.t.Fatal(err)
	}
}

// drain delivers what is due and returns the bodies by id.
func (h *house) drain() map[queue.ID]string {
	h.t.Helper()
	got := make(map[queue.ID]string)
	for {
		leases, _, err := h.s.Claim(context.Background(), queue.Claim{Now: h.now, Max: 50})
		if err != nil {
			h.t.Fatal(err)
		}
		if len(leases) == 0 {
			return got
		}
		for _, l := range leases {
			r, err := l.Entry.Body.Open()
			if err != nil {
				h.t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			r.Close()
			if err != nil {
				h.t.Fatal(err)
			}
			got[l.Entry.ID] = string(b)
			h.finish(l, queue.Delivered)
		}
	}
}

// damages are the ways of D-18.
var damages = map[string]func(b []byte, rnd *rand.Rand) []byte{
	"bit flip": func(b []byte, rnd *rand.Rand) []byte {
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		return b
	},
	"bit flips": func(b []byte, rnd *rand.Rand) []byte {
		for i := rnd.IntN(97); i < len(b); i += 97 * (1 + rnd.IntN(30)) {
			b[i] ^= 1
		}
		return b
	},
	"truncated":   func(b []byte, rnd *rand.Rand) []byte { return b[:rnd.IntN(len(b))] },
	"zero length": func(b []byte, _ *rand.Rand) []byte { return nil },
	"zeroed": func(b []byte, rnd *rand.Rand) []byte {
		from := rnd.IntN(len(b))
		clear(b[from:min(len(b), from+512)])
		return b
	},
	"random": func(b []byte, rnd *rand.Rand) []byte {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	},
	"wrong version": func(b []byte, _ *rand.Rand) []byte { b[7]++; return b },
}

// TestD18Corruption damages each file in each way, after an orderly end: nothing is
// delivered altered, the other files' mail is delivered, and what is lost left a trace.
func TestD18Corruption(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	for way, damage := range damages {
		t.Run(way, func(t *testing.T) {
			for range damageRuns() {
				damageOne(t, damage, rnd)
			}
		})
	}
}

func damageRuns() int {
	if os.Getenv("POSTERN_FULL") == "1" {
		return 500
	}
	return 12
}

func damageOne(t *testing.T, damage func([]byte, *rand.Rand) []byte, rnd *rand.Rand) {
	h := newHouse(t)
	h.close()
	h.open(Options{SegmentSize: 2048})
	want := make(map[queue.ID]string)
	for i := range 16 {
		line := fmt.Sprintf("line %d\r\n", i)
		n := 1 + i%4*10
		want[h.accept(line, n)] = strings.Repeat(line, n)
	}
	h.close()
	files, _ := filepath.Glob(h.dir + "/queue/*.log")
	contents, _ := filepath.Glob(h.dir + "/spool/*")
	files = append(files[:len(files)-1], contents...) // the last segment is empty
	victim := files[rnd.IntN(len(files))]
	b, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(b)
	b = damage(b, rnd)
	if bytes.Equal(b, before) {
		return
	}
	if err := os.WriteFile(victim, b, 0o600); err != nil {
		t.Fatal(err)
	}
	h.open(Options{})
	got := h.drain()
	for id, body := range got {
		if body != want[id] {
			t.Fatalf("%s: %s was delivered altered", victim, id)
		}
	}
	lost := len(want) - len(got)
	if strings.Contains(victim, "/spool/") && lost > 1 || lost > 8 {
		t.Errorf("%s: %d entries lost", victim, lost)
	}
	reasons, _ := filepath.Glob(h.dir + "/*/corrupt/*.reason")
	if lost > 0 && len(reasons) == 0 {
		t.Errorf("%s: %d entries lost without a trace", victim, lost)
	}
	h.close()
	h.open(Options{}) // and it goes on
	h.accept("more", 1)
	if len(h.drain()) != 1 {
		t.Error("new mail does not flow")
	}
	h.close()
}

// TestD18ContentHeld: an entry whose content is damaged stays visible, with the reason.
func TestD18ContentHeld(t *testing.T) {
	for _, way := range []string{"missing", "altered", "short"} {
		h := newHouse(t)
		id := h.accept("0123456789", 100)
		h.close()
		files, _ := filepath.Glob(h.dir + "/spool/*")
		switch way {
		case "missing":
			os.Remove(files[0])
		case "altered":
			os.WriteFile(files[0], []byte(strings.Repeat("012345678X", 100)), 0o600)
		case "short":
			os.Truncate(files[0], 999)
		}
		h.open(Options{})
		if got := h.drain(); len(got) != 0 {
			t.Errorf("%s: delivered", way)
		}
		_, recs, err := h.s.Get(context.Background(), id)
		if err != nil || recs[0].State != queue.Held || !strings.Contains(recs[0].Reason, "content is damaged") {
			t.Errorf("%s: %+v %v", way, recs, err)
		}
		if m, _ := filepath.Glob(h.dir + "/spool/corrupt/*.reason"); len(m) != 1 {
			t.Errorf("%s: not set aside", way)
		}
		h.close()
	}
}

// TestD18DamageKeepsContent: after damage, content that nothing refers to is not deleted.
func TestD18DamageKeepsContent(t *testing.T) {
	h := newHouse(t)
	h.accept("0123456789", 100)
	h.accept("small", 1)
	h.close()
	seg := h.dir + "/queue/00000001.log"
	b, _ := os.ReadFile(seg)
	b[firstFrame+frameHeader+20] ^= 1
	os.WriteFile(seg, b, 0o600)
	h.open(Options{})
	if len(h.drain()) != 1 {
		t.Error("the neighbour was not delivered")
	}
	h.close()
	if m, _ := filepath.Glob(h.dir + "/spool/corrupt/*"); len(m) != 2 {
		t.Errorf("%q", m)
	}
	if m, _ := filepath.Glob(h.dir + "/queue/corrupt/*"); len(m) != 2 {
		t.Errorf("%q", m)
	}
}

// TestD18DamageWhileRunning: what is damaged under a running gateway is found when read.
func TestD18DamageWhileRunning(t *testing.T) {
	h := newHouse(t)
	h.close()
	h.open(Options{Cache: 1})
	bad := h.accept("first", 1)
	h.accept("second", 1)
	seg, err := os.OpenFile(h.dir+"/queue/00000001.log", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	seg.WriteAt([]byte{0xff}, firstFrame+frameHeader+20)
	seg.Close()
	if got := h.drain(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if _, _, err := h.s.Get(context.Background(), bad); !errors.Is(err, queue.ErrGone) {
		t.Error(err)
	}
	h.close()
	if m, _ := filepath.Glob(h.dir + "/queue/corrupt/*"); len(m) != 2 {
		t.Errorf("%q", m)
	}
}

// TestD20StaleTemporaries: what a crash left in the spool is removed at the next start.
func TestD20StaleTemporaries(t *testing.T) {
	h := newHouse(t)
	id := h.accept("0123456789", 100)
	for range 1000 {
		w := h.sp.NewWriter()
		w.Write(make([]byte, 300))
		w.Finish() // and the process dies
	}
	h.close()
	h.open(Options{})
	if names, _ := h.sp.Names(); len(names) != 1 {
		t.Errorf("%d files", len(names))
	}
	if got := h.drain(); len(got) != 1 || len(got[id]) != 1000 {
		t.Errorf("%v", got)
	}
	h.close()
}

// TestD21TwoInstances: the second is refused, the first goes on.
func TestD21TwoInstances(t *testing.T) {
	h := newHouse(t)
	_, err := Open(Options{Dir: h.dir + "/queue", Content: h.sp})
	if !errors.Is(err, queue.ErrLocked) {
		t.Errorf("second: %v", err)
	}
	h.accept("x", 1)
	h.close()
	h.open(Options{})
	h.close()
}

// TestD31Moved: a data directory works in another place.
func TestD31Moved(t *testing.T) {
	h := newHouse(t)
	big, small := h.accept("0123456789", 100), h.accept("x", 1)
	h.close()
	to := t.TempDir() + "/moved"
	if err := os.CopyFS(to, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.dir + "/spool"); err != nil {
		t.Fatal(err)
	}
	h.dir = to
	h.open(Options{})
	if got := h.drain(); len(got[big]) != 1000 || got[small] != "x" {
		t.Errorf("%v", got)
	}
	h.close()
}
