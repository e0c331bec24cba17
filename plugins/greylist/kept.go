package greylist

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// kept is what passes, in a file: a line each with the key and the Unix time until when. Lines
// are appended; when most of them are over the file is written anew. Processes that live at
// the same time take turns by a lock. It is an aid: losing it makes senders wait again, so
// nothing is synced, and what cannot be written is only said in the log.
type kept struct {
	dir string // "": nothing is kept
	now func() time.Time

	mu     sync.Mutex
	until  map[string]int64
	broken bool // and said so
}

const (
	maxKept  = 100_000 // keys
	lineSize = 64      // bytes, at most
	fileName = "passed"
)

// openKept reads what is kept. What it returns can be used whatever the error.
func openKept(dir string, now func() time.Time) (*kept, error) {
	k := &kept{dir: dir, now: now, until: make(map[string]int64)}
	if dir == "" {
		return k, nil
	}
	var err error
	k.until, err = readKept(filepath.Join(dir, fileName), now().Unix())
	return k, err
}

// readKept reads the lines of a file that are not over. Lines that make no sense, as after
// a crash, are passed over.
func readKept(path string, now int64) (map[string]int64, error) {
	until := make(map[string]int64)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return until, nil
	} else if err != nil {
		return until, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 0; lines.Scan() && n < 10*maxKept; n++ {
		key, number, ok := strings.Cut(lines.Text(), " ")
		t, err := strconv.ParseInt(number, 10, 64)
		if ok && err == nil && t > now && len(key) == len(tripletKey)+32 && (len(until) < maxKept || until[key] != 0) {
			until[key] = t
		}
	}
	return until, lines.Err()
}

// get returns until when a key passes.
func (k *kept) get(key string) (time.Time, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.until[key]
	if ok && t <= k.now().Unix() {
		delete(k.until, key)
		return time.Time{}, false
	}
	return time.Unix(t, 0), ok
}

// put keeps a key until a time.
func (k *kept) put(key string, until time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.until) >= maxKept {
		for old := range k.until { // any one: its sender waits once more after a restart
			delete(k.until, old)
			break
		}
	}
	k.until[key] = until.Unix()
	if k.dir == "" {
		return
	}
	err := k.append(fmt.Sprintf("%s %d\n", key, until.Unix()))
	if err != nil && !k.broken {
		slog.Warn("who passed cannot be kept over a restart", "error", err)
	}
	k.broken = err != nil
}

// append writes a line, and now and then the whole file.
func (k *kept) append(line string) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(k.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	path := filepath.Join(k.dir, fileName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	info, serr := f.Stat()
	if err = errors.Join(err, serr, f.Close()); err != nil {
		return err
	}
	if info.Size() > 4*lineSize*int64(max(len(k.until), 1000)) {
		return rewrite(path, k.now().Unix())
	}
	return nil
}

// rewrite leaves the lines out that are over or repeated.
func rewrite(path string, now int64) error {
	until, err := readKept(path, now)
	if err != nil {
		return err
	}
	type line struct {
		key   string
		until int64
	}
	var lines []line
	for key, t := range until {
		lines = append(lines, line{key, t})
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Or(cmp.Compare(b.until, a.until), cmp.Compare(a.key, b.key)) })
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, l := range lines {
		fmt.Fprintf(w, "%s %d\n", l.key, l.until)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
