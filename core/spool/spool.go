// Package spool keeps the content of messages: in memory while small, in a file of its own
// when large, immutable once received.
//
// A [Writer] takes one body. Up to the threshold it stays in memory and ends up in the
// queue's log; above that it goes to a file, so the memory a message needs does not depend
// on its size. The file is durable, with its name, after [Writer.Sync], which must come
// before the queue commits an entry that names it. The spool does not know which files are
// referred to: the queue does, removes them, and sweeps at start what a crash left behind.
//
// Directory: files with random names of 26 characters, 0640, in a 0710 directory, so that
// a plugin of the same group can read what it is told the name of and nothing else; corrupt/ holds
// what was set aside, each NAME with a NAME.reason. A Spool is safe for concurrent use, a
// Writer is not.
package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// DefaultThreshold is the size up to which bodies stay inline, in bytes.
const DefaultThreshold = 32 << 10

// Options for Open.
type Options struct {
	Dir       string // made if missing
	Threshold int    // bodies up to this many bytes stay in memory; 0: DefaultThreshold, below 0: none
	// MinFree is how many bytes must be free for Space to be content; in any case it
	// wants 5 % of the bytes and of the inodes.
	MinFree uint64
	FS      disk.FS          // nil: disk.OS
	Clock   func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: nothing is logged
}

// Spool is a directory of bodies.
type Spool struct {
	o       Options
	buffers sync.Pool // *[]byte of bufferSize

	mu      sync.Mutex
	checked time.Time
	space   error // what was found
	margin  room  // what may be used up before another look
	used    room  // since then
}

// room is an amount of disk.
type room struct{ bytes, files uint64 }

// bufferSize is what a Writer gathers before it writes to its file.
const bufferSize = 64 << 10

// Open prepares the directory.
func Open(o Options) (*Spool, error) {
	if o.Dir == "" {
		return nil, errors.New("spool: no directory")
	}
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Threshold == 0:
		o.Threshold = DefaultThreshold
	case o.Threshold < 0:
		o.Threshold = -1
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	o.Dir = abs
	if err := o.FS.MkdirAll(o.Dir, 0o710); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := o.FS.SyncDir(filepath.Dir(o.Dir)); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{o: o}
	size := max(bufferSize, o.Threshold)
	s.buffers.New = func() any { b := make([]byte, 0, size); return &b }
	return s, nil
}

// Path is where the content called name is.
func (s *Spool) Path(name string) string { return filepath.Join(s.o.Dir, name) }

// Space returns an error that wraps [queue.ErrNoSpace] while free bytes or inodes are
// short. It looks at most once a second, or when half of what was to spare may have been
// used, and recovers by itself.
func (s *Spool) Space() error {
	if err := s.use(room{}); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// use is Space before something is written.
func (s *Spool) use(r room) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.bytes += r.bytes
	s.used.files += r.files
	now := s.o.Clock()
	age := now.Sub(s.checked)
	if !s.checked.IsZero() && age >= 0 && age < time.Second && (s.space != nil || s.used.within(s.margin)) {
		return s.space
	}
	margin, err := s.lookForSpace()
	if (err == nil) != (s.space == nil) {
		if err != nil {
			s.o.Log.Error("spool: no new mail is accepted", "error", err)
		} else {
			s.o.Log.Info("spool: mail is accepted again")
		}
	}
	s.checked, s.space, s.margin, s.used = now, err, margin, room{}
	return err
}

func (r room) within(margin room) bool { return r.bytes <= margin.bytes/2 && r.files <= margin.files/2 }

// lookForSpace returns what is to spare.
func (s *Spool) lookForSpace() (room, error) {
	sp, err := s.o.FS.Space(s.o.Dir)
	if err != nil {
		return room{}, err
	}
	bytes, files := max(s.o.MinFree, sp.Bytes/20), sp.Inodes/20
	if sp.FreeBytes < bytes {
		return room{}, fmt.Errorf("%d bytes free, %d wanted: %w", sp.FreeBytes, bytes, queue.ErrNoSpace)
	}
	if sp.FreeInodes < files {
		return room{}, fmt.Errorf("%d inodes free, %d wanted: %w", sp.FreeInodes, files, queue.ErrNoSpace)
	}
	margin := room{sp.FreeBytes - bytes, sp.FreeInodes - files}
	if sp.Inodes == 0 {
		margin.files = math.MaxUint64 // not counted there
	}
	return margin, nil
}

// Remove deletes the content called name. It is no error if there is none.
func (s *Spool) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := s.o.FS.Remove(s.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Names lists the contents that are there.
func (s *Spool) Names() ([]string, error) {
	all, err := s.o.FS.ReadDir(s.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	names := all[:0]
	for _, n := range all {
		if checkName(n) == nil {
			names = append(names, n)
		}
	}
	return names, nil
}

// Verify reads the content that b refers to. An error means that it is not what was
// stored: missing, of another size, or with another checksum; the error then wraps
// [mail.ErrBodyDamaged]. Any other error says that it could not be read.
func (s *Spool) Verify(b mail.Body) error {
	name := filepath.Base(b.Path)
	f, err := s.o.FS.OpenFile(s.Path(name), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: content %s is missing: %w", name, mail.ErrBodyDamaged)
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	if size, err := f.Size(); err != nil {
		return fmt.Errorf("spool: %w", err)
	} else if size < b.Offset+b.Size {
		return fmt.Errorf("spool: content %s has %d bytes instead of %d: %w", name, size, b.Offset+b.Size, mail.ErrBodyDamaged)
	}
	if err := b.Verify(io.NewSectionReader(f, b.Offset, b.Size)); err != nil {
		return fmt.Errorf("spool: content %s: %w", name, err)
	}
	return nil
}

// SetAside moves a content to corrupt/, with the reason beside it. It is no error if the
// content is missing: the reason is then all there is.
func (s *Spool) SetAside(name, reason string) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir := filepath.Join(s.o.Dir, "corrupt")
	if err := s.o.FS.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := s.o.FS.Rename(s.Path(name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	s.o.Log.Error("spool: content set aside", "content", name, "reason", reason)
	f, err := s.o.FS.OpenFile(filepath.Join(dir, name+".reason"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	_, err = f.Write([]byte(reason + "\n"))
	return errors.Join(err, f.Sync(), f.Close(), s.o.FS.SyncDir(dir), s.o.FS.SyncDir(s.o.Dir))
}

// Sweep removes the contents that keep does not claim: what a crash left between the
// content and its commit. With damaged set nothing is deleted, but set aside: the queue has
// lost something, and these may be its remains. It returns how many there were.
func (s *Spool) Sweep(keep func(name string) bool, damaged bool) (int, error) {
	names, err := s.Names()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		if keep(name) {
			continue
		}
		n++
		if damaged {
			err = s.SetAside(name, "nothing in the damaged queue refers to this content")
		} else {
			err = s.Remove(name)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// checkName accepts only names that newName makes.
func checkName(name string) error {
	if len(name) != 26 {
		return fmt.Errorf("spool: %q is not the name of a content", name)
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return fmt.Errorf("spool: %q is not the name of a content", name)
		}
	}
	return nil
}

// newName is unguessable: 130 random bits.
func newName() string { return rand.Text() }
