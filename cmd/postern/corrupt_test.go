package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stored is a stopped gateway's data with mail that waits, and where in the log it is.
type stored struct {
	dir     string
	l       *ledger
	letters []*letter // in the order of the log
	log     string    // the segment, by its base name
	size    int64
	ends    []int64 // where in it each letter ends, at least
	content map[*letter]string
}

// store makes one.
func store(t *testing.T) *stored {
	t.Helper()
	s := newSink(t)
	s.busy()
	d := &stored{dir: t.TempDir(), l: newLedger(t), content: make(map[*letter]string)}
	g := startIn(t, d.dir, relayTo(s))
	known := make(map[string]bool)
	for i := range 8 {
		m := d.l.write([]int{small, 200, 40 << 10, 20 << 10}[i%4], "rcpt@example.com")
		d.l.accepted(g, m)
		d.letters = append(d.letters, m)
		for _, c := range g.contents() {
			if !known[c] {
				known[c] = true
				d.content[m] = filepath.Base(c)
			}
		}
	}
	if len(d.content) != 2 {
		t.Fatalf("%d content files", len(d.content))
	}
	if code := g.stop(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, name := range g.segments() {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) <= d.size {
			continue
		}
		d.log, d.size, d.ends = filepath.Base(name), int64(len(b)), nil
		for _, m := range d.letters {
			token := "end of " + m.id
			if d.content[m] != "" {
				token = "Message-ID: " + m.id
			}
			d.ends = append(d.ends, int64(bytes.Index(b, []byte(token))+len(token)))
		}
	}
	if !slices.IsSorted(d.ends) || d.ends[0] < 100 {
		t.Fatalf("letters end at %v in %s", d.ends, d.log)
	}
	return d
}

// hit are the letters that damage from a to b of the log may touch: a letter begins after
// the one before, and little comes after its text.
func (d *stored) hit(a, b int64) []*letter {
	var hit []*letter
	begin := int64(0)
	for i, end := range d.ends {
		if a < end+64 && b > begin {
			hit = append(hit, d.letters[i])
		}
		begin = end
	}
	return hit
}

// damage is something that happens to the files, and the letters that may be gone after it.
type damage struct {
	name string
	do   func(t *testing.T, data string)
	hit  []*letter
	told bool // must be in corrupt/, whatever else
}

// damages are all kinds of it.
func (d *stored) damages() []damage {
	var all []damage
	log := func(name string, a, b int64, change func(b []byte) []byte) {
		all = append(all, damage{name: "log " + name, hit: d.hit(a, b), do: edit("queue", d.log, change)})
	}
	// Single bits, all over the log.
	step := d.size / int64(often(12, 250))
	for at := int64(3); at < d.size; at += step {
		log(fmt.Sprintf("bit flipped at %d", at), at, at+1, flip(at))
	}
	step = d.size / int64(often(4, 20))
	for at := int64(0); at < d.size; at += step {
		log(fmt.Sprintf("cut at %d", at), at, d.size, func(b []byte) []byte { return b[:at] })
	}
	middle := d.ends[3]
	log("sector of zeros", middle-256, middle+256, func(b []byte) []byte { clear(b[middle-256 : middle+256]); return b })
	log("random", 0, d.size, random)
	log("header lost", 0, 128, func(b []byte) []byte { clear(b[:128]); return b })
	for m, name := range d.content {
		content := func(what string, change func(b []byte) []byte) {
			all = append(all, damage{name: "content " + what, hit: []*letter{m}, told: true, do: edit("content", name, change)})
		}
		content("bit flipped", flip(20000))
		content("cut", func(b []byte) []byte { return b[:len(b)/2] })
		content("empty", func(b []byte) []byte { return nil })
		content("longer", func(b []byte) []byte { return append(b, "more\r\n"...) })
		all[len(all)-1].told = false // nothing of the message is wrong
		content("random", random)
		all = append(all, damage{name: "content missing", hit: []*letter{m}, told: true, do: func(t *testing.T, data string) {
			if err := os.Remove(filepath.Join(data, "content", name)); err != nil {
				t.Error(err)
			}
		}})
		break
	}
	return all
}

func flip(at int64) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b }
}

func random(b []byte) []byte {
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// edit changes a file.
func edit(folder, name string, change func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, data string) {
		file := filepath.Join(data, folder, name)
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, change(b), 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestD18CorruptStore damages the files of a stopped gateway in many ways: what is damaged
// is not delivered altered but set aside with a reason, and everything else flows.
func TestD18CorruptStore(t *testing.T) {
	d := store(t)
	for _, c := range d.damages() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			copyData(t, d.dir, dir)
			c.do(t, filepath.Join(dir, "data"))
			s := newSink(t)
			g := startIn(t, dir, relayTo(s))
			l := d.l.copy(t)
			l.accepted(g, l.write(large, "rcpt@example.com"))
			var held []queued
			eventually(t, "nothing is left to do", func() bool {
				held = g.queue()
				return !slices.ContainsFunc(held, func(q queued) bool { return q.State != "held" })
			})
			lost := l.survivors(s, held, c.hit)
			aside := reasons(g)
			if (lost > 0 || c.told) && len(aside) == 0 {
				t.Errorf("%d letters are lost and nothing was set aside", lost)
			}
			if (lost > 0 || c.told) && g.log.count("queue: damage found and set aside", nil)+g.log.count("spool: content set aside", nil)+
				g.log.count("queue: segment is unreadable and was set aside", nil) == 0 {
				t.Error("the log does not tell")
			}
			if code := g.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// copyData copies the data directory of a stopped gateway, as a backup would.
func copyData(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", filepath.Join(from, "data"), to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
}

// copy is a ledger of the same letters for another test.
func (l *ledger) copy(t testing.TB) *ledger {
	c := newLedger(t)
	for id, m := range l.letters {
		c.letters[id] = m
	}
	return c
}

// survivors wants every letter to be delivered once and unaltered, except those that were
// hit: they may be held or gone. It returns how many are not delivered.
func (l *ledger) survivors(s *sink, held []queued, hit []*letter) (lost int) {
	l.t.Helper()
	fates := l.fates(s)
	for _, m := range l.letters {
		n := 0
		if f := fates[m.id+" "+m.to[0]]; f != nil {
			n = len(f.epochs)
		}
		switch {
		case n > 1:
			l.t.Errorf("%s was delivered %d times", m.id, n)
		case n == 0 && !slices.Contains(hit, m):
			l.t.Errorf("%s is lost though the damage was elsewhere", m.id)
		case n == 0:
			lost++
		}
	}
	for _, q := range held {
		if !slices.ContainsFunc(hit, func(m *letter) bool { return m.queue == q.ID }) || q.Reason == "" {
			l.t.Errorf("held: %+v", q)
		}
	}
	return lost
}

// reasons are why things were set aside.
func reasons(g *gateway) []string {
	var all []string
	for _, folder := range []string{"queue", "content"} {
		names, _ := filepath.Glob(filepath.Join(g.dir, "data", folder, "corrupt", "*.reason"))
		for _, name := range names {
			b, _ := os.ReadFile(name)
			if strings.TrimSpace(string(b)) == "" {
				g.t.Errorf("%s is empty", name)
			}
			all = append(all, string(b))
		}
	}
	return all
}
